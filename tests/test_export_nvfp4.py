"""NVFP4 arithmetic is what the format says, by a naive twin; the layer table knows every layer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from export.quantization.backend import modelopt, packed_by_modelopt, round_nvfp4
from export.quantization.layers import (
    STEP_RULES,
    Algorithm,
    LayerRule,
    Precision,
    Recipe,
    find_rule,
    precision_of,
)
from export.quantization.nvfp4 import (
    BLOCK,
    MAX_E2M1,
    MAX_E4M3,
    MIN_E4M3,
    global_scale,
    hadamard_matrix,
    packed,
    quantise,
    rotate_blocks,
    round_e2m1,
    round_e4m3,
)
from export.quantization.quantize import layer_scales, leaf_linears, quantised
from export.quantization.rewriting import smoothed_weight
from model.config import sana_wm, tiny
from model.world_model import WorldModel
from tests.models import random_model

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def naive_e2m1(x: float) -> float:
    """Take the nearest of the eight magnitudes; of two equally near, the one with an even code."""
    size = min(abs(x), MAX_E2M1)
    code = min(range(8), key=lambda code: (abs(E2M1[code] - size), code % 2))
    return float(np.copysign(E2M1[code], x))


def naive_nvfp4(row: list[float], scale: float) -> list[float]:
    """Quantise one row block by block, in plain Python with another library's 8-bit floats."""
    restored = []
    for start in range(0, len(row), BLOCK):
        block = [np.float32(value) for value in row[start : start + BLOCK]]
        wanted = max(abs(value) for value in block) / np.float32(MAX_E2M1 * scale)
        kept = np.float32(ml_dtypes.float8_e4m3fn(min(wanted, np.float32(MAX_E4M3))))
        step = max(kept, np.float32(MIN_E4M3)) * np.float32(scale)
        restored += [naive_e2m1(float(value / step)) * float(step) for value in block]
    return restored


@given(st.floats(-8, 8, width=32))
def test_e2m1_rounds_to_the_nearest_number(x: float) -> None:
    assert float(round_e2m1(torch.tensor(x))) == naive_e2m1(x)


@given(st.floats(-600, 600, width=32))
def test_e4m3_agrees_with_another_library(x: float) -> None:
    clipped = float(np.clip(x, -MAX_E4M3, MAX_E4M3))
    assert float(round_e4m3(torch.tensor(x))) == float(ml_dtypes.float8_e4m3fn(clipped))


def test_ties_fall_to_the_even_code() -> None:
    halves = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    assert round_e2m1(halves).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert round_e2m1(-halves).tolist() == [-0.0, -1.0, -1.0, -2.0, -2.0, -4.0, -4.0]


@pytest.mark.parametrize("spread", [1e-4, 1.0, 300.0])
def test_quantisation_equals_its_naive_twin(spread: float) -> None:
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1)) * spread
    x[2, 16:32] = 0
    x[3, 16:32] *= 1e-6
    packed = quantise(x)
    expected = [naive_nvfp4(row, packed.global_scale) for row in x.tolist()]
    assert torch.allclose(packed.restored(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_weights_are_packed_to_the_bytes_of_modelopt() -> None:
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(96, 64, generator=generator) * 0.03
    # Weights far apart in size, a block of zeros, and blocks too small for the smallest scale.
    rows *= 10.0 ** torch.empty(96, 1).uniform_(-3, 1, generator=generator)
    rows[5, 16:32] = 0
    rows[6:9] *= 1e-7
    for ours, theirs in zip(packed(rows), packed_by_modelopt(rows), strict=True):
        assert numpy_helper.from_array(np.asarray(ours)) == numpy_helper.from_array(np.asarray(theirs))


def test_a_calibrated_scale_saturates_what_lies_beyond() -> None:
    x = torch.tensor([[100.0] + [0.0] * 15])
    restored = quantise(x, global_scale(10.0)).restored()
    assert float(restored[0, 0]) == pytest.approx(10.0)
    assert float(quantise(x).restored()[0, 0]) == pytest.approx(100.0)


def test_normal_values_keep_a_tenth_of_their_size() -> None:
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    error = (quantise(x).restored() - x).norm() / x.norm()
    # Four bits hold normal values to about 9.5 %; a wrong scale or table shows at once.
    assert 0.08 < float(error) < 0.105


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        quantise(torch.zeros(2, 20))


def test_rotated_products_are_the_same_products() -> None:
    generator = torch.Generator().manual_seed(3)
    x, w = torch.randn(4, 64, generator=generator), torch.randn(8, 64, generator=generator)
    matrix = hadamard_matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(BLOCK), atol=1e-6)
    assert torch.allclose(rotate_blocks(x, matrix) @ rotate_blocks(w, matrix).T, x @ w.T, atol=1e-4)


@pytest.mark.parametrize("config", [sana_wm(), replace(tiny(), hidden_size=32)], ids=["sana-wm", "tiny"])
def test_every_linear_layer_has_a_rule(config) -> None:
    with torch.device("meta"):
        model = WorldModel(config)
    precisions = {name: precision_of(name, "nvfp4") for name in leaf_linears(model)}
    assert precisions["blocks.0.attn.qkv"] == "nvfp4"
    assert precisions["blocks.0.mlp.point_conv.conv"] == "nvfp4"
    assert precisions["blocks.1.attn.out_proj_cam"] == "bf16"
    assert precisions["blocks.1.plucker_proj"] == "bf16"
    assert precisions["final_layer.linear"] == "fp32"
    low = [linear for name, linear in leaf_linears(model).items() if precisions[name] == "nvfp4"]
    assert all(linear.in_features % BLOCK == 0 for linear in low)


def test_an_unknown_layer_needs_a_decision() -> None:
    with pytest.raises(ValueError, match="no rule of the layer table"):
        find_rule("new_branch.proj")
    assert all(rule.why for rule in STEP_RULES)


def small_model() -> WorldModel:
    torch.manual_seed(6)
    return random_model(replace(tiny(), hidden_size=32, num_layers=1))


def through_one_layer(model: nn.Module) -> None:
    model.get_submodule("blocks.0.attn.qkv")(torch.linspace(-3.0, 2.0, 96).reshape(3, 32))


def one_layer(precision: Precision) -> tuple[LayerRule, ...]:
    """Give one layer a precision, and leave all others as they are."""
    return (LayerRule("blocks.0.attn.qkv", precision, "tried"), LayerRule("*", "fp32", "left alone"))


@pytest.mark.parametrize("algorithm", ["max", "mse", "awq", "svdquant"])
def test_modelopt_rounds_to_the_packed_bytes(algorithm: Algorithm) -> None:
    model, recipe = small_model(), Recipe("nvfp4", algorithm, rules=one_layer("nvfp4"))
    twin = quantised(model, recipe, through_one_layer)
    layer: Any = twin.get_submodule("blocks.0.attn.qkv")
    scales = layer_scales(twin, recipe)["blocks.0.attn.qkv"]
    rows = smoothed_weight(model.get_parameter("blocks.0.attn.qkv.weight").detach(), scales)
    values, blocks, scale = (array.astype(np.float32) for array in packed(rows, scales.weight_largest))
    restored = values * np.repeat(blocks * scale, BLOCK, axis=-1)
    assert np.array_equal(layer.weight_quantizer(layer.weight).detach().numpy(), restored)
    if algorithm == "max":
        assert scales.largest == 3.0
    assert (scales.smoothing is not None) == (algorithm in ("awq", "svdquant"))
    assert (scales.low_rank is not None) == (algorithm == "svdquant")


def test_gradients_pass_straight_through() -> None:
    x = torch.linspace(-3.0, 2.0, 32).reshape(2, 16).requires_grad_()
    quantizer = SimpleNamespace(backend_extra_args={}, amax=torch.tensor(3.0))
    rounded = round_nvfp4(x, quantizer)
    rounded.backward(torch.ones_like(x))
    assert torch.equal(rounded, quantise(x.detach(), global_scale(3.0)).restored())
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.gpu
def test_the_kernels_of_modelopt_round_alike() -> None:
    modelopt()
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(8)) * 2
    for largest in (torch.tensor(3.0), None):
        quantizer = SimpleNamespace(backend_extra_args={}, amax=None if largest is None else largest.cuda())
        theirs = round_nvfp4(x.cuda(), quantizer).cpu()
        ours = round_nvfp4(x, SimpleNamespace(backend_extra_args={}, amax=largest))
        # Where a value lies half between two numbers, another order of operations may take the other one.
        assert (theirs != ours).float().mean() < 1e-3
        assert torch.allclose(theirs, ours, atol=float(ours.abs().max()) / 4)


def test_a_quantised_layer_computes_with_what_the_format_kept() -> None:
    model, recipe = small_model(), Recipe("nvfp4", rules=one_layer("nvfp4"))
    twin = quantised(model, recipe, through_one_layer)
    layer = model.get_submodule("blocks.0.attn.qkv")
    assert isinstance(layer, nn.Linear)
    x = torch.randn(3, 32)
    weight = quantise(layer.weight.detach()).restored()
    exact = functional.linear(quantise(x, global_scale(3.0)).restored(), weight, layer.bias)
    rounded = twin.get_submodule("blocks.0.attn.qkv")(x)
    # Results pass through bf16, 8 bits of mantissa.
    assert torch.allclose(rounded, exact, rtol=2**-7, atol=2**-7)
    assert not torch.allclose(rounded, layer(x), atol=1e-3)
    # The model itself is left alone.
    assert type(layer) is nn.Linear
    assert twin.get_parameter("blocks.0.attn.qkv.weight") is not layer.weight


def test_rotation_goes_with_largest_magnitudes_alone() -> None:
    recipe = Recipe("nvfp4", hadamard=True, rules=one_layer("nvfp4"))
    twin = quantised(small_model(), recipe, through_one_layer)
    x = torch.linspace(-3.0, 2.0, 96).reshape(3, 32)
    largest = float(rotate_blocks(x, hadamard_matrix()).abs().max())
    assert layer_scales(twin, recipe)["blocks.0.attn.qkv"].largest == largest
    with pytest.raises(ValueError, match="--hadamard goes with --algorithm max"):
        quantised(small_model(), replace(recipe, algorithm="awq"), through_one_layer)
