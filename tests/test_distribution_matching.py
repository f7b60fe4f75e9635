"""Self-forcing with distribution matching: the direction is the difference of scores, memories are cut off, turns are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import tiny
from training.data.batches import WalkClips
from training.data.latents import LatentWalk
from training.distillation.distribution_matching import (
    DistributionMatchingStage,
    matching_direction,
    matching_loss,
    rollout_config,
)
from training.loop import LoopConfig, run_stage
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.stages.config import DistillationConfig, StageConfig
from training.stages.presets import pocket_stages
from training.stages.scenic_model import ScenicModel

CONFIG = replace(tiny(), num_layers=2, softmax_every_n=2, chunk_size=2)
ADAM = OptimizerConfig(adam_lr=3e-3, betas=(0.0, 0.999), min_side=NO_MATRIX, clip_norm=10.0)
FEW = DistillationConfig((1000, 700), guidance=0.5, generator_every=3, critic=ADAM)


def clips() -> WalkClips:
    torch.manual_seed(0)
    size = (12, CONFIG.in_channels, CONFIG.latent_height, CONFIG.latent_width)
    c2w = torch.eye(4).expand(12, CONFIG.temporal_stride, 4, 4)
    intrinsics = torch.tensor([20.0, 20.0, 12.0, 8.0])
    return WalkClips([LatentWalk(scene, torch.randn(size).half(), c2w, intrinsics) for scene in (0, 1)])


def stage_of(distillation: DistillationConfig = FEW, length: int = 5) -> DistributionMatchingStage:
    config: StageConfig = replace(
        pocket_stages()["self-forcing-short"],
        num_latent_frames=length,
        batch_size=2,
        optimizer=ADAM,
        distillation=distillation,
    )
    torch.manual_seed(1)
    student, teacher, critic = (ScenicModel(CONFIG, 2) for _ in range(3))
    return DistributionMatchingStage(config, student, teacher, critic, clips())


def test_on_gaussians_the_student_is_moved_along_the_difference_of_scores():
    """Students of N(a, 1) and videos of N(b, 1): the estimates are known, and so is where every sample has to go."""
    torch.manual_seed(0)
    a, b, level = 3.0, -1.0, 0.6
    made = a + torch.randn(4, 2, 3, 5, 5)
    sigma = torch.full((4, 3), level)
    noisy = (1 - level) * made + level * torch.randn_like(made)

    def denoiser(mean: float):
        def estimate(x: Tensor, s: Tensor) -> Tensor:
            s = s[:, None, :, None, None]
            # E[x0 | x_t] for x0 ~ N(mean, 1).
            return mean + (1 - s) * (x - (1 - s) * mean) / ((1 - s) ** 2 + s**2)

        return estimate

    direction = matching_direction(made, noisy, sigma, denoiser(a), denoiser(b))
    # Scores at x_t differ by a constant: s_fake - s_real = ((1 - s) a - (1 - s) b) / ((1 - s)^2 + s^2), and x0 estimates
    # are (x_t + s^2 score) / (1 - s).
    score_gap = (1 - level) * (a - b) / ((1 - level) ** 2 + level**2)
    estimate_gap = level**2 * score_gap / (1 - level)
    scale = (made - denoiser(b)(noisy, sigma)).abs().mean((1, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(direction, (estimate_gap / scale).expand_as(made), rtol=1e-4, atol=1e-5)

    made.requires_grad_()
    matching_loss(made, direction).backward()
    assert made.grad is not None
    assert (made.grad[:, :, 0] == 0).all()
    counted = made.grad[:, :, 1:]
    torch.testing.assert_close(counted, direction[:, :, 1:] / counted.numel(), rtol=1e-4, atol=1e-7)


def test_following_the_direction_brings_a_gaussian_student_to_the_teacher():
    torch.manual_seed(0)
    mean = torch.tensor(3.0, requires_grad=True)
    for _ in range(150):
        made = mean + torch.randn(8, 1, 2, 4, 4)
        sigma = torch.full((8, 2), float(torch.empty(()).uniform_(0.1, 0.9)))
        s = sigma[:, None, :, None, None]
        noisy = (1 - s) * made.detach() + s * torch.randn_like(made)

        def estimate(x: Tensor, level: Tensor, centre: float) -> Tensor:
            t = level[:, None, :, None, None]
            return centre + (1 - t) * (x - (1 - t) * centre) / ((1 - t) ** 2 + t**2)

        centre = float(mean.detach())
        direction = matching_direction(
            made.detach(),
            noisy,
            sigma,
            lambda x, t, c=centre: estimate(x, t, c),
            lambda x, t: estimate(x, t, -1.0),
        )
        (gradient,) = torch.autograd.grad(matching_loss(made, direction), mean)
        mean = (mean.detach() - 0.2 * gradient).requires_grad_()
    assert float(mean.detach()) == pytest.approx(-1.0, abs=0.2)


def test_a_direction_that_is_not_finite_moves_nothing():
    made = torch.zeros(1, 1, 2, 1, 1)
    sigma = torch.ones(1, 2)
    broken = matching_direction(made, made, sigma, lambda x, s: x + float("nan"), lambda x, s: x + 1.0)
    assert (broken == 0).all()
    # Where student and teacher agree there is nothing to divide by.
    same = matching_direction(made, made, sigma, lambda x, s: x, lambda x, s: x)
    assert (same == 0).all()


def test_memories_are_detached_and_only_the_last_step_of_each_chunk_learns():
    stage = stage_of()
    batch = stage.clips.draw(2, 5, np.random.default_rng(0))
    asked: list[tuple[float, bool, bool]] = []
    step = stage._step

    def watched(batch, part, latents, sigma, text, state):
        if state is not None:
            assert not any(tensor.requires_grad for tensor in state.tensors.values())
        asked.append((float(sigma.max()), torch.is_grad_enabled(), latents.requires_grad))
        return step(batch, part, latents, sigma, text, state)

    stage._step = watched
    made = stage.rollout(batch, 1, learning=True)
    chunk = [(1.0, False, False), (pytest.approx(0.7), True, False), (0.0, False, False)]
    assert asked == [(0.0, False, False), *chunk, *chunk]
    assert made.requires_grad
    assert torch.equal(made[:, :, 0], batch.latents[:, :, 0])
    asked.clear()
    assert not stage.rollout(batch, 0, learning=False).requires_grad
    assert not any(learning for _, learning, _ in asked)


def test_no_gradient_flows_from_one_chunk_to_the_next():
    stage = stage_of()
    batch = stage.clips.draw(1, 5, np.random.default_rng(0))
    outputs: list[Tensor] = []
    make = stage._make_chunk

    def watched(batch, part, text, state, exit_step, learning):
        outputs.append(make(batch, part, text, state, exit_step, learning))
        if outputs[-1].requires_grad:
            outputs[-1].retain_grad()
        return outputs[-1]

    stage._make_chunk = watched
    made = stage.rollout(batch, 0, learning=True)
    made[:, :, 3:].sum().backward()
    # Chunk 1 was made and remembered, but the sum over chunk 2 does not reach it other than by zeros of the joined video.
    assert len(outputs) == 3
    assert outputs[1].grad is not None
    assert (outputs[1].grad == 0).all()
    assert outputs[2].grad is not None
    assert (outputs[2].grad == 1).all()


def test_frame_0_stays_what_it_was_in_a_chunk_with_others():
    config = replace(CONFIG, first_chunk_size=2)
    stage = stage_of()
    stage.model = ScenicModel(config, 2)
    batch = stage.clips.draw(2, 6, np.random.default_rng(0))
    made = stage.rollout(batch, 1, learning=False)
    assert torch.equal(made[:, :, 0], batch.latents[:, :, 0])
    assert not torch.equal(made[:, :, 1], batch.latents[:, :, 1])


def test_the_student_has_its_turn_at_every_third_step_and_the_critic_at_each():
    stage = stage_of()
    rng = np.random.default_rng(0)
    turns = []
    for _ in range(7):
        before = [
            [p.detach().clone() for p in m.parameters()] for m in (stage.model, stage.critic, stage.teacher)
        ]
        metrics = stage.backward(rng)
        stage.optimizer.step(1.0)
        after = [list(m.parameters()) for m in (stage.model, stage.critic, stage.teacher)]
        changed = [
            any(not torch.equal(x, y) for x, y in zip(old, new, strict=True))
            for old, new in zip(before, after, strict=True)
        ]
        turns.append((changed, "student_loss" in metrics))
    student, rest = [True, True, False], [False, True, False]
    assert turns == [(student, True), (rest, False), (rest, False)] * 2 + [(student, True)]


def test_scores_are_compared_within_the_range_with_frame_0_clean():
    stage = stage_of(replace(FEW, score_shift=10.0, score_range=(20.0, 980.0)))
    batch = stage.clips.draw(400, 5, np.random.default_rng(0))
    sigma = stage.score_sigma(batch, np.random.default_rng(0))
    assert (sigma[:, 0] == 0).all()
    assert (sigma[:, 1:] == sigma[:, 1:2]).all()
    levels = sigma[:, 1]
    assert float(levels.min()) >= 0.02 - 1e-6
    assert float(levels.max()) == pytest.approx(0.98)
    # Half of the levels lie beyond 10 u / (1 + 9 u) at u = 1/2.
    assert float(levels.median()) == pytest.approx(10 / 11, abs=0.02)


def test_memory_is_all_chunks_at_short_length_and_a_sink_with_a_window_at_full_length():
    short = rollout_config(CONFIG, FEW, num_frames=9)
    # Frame 0 and four chunks of two.
    assert (short.sink, short.num_cached_chunks) == (False, 5)
    long = rollout_config(CONFIG, replace(FEW, num_cached_chunks=2, sink=True), num_frames=9)
    assert (long.sink, long.window_frames, long.sink_frames) == (True, 2, 1)


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path):
    loop = LoopConfig(4, save_every_s=-1.0, log_every=1, precision="float32")
    whole = stage_of()
    run_stage(whole, loop, tmp_path / "whole", seed=4)
    cut = stage_of()
    backward, taken = cut.backward, iter(range(3))

    def stop_after_some(rng):
        # The first is the one that the loop measures by.
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return backward(rng)

    cut.backward = stop_after_some
    with pytest.raises(KeyboardInterrupt):
        run_stage(cut, loop, tmp_path / "cut", seed=4)
    resumed = stage_of()
    assert run_stage(resumed, loop, tmp_path / "cut", seed=4)
    for a, b in zip(whole.optimizer.parameters, resumed.optimizer.parameters, strict=True):
        assert torch.equal(a, b)
    assert (resumed.optimizer.critic.num_updates, resumed.optimizer.student.num_updates) == (4, 2)


def test_the_critic_lowers_its_loss_on_the_films_of_a_student():
    stage = stage_of(replace(FEW, generator_every=1000))
    rng, losses = np.random.default_rng(0), []
    for _ in range(24):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
