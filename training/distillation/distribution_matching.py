"""Self-forcing with distribution matching: a few-step student walks on its own chunks, and a teacher judges the whole video.

Two bidirectional models look at what the student made, with noise on it: the frozen teacher knows real videos, a critic keeps
learning what the student's videos look like. The student follows the difference between the two. No gradient flows from chunk to
chunk: each chunk learns through one of its denoising steps, and memories are written from detached chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.rollout import RolloutState
from training.data.batches import ClipBatches, WindowBatch
from training.distillation.ode_regression import guided_velocity
from training.optimizer import MasterOptimizer
from training.stages.config import DistillationConfig, StageConfig
from training.stages.conversions import rebuilt
from training.stages.flow_matching import clip_frames, predict_velocity, text_of
from training.stages.noise import NUM_LEVELS, add_noise, shifted
from training.stages.scenic_model import ScenicModel, is_hidden_matrix

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Latents [B, C, T, H, W] at sigma [B, T] to a clean estimate."""
LEAST_SCALE = 1e-6
"""Floor of what the difference of scores is divided by."""


class AlternatingOptimizer:
    """The optimisers of student and critic as one: each steps where a backward pass reached its model."""

    def __init__(self, student: MasterOptimizer, critic: MasterOptimizer) -> None:
        self.student, self.critic = student, critic

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.student.parameters, *self.critic.parameters]

    def step(self, lr_scale: float) -> float:
        """Take a step; the norm is that of the critic's gradient, which is there every time."""
        if any(parameter.grad is not None for parameter in self.student.parameters):
            self.student.step(lr_scale)
        return self.critic.step(lr_scale)

    def publish(self) -> None:
        """Give both models their weights."""
        self.student.publish()
        self.critic.publish()

    def orthogonalise_in(self, dtype: torch.dtype) -> None:
        self.student.orthogonalise_in(dtype)
        self.critic.orthogonalise_in(dtype)

    def ema_state(self) -> dict[str, Tensor]:
        """The student's EMA weights."""
        return self.student.ema_state()

    def state_dict(self) -> dict[str, Any]:
        return {"student": self.student.state_dict(), "critic": self.critic.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.critic.load_state_dict(state["critic"])


def rollout_config(config: ModelConfig, distillation: DistillationConfig, num_frames: int) -> ModelConfig:
    """Give a student the memory that a stage asks for: a window with a sink, or all chunks of its clips."""
    if distillation.num_cached_chunks is not None:
        return replace(config, num_cached_chunks=distillation.num_cached_chunks, sink=distillation.sink)
    num_chunks = len(config.chunk_ranges(num_frames))
    return replace(config, num_cached_chunks=num_chunks, sink=False)


class DistributionMatchingStage:
    """Rollouts of the student, the critic's lesson at every step, the student's at some."""

    def __init__(
        self,
        config: StageConfig,
        student: ScenicModel,
        teacher: ScenicModel,
        critic: ScenicModel,
        clips: ClipBatches,
    ) -> None:
        """Prepare.

        Args:
            student: Chunk-causal and few-step already.
            teacher: Bidirectional; it is frozen.
            critic: Bidirectional; at first the teacher's equal, later its own.
        """
        assert config.distillation is not None
        self.name, self.config, self.clips = config.stage, config, clips
        self.distillation = config.distillation
        wanted = rollout_config(student.world.config, config.distillation, config.num_latent_frames)
        self.model = rebuilt(student, wanted)
        self.teacher = teacher.eval().requires_grad_(False)
        self.critic = critic
        self.sigmas = [step / 1000.0 for step in config.distillation.timesteps]
        self.optimizer = AlternatingOptimizer(
            MasterOptimizer(self.model, config.optimizer, is_hidden_matrix),
            MasterOptimizer(critic, config.distillation.critic, is_hidden_matrix),
        )

    @property
    def frames_per_step(self) -> float:
        """Video frames that the student makes for the critic."""
        return clip_frames(self.config, self.model.world.config)

    def share_out(self, cluster: Cluster) -> None:
        """Let processes share all three networks; rollouts each makes whole, judges look at shares of a clip."""
        for model in (self.model, self.teacher, self.critic):
            cluster.share(model)
        optimizer = self.optimizer
        self.optimizer = AlternatingOptimizer(
            optimizer.student.anew(self.model), optimizer.critic.anew(self.critic)
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands."""
        return self.clips.position()

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Go on with the data from there."""
        self.clips.go_on(memory)

    def exit_steps(self) -> tuple[int, int]:
        """Draw the step after which the rollouts of this training step end, for the student's lesson and for the critic's.

        All batches and all processes have the same, since those that share a network have to ask it equally often.
        """
        rng = np.random.default_rng((self.config.seed, self.optimizer.critic.num_updates))
        student, critic = rng.integers(len(self.sigmas), size=2).tolist()
        return student, critic

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step: the student's lesson where it is due, then the critic's on a new batch."""
        metrics: dict[str, float] = {}
        student_exit, critic_exit = self.exit_steps()
        if self.optimizer.critic.num_updates % self.distillation.generator_every == 0:
            metrics["student_loss"] = self._teach_student(self._draw(rng), student_exit, rng)
        metrics["loss"] = self._teach_critic(self._draw(rng), critic_exit, rng)
        return metrics

    def _draw(self, rng: np.random.Generator) -> WindowBatch:
        config = self.config
        batch = self.clips.draw(config.batch_size, config.num_latent_frames, rng)
        return batch.to(self.model.scenes.device)

    def _teach_student(self, batch: WindowBatch, exit_step: int, rng: np.random.Generator) -> float:
        made = self.rollout(batch, exit_step, learning=True)
        sigma = self.score_sigma(batch, rng)
        noisy = add_noise(made.detach(), torch.randn_like(made), sigma)

        def fake(latents: Tensor, level: Tensor) -> Tensor:
            velocity = predict_velocity(self.critic, latents, level, batch, "bidirectional")
            return latents - level[:, None, :, None, None] * velocity

        def real(latents: Tensor, level: Tensor) -> Tensor:
            guidance = self.distillation.guidance
            velocity = guided_velocity(self.teacher, latents, level, batch, guidance)
            return latents - level[:, None, :, None, None] * velocity

        direction = matching_direction(made.detach(), noisy, sigma, fake, real)
        loss = matching_loss(made, direction)
        loss.backward()
        return float(loss.detach())

    def _teach_critic(self, batch: WindowBatch, exit_step: int, rng: np.random.Generator) -> float:
        made = self.rollout(batch, exit_step, learning=False)
        sigma = self.score_sigma(batch, rng)
        noise = torch.randn_like(made)
        velocity = predict_velocity(self.critic, add_noise(made, noise, sigma), sigma, batch, "bidirectional")
        loss = (velocity - (noise - made))[:, :, 1:].square().mean()
        loss.backward()
        return float(loss.detach())

    def score_sigma(self, batch: WindowBatch, rng: np.random.Generator) -> Tensor:
        """Draw the noise that videos are judged at, [B, T]: one level for a clip, frame 0 clean."""
        config = self.distillation
        level = shifted(rng.integers(NUM_LEVELS, size=len(batch.scene)), config.score_shift)
        low, high = config.score_range
        level = np.clip(1000.0 * level, low, high) / 1000.0
        sigma = torch.from_numpy(level.astype(np.float32))[:, None].repeat(1, batch.frame_index.shape[1])
        sigma[:, 0] = 0.0
        return sigma.to(batch.latents.device)

    def rollout(self, batch: WindowBatch, exit_step: int, learning: bool) -> Tensor:
        """Make clips chunk by chunk, each by the steps up to `exit_step`, remembering what was made.

        Args:
            learning: Whether gradients flow through each chunk's last step.

        Returns:
            [B, C, T, H, W]; frame 0 is the batch's.
        """
        frames = batch.frame_index.shape[1]
        with torch.set_grad_enabled(learning):
            text = text_of(self.model, batch)
        made: list[Tensor] = []
        state: RolloutState | None = None
        for start, stop in self.model.world.config.chunk_ranges(frames):
            part = slice(start, stop)
            chunk = self._make_chunk(batch, part, text, state, exit_step, learning)
            made.append(chunk)
            with torch.no_grad():
                written = torch.zeros_like(batch.latents[:, 0, part, 0, 0])
                state = self._step(batch, part, chunk.detach(), written, text, state)[1].detach()
        return torch.cat(made, dim=2)

    def _make_chunk(
        self,
        batch: WindowBatch,
        part: slice,
        text: tuple[Tensor, Tensor],
        state: RolloutState | None,
        exit_step: int,
        learning: bool,
    ) -> Tensor:
        """Denoise one chunk, with fresh noise between steps as students are trained."""
        truth = batch.latents[:, :, part]
        moving = torch.ones_like(truth[:, 0, :, 0, 0])
        moving[:, 0] = float(part.start > 0)
        if not moving.any():
            return truth
        clean = truth * (1.0 - moving)[:, None, :, None, None]
        for number, sigma in enumerate(self.sigmas[: exit_step + 1]):
            level = sigma * moving
            # Frame 0 stays the true one: its level is 0 in every step.
            latents = add_noise(clean, torch.randn_like(truth), level)
            with torch.set_grad_enabled(learning and number == exit_step):
                velocity, _ = self._step(batch, part, latents, level, text, state)
                clean = latents - level[:, None, :, None, None] * velocity
        return clean

    def _step(
        self,
        batch: WindowBatch,
        part: slice,
        latents: Tensor,
        sigma: Tensor,
        text: tuple[Tensor, Tensor],
        state: RolloutState | None,
    ) -> tuple[Tensor, RolloutState]:
        """Run the student on one chunk against its memory, which is only read."""
        if not torch.is_grad_enabled():
            text = (text[0].detach(), text[1])
        conditioning = batch.conditioning(*text, part)
        return self.model.world.step(latents, 1000.0 * sigma, conditioning, state)


@torch.no_grad()
def matching_direction(made: Tensor, noisy: Tensor, sigma: Tensor, fake: Denoiser, real: Denoiser) -> Tensor:
    """Say in which direction a video has to go to look less like the student's and more like real ones.

    g = (fake(x_t) - real(x_t)) / mean |x - real(x_t)|, the mean over all of a sample; what is not finite counts as 0.

    Args:
        made: The video x, [B, C, T, H, W].
        noisy: The same with noise at sigma [B, T].
    """
    ends = real(noisy, sigma)
    scale = (made - ends).abs().mean((1, 2, 3, 4), keepdim=True).clamp_min(LEAST_SCALE)
    return torch.nan_to_num((fake(noisy, sigma) - ends) / scale, nan=0.0, posinf=0.0, neginf=0.0)


def matching_loss(made: Tensor, direction: Tensor) -> Tensor:
    """Half the mean square of x - stop(x - g) without frame 0; its gradient is g over the number of elements."""
    target = (made - direction).detach()
    return 0.5 * (made - target)[:, :, 1:].square().mean()
