"""What a cluster is said to need agrees with what the network's own operations and tensors come to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from model.conditioning import Conditioning
from model.config import ModelConfig, sana_wm
from model.world_model import Mode, WorldModel
from training.parallel.cost_model import (
    GPUS,
    KEPT_BYTES,
    Layout,
    forward_operations,
    num_parameters,
    stage_cost,
    step_operations,
)
from training.stages.presets import paper_stages

FRAMES = 4
ONE_BLOCK = replace(sana_wm(), num_layers=1)
H100S = Layout(64, GPUS["h100"])


def counted(config: ModelConfig, frames: int = FRAMES, mode: Mode = "bidirectional") -> tuple[float, float]:
    """Run a network of the released width where there are only shapes: its operations and the bytes that are kept."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.device("meta"), saved_tensors_hooks(keep, lambda tensor: tensor):
        model = WorldModel(config).to(torch.bfloat16)
        stride, grid = config.temporal_stride, (config.latent_height, config.latent_width)
        latents = torch.empty(1, config.in_channels, frames, *grid)
        with FlopCounterMode(display=False) as counter:
            conditioning = Conditioning(
                text=torch.empty(1, config.text_length, config.text_dim),
                text_mask=torch.empty(1, config.text_length),
                c2w=torch.empty(1, frames * stride, 4, 4),
                intrinsics=torch.empty(1, frames * stride, 4),
                start_frame=torch.empty(1, dtype=torch.int64),
            )
            model(latents, torch.empty(1, frames), conditioning, mode=mode)
    return float(counter.get_total_flops()), float(sum(kept.values()))


def test_parameters_are_those_of_the_released_model() -> None:
    assert num_parameters(sana_wm()) == (130_764_560, 2_661_800_448)


def test_operations_and_kept_bytes_are_those_of_a_delta_net_block() -> None:
    operations, kept = counted(ONE_BLOCK)
    more = counted(ONE_BLOCK, 2 * FRAMES)[1] - kept
    # Embedders and the output layer, which the formula leaves out, are a twentieth of a single block.
    assert operations == pytest.approx(forward_operations(ONE_BLOCK, FRAMES), rel=0.06)
    tokens = FRAMES * ONE_BLOCK.tokens_per_frame
    assert more / (tokens * ONE_BLOCK.hidden_size) == pytest.approx(KEPT_BYTES, rel=0.1)


def test_operations_are_those_of_a_softmax_block() -> None:
    softmax = replace(ONE_BLOCK, softmax_every_n=1)
    assert counted(softmax)[0] == pytest.approx(forward_operations(softmax, FRAMES), rel=0.06)
    frames = 4 * FRAMES
    seen = (frames + 1) / (2 * frames)
    assert counted(replace(softmax, chunk_size=1, first_chunk_size=1), frames, "chunk_causal")[
        0
    ] == pytest.approx(forward_operations(softmax, frames, seen), rel=0.06)


def test_chunks_that_see_only_what_is_before_them_cost_half_the_attention_and_the_last_process_more() -> None:
    stages, config = paper_stages(), sana_wm()
    causal = replace(stages["minute-camera"], stage="chunk-causal")
    whole, linear = (forward_operations(config, causal.num_latent_frames, seen) for seen in (1.0, 0.0))
    assert step_operations(causal, config, True)[0] == pytest.approx(4 * (linear + (whole - linear) / 2))
    assert step_operations(causal, config, True, 2)[0] == pytest.approx(
        4 * (linear + (whole - linear) * 3 / 4)
    )
    both, last = stage_cost(stages["minute-camera"], config, H100S), stage_cost(causal, config, H100S)
    assert last.step_s / both.step_s == pytest.approx((linear + (whole - linear) * 3 / 4) / whole)
    assert last.petaflop_per_step / both.petaflop_per_step == pytest.approx((1 + linear / whole) / 2)


def test_the_paper_s_minute_fits_its_gpus_only_with_activations_computed_again() -> None:
    minute = paper_stages()["minute-camera"]
    assert stage_cost(minute, sana_wm(), H100S).fits
    assert not stage_cost(minute, sana_wm(), replace(H100S, recompute=False)).fits


def test_days_go_with_gpus_and_their_use() -> None:
    minute = paper_stages()["minute-camera"]
    days = stage_cost(minute, sana_wm(), H100S).days
    assert stage_cost(minute, sana_wm(), replace(H100S, utilisation=0.6)).days == pytest.approx(days / 2)
    assert stage_cost(minute, sana_wm(), replace(H100S, num_gpus=16)).days == pytest.approx(days * 4)
    # More groups than a step has clips have nothing to do.
    assert stage_cost(minute, sana_wm(), replace(H100S, num_gpus=640)).gpus_used == 64


def test_gpus_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 2"):
        stage_cost(paper_stages()["minute-camera"], sana_wm(), replace(H100S, num_gpus=7))
