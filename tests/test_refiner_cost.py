"""The refiner's cost is what its layers do and hold, and the released one's is the known one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.machine.refiner_cost import RefinerSizes, missing_memory, refiner_cost
from model.refiner import released_refiner
from model.refiner.rotary import video_rotary
from model.refiner.state import state_shapes
from model.refiner.transformer import Prefix
from tests.refiner_cases import CAPTION_WIDTH, CHANNELS, FPS, random_clip, random_text, small_refiner

SMALL = RefinerSizes(
    hidden_size=32,
    num_layers=2,
    latent_channels=CHANNELS,
    text_dim=CAPTION_WIDTH,
    text_length=7,
    tokens_per_frame=12,
    window=6,
)


def test_the_parameters_are_the_released_ones():
    sizes = RefinerSizes()
    assert sizes.product_weights + sizes.other_parameters == 13_041_520_768
    config = released_refiner()
    assert (sizes.hidden_size, sizes.num_layers, sizes.latent_channels, sizes.text_dim) == (
        config.hidden_size,
        config.num_layers,
        config.in_channels,
        config.caption_channels,
    )


def test_the_operations_are_those_the_layers_do():
    # Where gradients are wanted, attention runs as plain products, which the counter knows.
    refiner = small_refiner(torch.float32, num_layers=2).requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        text = refiner.encode_text(*random_text(torch.float32))
    cost = refiner_cost("bf16", SMALL)
    assert counter.get_total_flops() == cost.text_operations
    latents, runs = random_clip(3, torch.float32), torch.zeros(1, 4, 6 * 12, 8)
    prefix = Prefix(((runs,), (runs,)), ((runs,), (runs,)), None)
    table = video_rotary(refiner.config, torch.arange(3.0), 3, 4, FPS)
    with FlopCounterMode(display=False) as counter:
        refiner(latents, torch.zeros(1, 1), text, table, prefix)
    counted = cost.product_operations + cost.attention_operations + cost.other_operations
    assert counter.get_total_flops() * cost.num_passes == counted


def test_the_state_is_that_of_the_stream():
    shapes = state_shapes(released_refiner(), 880, history=10)
    elements = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name != "num_frames")
    assert refiner_cost("nvfp4").state_bytes == 2 * elements


def test_a_block_costs_what_the_specification_says():
    cost = refiner_cost("nvfp4")
    # Section 10: 238 + 102 + 9 TFLOP; 0.692 GB of keys and values a latent frame, 11 of them.
    assert cost.product_operations == pytest.approx(238e12, rel=0.005)
    assert cost.attention_operations == pytest.approx(111e12, rel=0.005)
    assert cost.state_bytes == pytest.approx(7.6e9, rel=0.005)
    card = {"nvfp4": 1676e12, "bf16": 209.5e12}
    assert cost.compute_ms(card) == pytest.approx(671, rel=0.005)
    assert refiner_cost("bf16").compute_ms(card) == pytest.approx(1666, rel=0.005)
    assert cost.memory_ms(1792e9) < 0.1 * cost.compute_ms(card)


def test_four_bits_fit_a_card_that_half_precision_does_not():
    assert missing_memory(refiner_cost("nvfp4"), 32e9) == 0
    assert missing_memory(refiner_cost("nvfp4"), 32e9, beside_bytes=20e9) > 0
    assert missing_memory(refiner_cost("bf16"), 32e9) > 0


def test_wider_windows_cost_attention_and_memory_only():
    near, far = refiner_cost("fp8", SMALL), refiner_cost("fp8", replace(SMALL, window=12))
    assert far.product_operations == near.product_operations
    assert far.attention_operations > near.attention_operations
    assert far.state_bytes == 2 * near.state_bytes


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="nvfp4, fp8, bf16"):
        refiner_cost("int2")  # type: ignore[arg-type]
