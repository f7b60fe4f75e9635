"""Schedules and configs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from model.config import ModelConfig, pocket, sana_wm, tiny
from model.sampler import check_timesteps, euler_step, shifted_timesteps


def test_schedules_reproduce_the_published_figures() -> None:
    short = shifted_timesteps(20, 9.8)
    assert short[:3] == pytest.approx([1000, 994.42, 988.26], abs=0.01)
    assert short[-3:] == pytest.approx([557.6, 392.44, 87.70], abs=0.06)
    long = shifted_timesteps(60, 9.8)
    assert long[:4] == pytest.approx([1000, 998.26, 996.47, 994.62], abs=0.01)
    assert long[-4:] == pytest.approx([385.10, 307.18, 210.58, 87.70], abs=0.01)


def test_euler_walk_with_the_true_velocity_ends_at_the_clean_latents() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 3, 2, 2)
    latents = noise
    levels = [1.0, 0.96, 0.889, 0.727, 0.0]
    for sigma, following in pairwise(levels):
        here, there = torch.full((1, 3), sigma), torch.full((1, 3), following)
        latents = euler_step(latents, noise - clean, here, there)
    torch.testing.assert_close(latents, clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [(), (1000, 1000), (500, 900), (1200, 3), (1000, 0)])
def test_bad_schedules_are_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="timesteps"):
        check_timesteps(bad)


@pytest.mark.parametrize("config", [sana_wm(), pocket(), tiny()], ids=lambda config: config.name)
def test_config_survives_a_round_trip(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("size", [{"num_layers": 10**9}, {"num_heads": 0}, {"hidden_size": -8}])
def test_sizes_of_no_model_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        ModelConfig.from_dict({**tiny().to_dict(), **size})


def test_unknown_config_keys_are_named() -> None:
    with pytest.raises(ValueError, match="num_wheels"):
        ModelConfig.from_dict({**tiny().to_dict(), "num_wheels": 4})
    partial = tiny().to_dict()
    del partial["hidden_size"]
    with pytest.raises(ValueError, match="hidden_size"):
        ModelConfig.from_dict(partial)
