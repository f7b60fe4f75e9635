"""Whole-clip samplers: schedules per frame, guidance, the staircase."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.conditioning import Conditioning
from model.config import tiny
from model.sampler import (
    STREAMING_TIMESTEPS,
    TEACHER_GUIDANCE,
    sample_clip,
    staircase,
    teacher_timesteps,
)
from model.world_model import Mode, WorldModel

CONFIG = replace(tiny(), chunk_size=2, first_chunk_size=3)
FRAMES = 7
SIZE = (CONFIG.latent_height, CONFIG.latent_width)


def conditions(text: float = 1.0) -> tuple[Tensor, Conditioning]:
    """The first latent, and cameras with a random text that is scaled."""
    torch.manual_seed(1)
    video = 1 + CONFIG.temporal_stride * (FRAMES - 1)
    c2w = torch.eye(4).repeat(1, video, 1, 1)
    c2w[:, :, 2, 3] = torch.linspace(0, 1, video)
    length = CONFIG.text_length
    first_latent = torch.randn(1, CONFIG.in_channels, 1, *SIZE)
    return first_latent, Conditioning(
        text=text * torch.randn(1, length, CONFIG.text_dim),
        text_mask=torch.ones(1, length),
        c2w=c2w,
        intrinsics=torch.tensor([20.0, 20, 12, 8]).expand(1, video, 4),
    )


class TowardsTarget(torch.nn.Module):
    """A network that knows the noise and the clean clip; remembers at which times it was asked."""

    def __init__(self, target: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.config, self.target, self.noise = CONFIG, target, noise
        self.times: list[list[float]] = []

    def forward(self, latents: Tensor, timesteps: Tensor, _: Conditioning, mode: str) -> Tensor:
        self.times.append(timesteps[0].tolist())
        frames = latents.shape[2]
        return (self.noise - self.target)[:, :, :frames].expand_as(latents)


@pytest.fixture
def oracle() -> TowardsTarget:
    torch.manual_seed(2)
    target, noise = torch.randn(2, 1, CONFIG.in_channels, FRAMES, *SIZE)
    target[:, :, :1] = conditions()[0]
    return TowardsTarget(target, noise)


def sample(
    oracle: TowardsTarget, noise: Tensor, steps: list[float], mode: Mode, interval: float | None = None
) -> Tensor:
    given: Any = oracle
    return sample_clip(
        given, noise, *conditions(), mode=mode, timesteps=steps, guidance=1.0, interval=interval
    )


def test_the_released_schedule_has_60_steps() -> None:
    steps = teacher_timesteps()
    assert len(steps) == 60
    assert steps[1] == pytest.approx(998.26, abs=0.01)
    assert steps[-1] == pytest.approx(87.70, abs=0.01)
    assert (TEACHER_GUIDANCE, STREAMING_TIMESTEPS) == (5.0, (1000.0, 960.0, 889.0, 727.0))


def test_times_stay_exact_beside_bfloat16_latents(oracle: TowardsTarget) -> None:
    noise = oracle.noise.bfloat16()
    for mode in ("bidirectional", "chunk_causal"):
        oracle.times.clear()
        out = sample(oracle, noise, [1000, 998.26, 400], mode)
        assert out.dtype == torch.bfloat16
        assert min(abs(times[1] - 998.26) for times in oracle.times) < 1e-3


def test_an_empty_schedule_is_refused(oracle: TowardsTarget) -> None:
    with pytest.raises(ValueError, match="timesteps"):
        sample(oracle, oracle.noise, [], "bidirectional")


def test_a_clip_ends_where_the_true_velocity_points(oracle: TowardsTarget) -> None:
    out = sample(oracle, oracle.noise, [1000, 800, 500], "bidirectional")
    torch.testing.assert_close(out, oracle.target, atol=1e-5, rtol=0)
    assert oracle.times == [pytest.approx([0.0] + [step] * 6) for step in (1000, 800, 500)]


def test_staircase_starts_each_chunk_when_the_one_before_is_a_share_further() -> None:
    assert staircase(1, 3) == [[0], [1], [2]]
    assert staircase(2, 2, interval=1.0) == [[0], [1], [2, 0], [2, 1]]
    assert staircase(3, 3)[:3] == [[0], [1, 0], [2, 1, 0]]
    assert staircase(3, 3)[-1] == [3, 3, 2]
    assert staircase(2, 4, interval=0.0) == [[n, n] for n in range(4)]
    with pytest.raises(ValueError, match="interval"):
        staircase(2, 4, interval=1.5)


@pytest.mark.parametrize("interval", [None, 0.0, 0.4, 1.0])
def test_staggered_chunks_end_where_the_true_velocity_points(
    oracle: TowardsTarget, interval: float | None
) -> None:
    steps = [1000.0, 800.0, 500.0, 250.0]
    out = sample(oracle, oracle.noise, steps, "chunk_causal", interval)
    torch.testing.assert_close(out, oracle.target, atol=1e-5, rtol=0)
    assert all(times[0] == 0.0 for times in oracle.times)
    # Within a chunk all frames stand at one time; a later chunk is never clearer than an earlier one.
    for times in oracle.times:
        assert times[1:] == sorted(times[1:])
    assert oracle.times[-1][1:3] == [0.0, 0.0] or interval == 0.0


def test_one_after_another_equals_a_loop_over_chunks() -> None:
    torch.manual_seed(3)
    model = WorldModel(CONFIG, fresh=True).eval()
    first_latent, given = conditions()
    noise = torch.randn(1, CONFIG.in_channels, FRAMES, *SIZE)
    steps = [1000.0, 600.0]
    ours = sample_clip(
        model, noise, first_latent, given, mode="chunk_causal", timesteps=steps, guidance=1.0, interval=1.0
    )
    latents = torch.cat([first_latent, noise[:, :, 1:]], dim=2)
    for start, stop in ((0, 3), (3, 5), (5, 7)):
        for step, following in ((1000.0, 600.0), (600.0, 0.0)):
            times = torch.zeros(1, stop)
            times[:, max(start, 1) :] = step
            with torch.no_grad():
                velocity = model(latents[:, :, :stop], times, given, mode="chunk_causal")
            part = slice(max(start, 1), stop)
            latents[:, :, part] = latents[:, :, part] - (step - following) / 1000 * velocity[:, :, part]
    torch.testing.assert_close(ours, latents, atol=1e-5, rtol=1e-5)


def test_guidance_moves_away_from_the_null_prompt() -> None:
    torch.manual_seed(4)
    model = WorldModel(CONFIG, fresh=True).eval()
    noise = torch.randn(1, CONFIG.in_channels, FRAMES, *SIZE)
    how: Any = {"mode": "bidirectional", "timesteps": [1000.0]}
    (first, given), (_, null) = conditions(), conditions(text=0.0)
    with_text = sample_clip(model, noise, first, given, **how, guidance=1.0)
    without = sample_clip(model, noise, first, null, **how, guidance=1.0)
    guided = sample_clip(model, noise, first, given, null, **how, guidance=3.0)
    torch.testing.assert_close(guided, without + 3.0 * (with_text - without), atol=1e-4, rtol=1e-4)
    assert (with_text - without).abs().max() > 1e-3
    with pytest.raises(ValueError, match="negative prompt"):
        sample_clip(model, noise, first, given, **how, guidance=3.0)
