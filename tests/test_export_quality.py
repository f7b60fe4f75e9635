"""Quality figures answer to what they claim to measure: poses to motion, losses to rounding."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.quantization.layers import Recipe
from export.quantization.pose_fit import PoseFit, offset_pose
from export.quantization.quality import Comparison, psnr
from export.quantization.quantize import quantised
from export.scenes import Scene, passes, roll
from holodeck import get_place
from model.config import tiny
from model.world_model import WorldModel
from tests.models import SmallDecoder

CONFIG = replace(tiny(), num_layers=2, softmax_every_n=2)
LENS = np.array([130, 130, 80, 48], np.float32)


def town(c2w: NDArray[np.float64]) -> NDArray[np.uint8]:
    return get_place("town").render(c2w, LENS, 160, 96)


@pytest.mark.parametrize("axis", range(6))
def test_a_pose_offset_is_found_from_the_picture(axis: int) -> None:
    c2w = get_place("town").spawn
    wanted = np.zeros(6)
    wanted[axis] = 0.015 if axis < 3 else 0.06
    found = PoseFit(town, c2w).offset(town(offset_pose(c2w, wanted)))
    # The fit is linear in the offset; a third of it is what edges that appear and vanish leave open.
    assert found[axis] == pytest.approx(wanted[axis], rel=0.35)
    assert PoseFit(town, c2w).error(town(c2w)).rotation_deg < 1e-6


def test_brightness_is_no_motion() -> None:
    c2w = get_place("town").spawn
    picture = town(c2w)
    brighter = np.clip(picture.astype(int) + 6, 0, 255).astype(np.uint8)
    assert PoseFit(town, c2w).error(brighter).rotation_deg < 0.15


def test_an_offset_of_nothing_is_the_same_pose() -> None:
    c2w = get_place("town").spawn
    assert np.array_equal(offset_pose(c2w, np.zeros(6)), c2w)
    quarter = offset_pose(np.eye(4), np.array([0, np.pi / 2, 0, 0, 0, 2.0]))
    assert np.allclose(quarter[:3, 2], [1, 0, 0])
    assert np.allclose(quarter[:3, 3], [0, 0, 2])


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(CONFIG, fresh=True).eval()


@pytest.fixture(scope="module")
def scene() -> Scene:
    generator = torch.Generator().manual_seed(1)
    c2w = np.tile(np.eye(4), (9, 1, 1))
    c2w[:, 2, 3] = 0.05 * np.arange(9)
    return Scene(
        "made up",
        torch.randn(1, CONFIG.in_channels, 1, CONFIG.latent_height, CONFIG.latent_width, generator=generator),
        torch.randn(1, CONFIG.text_length, CONFIG.text_dim, generator=generator),
        torch.ones(1, CONFIG.text_length),
        np.array([20, 20, 12, 8], np.float32),
        c2w,
        render=lambda c2w: get_place("town").render(c2w, np.array([20, 20, 12, 8], np.float32), 24, 16),
    )


def test_low_precision_rolls_out_near_float32(model: WorldModel, scene: Scene) -> None:
    steps = (1000.0, 500.0)
    exact = [latents for latents, _, _ in roll(model, scene, steps, 3, 0)]
    assert torch.equal(exact[0], scene.first_latent)
    errors = {}
    for low in ("bf16", "fp8", "nvfp4"):
        twin = quantised(model, Recipe(low), lambda net: list(roll(net, scene, steps, 3, 0)))
        rolled = [latents for latents, _, _ in roll(twin, scene, steps, 3, 0)]
        errors[low] = float((rolled[-1] - exact[-1]).norm() / exact[-1].norm())
    assert 0 < errors["bf16"] < errors["fp8"] < errors["nvfp4"] < 0.5


def test_passes_start_from_the_states_of_the_rollout(model: WorldModel, scene: Scene) -> None:
    found = passes(model, scene, (1000.0,), 2, 0)
    starts = [run.conditioning.start_frame for run in found]
    assert [int(start) for start in starts if start is not None] == [1, 2]
    assert float(found[0].state.tensors["num_frames"]) == 1
    assert torch.isfinite(found[1].velocity(model)).all()


def test_a_comparison_finds_loss_and_costly_layers(model: WorldModel, scene: Scene) -> None:
    torch.manual_seed(2)
    decoder = SmallDecoder(CONFIG).eval()
    caches: list[Any] = [
        SimpleNamespace(zeros=lambda shape=shape: np.zeros(shape, np.float32))
        for _, shape in decoder.cache_spec(CONFIG.latent_height, CONFIG.latent_width)
    ]
    spec: Any = SimpleNamespace(
        decoder_caches=caches, timesteps=(1000.0,), frames_per_chunk=CONFIG.temporal_stride
    )
    comparison = Comparison(model, decoder, spec, [scene], num_chunks=3)
    done: list[int] = []
    recipe = Recipe("nvfp4")
    report, videos = comparison.measure(recipe, done.append)
    assert done[-1] == comparison.num_steps(recipe)
    world = report.worlds[0]
    assert videos[0].fp32.shape == videos[0].low.shape == videos[0].truth.shape
    assert world.loss_db == pytest.approx(world.psnr_fp32 - world.psnr_low)
    assert [chunk.chunk_index for chunk in world.chunks] == [1, 2, 3]
    assert 0 < world.chunks[0].latent_error < 0.5
    costs = [cost.velocity_error for cost in report.layers]
    assert costs == sorted(costs, reverse=True)
    # Fresh output gates have no weights, hence no error.
    errors = [cost.own_error for cost in report.layers if not cost.layer.endswith("output_gate")]
    assert 0.01 < min(errors) < max(errors) < 0.3
    assert len(report.layers) == 8 * CONFIG.num_layers
    assert report.to_dict()["worlds"][0]["world"] == "made up"


def test_psnr_is_in_decibels() -> None:
    black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(black, grey) == 0.0
    assert psnr(black, black) > 70
