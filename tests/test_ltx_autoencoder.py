"""The causal LTX-2 autoencoder against diffusers' class with the same weights: whole, streamed, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint import load_ltx_autoencoder
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_blocks import Stream
from model.vae.ltx_config import LtxAutoencoderConfig

REFERENCE = "diffusers.models.autoencoders.autoencoder_kl_ltx2"
"""Imported where it is used: it takes seconds, and every process of a run collects all files."""

THREE_STAGES: dict[str, Any] = {
    "latent_channels": 6,
    "block_out_channels": [8, 16, 16, 32],
    "layers_per_block": [1, 1, 1, 1, 1],
    "decoder_block_out_channels": [8, 16, 32],
    "decoder_layers_per_block": [1, 2, 1, 1],
}
"""The released pattern at small widths."""
FOUR_STAGES: dict[str, Any] = {
    **THREE_STAGES,
    "decoder_block_out_channels": [8, 16, 16, 32],
    "decoder_layers_per_block": [1, 1, 1, 1, 1],
    "decoder_spatio_temporal_scaling": [True, True, True, True],
    "decoder_inject_noise": [False] * 5,
    "upsample_type": ["spatiotemporal", "spatiotemporal", "temporal", "spatial"],
    "upsample_residual": [True, False, True, True],
    "upsample_factor": [1, 2, 1, 2],
}
"""Mirrors the encoder, and has a stage without the residual path."""
NARROWING: dict[str, Any] = {**THREE_STAGES, "upsample_factor": [1, 1, 2]}
"""Stages that change their width in a residual block of their own."""
CASES = [THREE_STAGES, FOUR_STAGES, NARROWING]
CASE_NAMES = ["three", "four", "narrowing"]
GRID = (2, 3)


def build(values: dict[str, Any]) -> tuple[Any, LtxAutoencoder]:
    torch.manual_seed(0)
    reference = pytest.importorskip(REFERENCE).AutoencoderKLLTX2Video(**values).eval()
    with torch.no_grad():
        reference.latents_mean.uniform_(-1, 1)
        reference.latents_std.uniform_(0.5, 2)
    config = LtxAutoencoderConfig.from_dict(dict(reference.config))
    ours = LtxAutoencoder(config).eval()
    ours.load_state_dict(reference.state_dict())
    return reference, ours


def latents(num_frames: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 6, num_frames, *GRID)


def reference_decode(reference: Any, normalised: Tensor) -> Tensor:
    mean, std = (getattr(reference, f"latents_{name}")[:, None, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        return reference.decode(normalised * std / reference.config.scaling_factor + mean, causal=True).sample


@pytest.mark.parametrize("values", CASES, ids=CASE_NAMES)
@pytest.mark.parametrize("num_latents", [1, 2, 9])
def test_whole_decode_equals_the_reference(values: dict[str, Any], num_latents: int) -> None:
    reference, ours = build(values)
    clip = latents(num_latents)
    theirs = reference_decode(reference, clip)
    with torch.no_grad():
        frames = ours.decode(clip)
    assert frames.shape == (1, 3, 1 + 8 * (num_latents - 1), GRID[0] * 32, GRID[1] * 32)
    torch.testing.assert_close(frames, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "values", [THREE_STAGES, {**FOUR_STAGES, "scaling_factor": 1.7}], ids=["three", "four"]
)
@pytest.mark.parametrize("num_frames", [1, 17])
def test_encode_equals_the_reference(values: dict[str, Any], num_frames: int) -> None:
    reference, ours = build(values)
    video = torch.rand(2, 3, num_frames, 64, 32) * 2 - 1
    mean, std = (getattr(reference, f"latents_{name}")[:, None, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        mode = reference.encode(video, causal=True).latent_dist.mode()
        ours_mode = ours.encode(video)
    theirs = (mode - mean) * reference.config.scaling_factor / std
    torch.testing.assert_close(ours_mode, theirs, atol=1e-5, rtol=1e-5)


def stream(decoder: Any, clip: Tensor) -> list[Tensor]:
    """Decode one latent frame a call; uint8 frames [F, H, W, 3] of each call, the first call cut to its one frame."""
    caches = [torch.zeros(shape) for _, shape in decoder.cache_spec(*GRID)]
    parts = []
    for index in range(clip.shape[2]):
        with torch.no_grad():
            frames, *caches = decoder(clip[:, :, index : index + 1], *caches)
        parts.append(frames[-1:] if index == 0 else frames)
    return parts


@pytest.mark.parametrize("values", CASES, ids=CASE_NAMES)
def test_streamed_frames_equal_the_whole_decode(values: dict[str, Any]) -> None:
    reference, ours = build(values)
    clip = latents(9)
    parts = stream(LtxStreamingDecoder(ours), clip)
    assert [len(part) for part in parts] == [1] + [8] * 8
    theirs = ((reference_decode(reference, clip)[0].permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255)
    # A value within float rounding of a half may fall to either side.
    assert (torch.cat(parts).float() - theirs).abs().max() <= 1
    caches = [torch.zeros(shape) for _, shape in LtxStreamingDecoder(ours).cache_spec(*GRID)[:-1]]
    exact = []
    for index in range(9):
        run = Stream(caches, torch.tensor([float(index > 0)]))
        with torch.no_grad():
            frames = ours.decoder(ours.raw(clip[:, :, index : index + 1]), run)
        caches = run.after
        exact.append(frames[:, :, -1:] if index == 0 else frames)
    torch.testing.assert_close(torch.cat(exact, 2), reference_decode(reference, clip), atol=1e-5, rtol=1e-5)


def test_caches_hold_what_convolutions_saw() -> None:
    _, ours = build(THREE_STAGES)
    decoder = LtxStreamingDecoder(ours)
    caches = [torch.zeros(shape) for _, shape in decoder.cache_spec(*GRID)]
    with torch.no_grad():
        _, *after = decoder(latents(1), *caches)
    assert [tuple(cache.shape) for cache in after] == [shape for _, shape in decoder.cache_spec(*GRID)]
    torch.testing.assert_close(after[0], ours.raw(latents(1)).expand(-1, -1, 2, -1, -1))


def test_exported_graph_carries_the_caches(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from export.graph import SharedWeights
    from export.onnx import export_decoder

    _, ours = build(THREE_STAGES)
    decoder = LtxStreamingDecoder(ours)
    spec = decoder.cache_spec(*GRID)
    export_decoder(
        decoder, (6, *GRID), spec, tmp_path / "decoder.onnx", SharedWeights(tmp_path / "weights.bin")
    )
    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx")
    assert [node.name for node in session.get_inputs()] == ["latent", *(name for name, _ in spec)]
    clip = latents(4)
    caches = {name: np.zeros(shape, np.float32) for name, shape in spec}
    for index, expected in enumerate(stream(decoder, clip)):
        frames, *after = session.run(None, {"latent": clip[:, :, index : index + 1].numpy(), **caches})
        caches = dict(zip(caches, after, strict=True))
        part = frames[-1:] if index == 0 else frames
        assert np.abs(part.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_a_folder_as_diffusers_saves_it_loads(tmp_path: Path) -> None:
    reference, ours = build(FOUR_STAGES)
    reference.save_pretrained(tmp_path)
    loaded = load_ltx_autoencoder(tmp_path)
    assert loaded.config == ours.config
    torch.testing.assert_close(loaded.decode(latents(2)), ours.decode(latents(2)))
    weights = {
        name: tensor for name, tensor in ours.state_dict().items() if name != "decoder.conv_in.conv.bias"
    }
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"missing decoder\.conv_in\.conv\.bias"):
        load_ltx_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"timestep_conditioning": True}, "timestep_conditioning"),
        ({"encoder_causal": False}, "encoder_causal"),
        ({"block_out_channels": 256}, "block_out_channels"),
        ({"upsample_factor": [0, 2, 2]}, "upsample_factor"),
        ({"latent_channels": "many"}, "latent_channels"),
        ({"scaling_factor": None, "spatio_temporal_scaling": 5}, "config"),
        ({"decoder_inject_noise": [True, False, False, False]}, "draws noise"),
        ({"upsample_type": ["spatial", "odd", "spatial"]}, "upsample_type"),
        ({"upsample_factor": [2, 2]}, "upsample_factor has 2 entries"),
        ({"num_wheels": 4}, "num_wheels"),
    ],
)
def test_configs_that_cannot_be_built_are_one_sentence(
    tmp_path: Path, option: dict[str, Any], words: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLLTX2Video", **option}))
    with pytest.raises(ValueError, match=words):
        LtxAutoencoderConfig.from_file(tmp_path / "config.json")


def test_the_causal_release_lists_its_stages_from_the_pixels() -> None:
    values = {
        "_class_name": "CausalVideoAutoencoder",
        "gradient_checkpointing": False,
        "decoder_causal": False,
        "decoder_block_out_channels": [256, 512, 512, 1024],
        "decoder_layers_per_block": [4, 6, 4, 2, 2],
        "decoder_spatio_temporal_scaling": True,
        "decoder_upsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "upsample_residual": False,
        "upsample_factor": [2, 2, 1, 2],
        "decoder_spatial_padding_mode": "zeros",
    }
    config = LtxAutoencoderConfig.from_dict(values)
    assert config.upsample_type == ("spatiotemporal", "spatiotemporal", "temporal", "spatial")
    assert config.upsample_residual == (False,) * 4
    assert not config.decoder_causal


def test_released_strides() -> None:
    config = LtxAutoencoderConfig()
    assert (config.temporal_stride, config.spatial_stride) == (8, 32)
    with pytest.raises(ValueError, match="1 \\+ 8 \\* n"):
        build(THREE_STAGES)[1].encode(torch.zeros(1, 3, 4, 32, 32))
