"""Self-forcing stage: the generator walks on its own frames and learns to stay true to the place.

Each sample is a rollout that goes on over many training steps with its detached state, so the memory that the network meets
here is the one it meets in a long session. Because the places are known, the target is the true latent and no critic is needed.
Gradients flow through one denoising step per chunk, drawn at random, and through the memory of the few chunks of one training
step, so that commits learn to write what later chunks need; they never flow through the frames themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.conditioning import Conditioning
from model.rollout import RolloutState
from training.data.batches import MAX_INDEX_SHIFT
from training.data.latents import LatentWalk
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.metric import measure
from training.stages.scenic_model import ScenicModel, is_hidden_matrix


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
    guided: bool
    """Whether true frames are committed in place of generated ones: what memory is worth shows only where it is true."""


class SelfForcingStage:
    """Persistent rollouts of one latent frame a chunk, and the loss against the true latents."""

    def __init__(
        self,
        name: str,
        model: ScenicModel,
        walks: Sequence[LatentWalk],
        timesteps: Sequence[int],
        num_rollouts: int = 144,
        batch_size: int = 12,
        chunks_per_step: int = 4,
        max_chunks: int = 240,
        guided_share: float = 0.5,
        optimizer: OptimizerConfig | None = None,
        metric: Tensor | None = None,
        trained: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Prepare the stage.

        Args:
            num_rollouts: Walks that are under way at the same time.
            batch_size: How many of them a training step takes further; many more rollouts than that keep neighbouring
                steps from seeing the same streets.
            guided_share: Share of rollouts that remember the truth.
            trained: Whether a parameter of that name is trained.
        """
        self.metric = metric
        self.name, self.model, self.walks = name, model, walks
        self.sigmas = [t / 1000.0 for t in timesteps]
        self.num_rollouts, self.batch_size = num_rollouts, batch_size
        self.chunks_per_step, self.max_chunks = chunks_per_step, max_chunks
        self.guided_share = guided_share
        self.optimizer = MasterOptimizer(model, optimizer or OptimizerConfig(), is_hidden_matrix, trained)
        self.rollouts: list[Rollout] = []
        self.state: RolloutState | None = None

    @property
    def frames_per_step(self) -> float:
        """Video frames of the chunks that a step generates."""
        return float(self.batch_size * self.chunks_per_step * self.model.world.config.temporal_stride)

    def state_dict(self) -> dict[str, Any]:
        """The rollouts that are under way: walks by their number, and what is remembered of them."""
        numbers = {id(walk): number for number, walk in enumerate(self.walks)}
        rollouts = [{**vars(r), "walk": numbers[id(r.walk)]} for r in self.rollouts]
        return {"rollouts": rollouts, "state": {} if self.state is None else dict(self.state.tensors)}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Go on with the rollouts that `state_dict` gave."""
        self.rollouts = [Rollout(**{**r, "walk": self.walks[r["walk"]]}) for r in memory["rollouts"]]
        # Rollouts write into their state, and what was given has to stay as it is.
        tensors = {name: tensor.clone() for name, tensor in memory["state"].items()}
        self.state = RolloutState(tensors) if tensors else None

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """Take some of the rollouts `chunks_per_step` chunks further and accumulate gradients."""
        if not self.rollouts:
            self.rollouts = [self._start(rng) for _ in range(self.num_rollouts)]
            self.state = self._begin(self.rollouts)
        rows = rng.choice(self.num_rollouts, self.batch_size, replace=False).tolist()
        self._restart(rows, rng)
        assert self.state is not None
        picked = [self.rollouts[row] for row in rows]
        index = torch.tensor(rows)
        state = RolloutState({name: t.index_select(0, index) for name, t in self.state.tensors.items()})
        errors = []
        for count in range(1, self.chunks_per_step + 1):
            error, clean, state = self._advance(picked, state, rng, last=count == self.chunks_per_step)
            errors.append((error, clean))
        loss = torch.stack([error for error, _ in errors]).mean()
        loss.backward()
        self._keep(rows, state.detach())
        return {"loss": float(loss.detach()), "clean_mse": float(np.mean([clean for _, clean in errors]))}

    @torch.no_grad()
    def _keep(self, rows: list[int], state: RolloutState) -> None:
        """Put the state of some rollouts back; one that is no longer finite starts again at its next turn."""
        assert self.state is not None
        index = torch.tensor(rows)
        for name, tensor in self.state.tensors.items():
            tensor.index_copy_(0, index, state.tensors[name])
        for row, whole in zip(rows, finite_rows(state), strict=True):
            self.rollouts[row].remaining = self.rollouts[row].remaining if whole else 0

    def _start(self, rng: np.random.Generator) -> Rollout:
        walk = self.walks[int(rng.integers(len(self.walks)))]
        position = 1 if rng.random() < 0.3 else int(rng.integers(1, len(walk.latents) - 8))
        shift = int(rng.integers(MAX_INDEX_SHIFT)) if position > 1 and rng.random() < 0.5 else 0
        longest = min(self.max_chunks, len(walk.latents) - position)
        length = int(rng.integers(8, longest + 1)) if longest > 8 else longest
        return Rollout(walk, position, shift, length, bool(rng.random() < self.guided_share))

    @torch.no_grad()
    def _begin(self, rollouts: Sequence[Rollout]) -> RolloutState:
        """Commit the first frame of each walk."""
        latents = torch.stack([r.walk.latents[:1] for r in rollouts]).float().transpose(1, 2)
        return self._step(rollouts, latents, 0.0, [0] * len(rollouts), None)[1]

    @torch.no_grad()
    def _restart(self, rows: Sequence[int], rng: np.random.Generator) -> None:
        """Let those of some rollouts that have ended begin elsewhere."""
        ended = [row for row in rows if self.rollouts[row].remaining < self.chunks_per_step]
        if ended:
            for row in ended:
                self.rollouts[row] = self._start(rng)
            self._keep(ended, self._begin([self.rollouts[row] for row in ended]))

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
        conditioning = Conditioning(text, mask, poses, intrinsics, index)
        return self.model.world.step(latents, times, conditioning, state)

    def _advance(
        self, rollouts: Sequence[Rollout], state: RolloutState, rng: np.random.Generator, last: bool
    ) -> tuple[Tensor, float, RolloutState]:
        """Generate one chunk of each rollout and commit the result.

        Args:
            last: Whether no later chunk of this training step will read what the chunk commits.

        Returns:
            The velocity loss of one of the chunk's denoising steps, the error of the clean estimates of rollouts that remember
            their own frames, and the state.
        """
        positions = [r.position for r in rollouts]
        target = torch.stack([r.walk.latents[p] for r, p in zip(rollouts, positions, strict=True)])
        target = target.float()[:, :, None]
        x = clean = torch.randn_like(target)
        exit_step = int(rng.integers(len(self.sigmas)))
        for number, sigma in enumerate(self.sigmas[: exit_step + 1]):
            with torch.set_grad_enabled(number == exit_step):
                velocity, _ = self._step(rollouts, x, sigma, positions, state)
                clean = x - sigma * velocity.float()
            if number < exit_step:
                # The sampler's own Euler step: the noise that is left is the noise that was there.
                x = x - (sigma - self.sigmas[number + 1]) * velocity.float()
        errors = measure(clean - target, self.metric).square()
        error = errors.mean()
        guided = torch.tensor([r.guided for r in rollouts])[:, None, None, None, None]
        committed = torch.where(guided, target, clean.detach())
        with torch.set_grad_enabled(not last):
            _, after = self._step(rollouts, committed, 0.0, positions, state)
        for rollout in rollouts:
            rollout.position += 1
            rollout.remaining -= 1
        free = (~guided).float()
        free_error = (errors.detach() * free).sum() / free.expand_as(errors).sum().clamp_min(1.0)
        return error / self.sigmas[exit_step] ** 2, float(free_error), after


def finite_rows(state: RolloutState) -> list[bool]:
    """Whether each sample's memory is still made of finite numbers."""
    rows = [tensor.flatten(1).isfinite().all(1) for tensor in state.tensors.values() if tensor.ndim > 1]
    return torch.stack(rows).all(0).tolist()
