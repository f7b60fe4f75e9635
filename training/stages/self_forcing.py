"""Self-forcing stage: the generator walks on its own frames and learns to stay true to the place.

Each sample is a rollout that goes on over many training steps with its detached state, so the memory that the network meets
here is the one it meets in a long session. Because the places are known, the target is the true latent and no critic is needed.
Gradients flow through one denoising step per chunk, drawn at random, and through the memory of the few chunks of one training
step, so that commits learn to write what later chunks need; they never flow through the frames themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.rollout import RolloutState
from training.data.latents import LatentWalk
from training.metric import measure
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.stages.generator import ScenicModel, is_hidden_matrix


@dataclass
class Rollout:
    """One walk being followed: where it stands and what it remembers."""

    walk: LatentWalk
    position: int
    """Next latent frame of the walk."""
    index_shift: int
    """Added to the position where the rotary code asks for it."""
    remaining: int
    """Chunks left before the rollout starts again elsewhere."""


class SelfForcingStage:
    """Persistent rollouts of one latent frame a chunk, and the loss against the true latents."""

    def __init__(
        self,
        name: str,
        model: ScenicModel,
        walks: Sequence[LatentWalk],
        timesteps: Sequence[int],
        num_rollouts: int = 24,
        chunks_per_step: int = 4,
        max_chunks: int = 240,
        optimizer: OptimizerConfig | None = None,
        metric: Tensor | None = None,
    ) -> None:
        self.metric = metric
        self.name, self.model, self.walks = name, model, walks
        self.sigmas = [t / 1000.0 for t in timesteps]
        self.num_rollouts, self.chunks_per_step, self.max_chunks = num_rollouts, chunks_per_step, max_chunks
        self.optimizer = MasterOptimizer(model, optimizer or OptimizerConfig(), is_hidden_matrix)
        self.rollouts: list[Rollout] = []
        self.state: RolloutState | None = None

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """Take every rollout `chunks_per_step` chunks further and accumulate gradients."""
        if not self.rollouts:
            self.rollouts = [self._start(rng) for _ in range(self.num_rollouts)]
        self._restart(rng)
        errors = [self._advance(rng, last=n + 1 == self.chunks_per_step) for n in range(self.chunks_per_step)]
        loss = torch.stack([error for error, _ in errors]).mean()
        loss.backward()
        assert self.state is not None
        self.state = self.state.detach()
        for rollout, whole in zip(self.rollouts, finite_rows(self.state), strict=True):
            rollout.remaining = rollout.remaining if whole else 0
        return {"loss": float(loss.detach()), "clean_mse": float(np.mean([clean for _, clean in errors]))}

    def _start(self, rng: np.random.Generator) -> Rollout:
        walk = self.walks[int(rng.integers(len(self.walks)))]
        position = 1 if rng.random() < 0.3 else int(rng.integers(1, len(walk.latents) - 8))
        shift = int(rng.integers(2000)) if position > 1 and rng.random() < 0.5 else 0
        longest = min(self.max_chunks, len(walk.latents) - position)
        return Rollout(walk, position, shift, int(rng.integers(8, longest + 1)) if longest > 8 else longest)

    @torch.no_grad()
    def _restart(self, rng: np.random.Generator) -> None:
        """Replace rollouts that have ended, and commit the first frame of the new ones."""
        ended = [
            n for n, r in enumerate(self.rollouts) if r.remaining < self.chunks_per_step or self.state is None
        ]
        if not ended:
            return
        for n in ended:
            self.rollouts[n] = self._start(rng)
        picks = [self.rollouts[n] for n in ended]
        latents = torch.stack([r.walk.latents[:1] for r in picks]).float().transpose(1, 2)
        _, fresh = self._step(picks, latents, 0.0, [0] * len(picks), None)
        if self.state is None:
            self.state = fresh
            return
        rows = torch.tensor(ended)
        merged = {
            name: tensor.index_copy(0, rows, fresh.tensors[name])
            for name, tensor in self.state.tensors.items()
        }
        self.state = RolloutState(merged)

    def _step(
        self,
        rollouts: Sequence[Rollout],
        latents: Tensor,
        sigma: float,
        positions: Sequence[int],
        state: RolloutState | None,
    ) -> tuple[Tensor, RolloutState]:
        """Run the network on one latent frame of each rollout, all at one noise level."""
        poses = torch.stack([r.walk.c2w[p] for r, p in zip(rollouts, positions, strict=True)])
        intrinsics = torch.stack([r.walk.intrinsics for r in rollouts])[:, None].expand(
            -1, poses.shape[1], -1
        )
        index = torch.tensor(
            [p + (r.index_shift if p else 0) for r, p in zip(rollouts, positions, strict=True)]
        )
        text, mask = self.model.text(torch.tensor([r.walk.scene for r in rollouts]))
        times = torch.full((len(rollouts), 1), 1000.0 * sigma)
        return self.model.world.step(latents, times, poses, intrinsics, index, text, mask, state)

    def _advance(self, rng: np.random.Generator, last: bool) -> tuple[Tensor, float]:
        """Generate one chunk of every rollout and commit the result.

        Args:
            last: Whether no later chunk of this training step will read what the chunk commits.

        Returns:
            The velocity loss of one of the chunk's denoising steps, and the error of its clean estimate.
        """
        positions = [r.position for r in self.rollouts]
        target = torch.stack(
            [r.walk.latents[p] for r, p in zip(self.rollouts, positions, strict=True)]
        ).float()[:, :, None]
        x = clean = torch.randn_like(target)
        exit_step = int(rng.integers(len(self.sigmas)))
        for number, sigma in enumerate(self.sigmas[: exit_step + 1]):
            with torch.set_grad_enabled(number == exit_step):
                velocity, _ = self._step(self.rollouts, x, sigma, positions, self.state)
                clean = x - sigma * velocity.float()
            if number < exit_step:
                # The sampler's own Euler step: the noise that is left is the noise that was there.
                x = x - (sigma - self.sigmas[number + 1]) * velocity.float()
        error = measure(clean - target, self.metric).square().mean()
        with torch.set_grad_enabled(not last):
            _, self.state = self._step(self.rollouts, clean.detach(), 0.0, positions, self.state)
        for rollout in self.rollouts:
            rollout.position += 1
            rollout.remaining -= 1
        return error / self.sigmas[exit_step] ** 2, float(error.detach())


def finite_rows(state: RolloutState) -> list[bool]:
    """Whether each sample's memory is still made of finite numbers."""
    rows = [tensor.flatten(1).isfinite().all(1) for tensor in state.tensors.values() if tensor.ndim > 1]
    return torch.stack(rows).all(0).tolist()
