"""The refiner and its connectors against diffusers 0.42.1, on small random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.refiner.rotary import video_rotary
from model.refiner.transformer import KeysValues
from tests.refiner_cases import (
    FPS,
    connector_pair,
    random_clip,
    random_text,
    refiner_pair,
    relative_error,
)

# Rotary tables and time embeddings are float32 in the weights' definition, which leaves about 1e-7.
BOUNDS = {torch.float64: 1e-6, torch.float32: 1e-4}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        {"rope_type": "split"},
        {"rope_type": "interleaved"},
        {"rope_type": "split", "gated_attn": True},
        {"rope_type": "interleaved", "num_attention_heads": 3, "cross_attention_dim": 24},
    ],
    ids=["split", "interleaved", "gated", "three-heads"],
)


def reference_table(reference: Any, frames: list[int], grid: tuple[int, int], fps: float) -> Any:
    return reference.build_rotary_emb_for_absolute_positions(
        batch_size=1,
        frame_positions=frames,
        height=grid[0],
        width=grid[1],
        device=torch.device("cpu"),
        fps=fps,
    )


@DTYPES
@VARIANTS
def test_one_pass_gives_the_reference_velocity(dtype: torch.dtype, changes: dict[str, Any]):
    reference, ours = refiner_pair(dtype, **changes)
    latents, (text, mask) = random_clip(5, dtype), random_text(dtype)
    sigmas = torch.tensor([[0.0, 0.2, 0.421875, 0.725, 0.909375]])
    tokens = latents.flatten(2).transpose(1, 2)
    with torch.no_grad():
        theirs = reference(
            hidden_states=tokens,
            encoder_hidden_states=text,
            timestep=1000 * sigmas.repeat_interleave(12, 1),
            video_rotary_emb=reference_table(reference, list(range(5)), (3, 4), FPS),
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        table = video_rotary(ours.config, torch.arange(5.0), 3, 4, FPS)
        velocity = ours(latents, sigmas, ours.encode_text(text, mask), table)
    assert velocity.dtype == dtype
    assert relative_error(velocity.flatten(2).transpose(1, 2), theirs) < BOUNDS[dtype]


@pytest.mark.parametrize("fps", [16.0, 24.0])
@pytest.mark.parametrize(("heads", "head_dim"), [(4, 8), (2, 6), (5, 4)])
def test_rotary_tables_are_the_reference_ones(heads: int, head_dim: int, fps: float):
    frames, grid = [0, 1, 2, 7, 40], (3, 5)
    sizes = {
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "cross_attention_dim": heads * head_dim,
    }
    for rope_type in ("split", "interleaved"):
        reference, ours = refiner_pair(torch.float32, rope_type=rope_type, **sizes)
        tables = video_rotary(ours.config, torch.tensor(frames).float(), *grid, fps)
        for mine, theirs in zip(tables, reference_table(reference, frames, grid, fps), strict=True):
            if rope_type == "interleaved":
                mine = mine.transpose(0, 1).flatten(1).repeat_interleave(2, -1)
            torch.testing.assert_close(mine, theirs[0], rtol=0, atol=1e-6)


def reference_stream(reference: Any, latents: Tensor, text: tuple[Tensor, Tensor], **options: Any) -> Tensor:
    """Run diffusers' streaming pipeline with a text that is encoded already."""
    pipeline_module = pytest.importorskip("diffusers.pipelines.sana_wm.refiner")
    schedulers = pytest.importorskip("diffusers.schedulers")

    class Pipeline(pipeline_module.SanaWMLTX2Refiner):
        def _encode_prompt(self, prompt: str, **_: Any) -> tuple[Tensor, Tensor]:
            return text

    absent: Any = None
    pipeline = Pipeline(
        reference, absent, absent, absent, schedulers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(latents, "", output_type="latent", **options)


@DTYPES
@pytest.mark.parametrize(
    ("num_frames", "block_size", "window"),
    [
        pytest.param(18, 3, 6, id="short-last-block-window-6"),
        pytest.param(18, 3, 11, id="short-last-block-window-11"),
        pytest.param(9, 4, 2, id="window-shorter-than-a-block"),
        pytest.param(6, 5, 11, id="offline"),
        pytest.param(2, 3, 11, id="one-frame"),
    ],
)
def test_a_stream_is_the_reference_stream(dtype: torch.dtype, num_frames: int, block_size: int, window: int):
    reference, ours = refiner_pair(dtype)
    latents, text = random_clip(num_frames, dtype), random_text(dtype)
    theirs = reference_stream(reference, latents, text, fps=FPS, block_size=block_size, kv_max_frames=window)
    refined = ours.refine(latents, *text, fps=FPS, block_size=block_size, window=window)
    assert refined.dtype == dtype
    assert torch.equal(refined[:, :, 0], latents[:, :, 0])
    assert relative_error(refined, theirs) < BOUNDS[dtype]


@VARIANTS
def test_every_variant_streams_like_the_reference(changes: dict[str, Any]):
    reference, ours = refiner_pair(torch.float64, **changes)
    latents, text = random_clip(12, torch.float64, (2, 5)), random_text(torch.float64)
    seeds = [torch.Generator().manual_seed(7) for _ in range(2)]
    theirs = reference_stream(
        reference, latents, text, fps=24.0, block_size=3, kv_max_frames=6, generator=seeds[0]
    )
    refined = ours.refine(latents, *text, fps=24.0, block_size=3, window=6, generator=seeds[1])
    assert relative_error(refined, theirs) < BOUNDS[torch.float64]


@DTYPES
@pytest.mark.parametrize(
    "changes",
    [{"rope_type": "split"}, {"rope_type": "interleaved"}, {"rope_type": "split", "video_gated_attn": True}],
    ids=["split", "interleaved", "gated"],
)
@pytest.mark.parametrize("valid", [1, 5, 8])
def test_connectors_give_the_reference_text(dtype: torch.dtype, changes: dict[str, Any], valid: int):
    reference, ours = connector_pair(dtype, **changes)
    hidden_states = 3 * torch.randn(2, 8, 24, 5, dtype=dtype, generator=torch.Generator().manual_seed(5)) + 1
    mask = (torch.arange(8) >= 8 - valid).long().expand(2, 8)
    with torch.no_grad():
        theirs, _, their_mask = reference(hidden_states.flatten(2), mask)
    text, text_mask = ours(hidden_states, mask)
    assert relative_error(text, theirs) < BOUNDS[dtype]
    assert torch.equal(text_mask, their_mask)
    assert text_mask.all()


def test_kept_keys_are_those_the_reference_captures():
    dtype = torch.float64
    reference, ours = refiner_pair(dtype)
    module = pytest.importorskip("diffusers.models.transformers.transformer_sana_wm_refiner")
    latents, (text, mask) = random_clip(1, dtype), random_text(dtype)
    cache = module.SanaWMRefinerKVCache(3)
    with torch.no_grad():
        reference(
            hidden_states=latents.flatten(2).transpose(1, 2),
            encoder_hidden_states=text,
            timestep=torch.zeros(1, 12),
            video_rotary_emb=reference_table(reference, [0], (3, 4), FPS),
            encoder_attention_mask=mask,
            kv_cache=cache,
            kv_cache_mode="capture_pre_rope",
        )
        kept: list[KeysValues] = []
        table = video_rotary(ours.config, torch.zeros(1), 3, 4, FPS)
        ours(latents, torch.zeros(1, 1), ours.encode_text(text, mask), table, kept=kept)
    for layer, own in enumerate(kept):
        keys, values = cache.get(layer).get_captured_pre_rope()
        assert relative_error(own.raw_keys.transpose(1, 2).flatten(2), keys) < 1e-6
        assert relative_error(own.values.transpose(1, 2).flatten(2), values) < 1e-6
