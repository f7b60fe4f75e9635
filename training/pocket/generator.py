"""Generator stage: camera-conditioned, chunk-causal flow matching with one noise level per chunk.

Starting poses are those of a place's first frame, so relative poses are coordinates in the place and the scene's tokens can
hold it. Windows come from anywhere along a walk, always with the clean first frame in front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.sampler import STREAMING_TIMESTEPS
from model.world_model import MAX_TIMESTEP
from training.data.batches import WindowBatch, draw_windows
from training.data.latents import LatentWalk
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.metric import measure
from training.stages.noise import add_noise
from training.stages.scenic_model import ScenicModel, is_hidden_matrix


@dataclass(frozen=True)
class NoiseMixture:
    """How noise levels are drawn, one per chunk."""

    sigmas: tuple[float, ...] = tuple(step / MAX_TIMESTEP for step in STREAMING_TIMESTEPS)
    """Levels the few-step sampler visits; the trained chunks stand at one of them."""
    pose_only: float = 0.4
    """Share of samples in which every chunk is at full noise: pose and scene alone must suffice."""
    history_sigma: float = 0.25
    """Greatest noise on the chunks that serve as history."""


class GeneratorStage:
    """Windows, noise levels and the velocity loss."""

    def __init__(
        self,
        name: str,
        model: ScenicModel,
        walks: Sequence[LatentWalk],
        mixture: NoiseMixture,
        batch_size: int = 8,
        window: int = 7,
        optimizer: OptimizerConfig | None = None,
        metric: Tensor | None = None,
        trained: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.metric = metric
        self.name, self.model, self.walks, self.mixture = name, model, walks, mixture
        self.batch_size, self.length = batch_size, window
        self.optimizer = MasterOptimizer(model, optimizer or OptimizerConfig(), is_hidden_matrix, trained)

    @property
    def frames_per_step(self) -> float:
        """Video frames of the windows, without the first frames."""
        return float(self.batch_size * self.length * self.model.world.config.temporal_stride)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step; the loss counts trained chunks only, and neither the first frame nor the history."""
        batch = draw_windows(self.walks, self.batch_size, self.length, rng)
        sigma, trained = self._levels(rng)
        metrics = self._loss(batch, sigma, trained)
        metrics["loss"].backward()
        return {key: float(value.detach()) for key, value in metrics.items()}

    def _levels(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Noise level [B, 1 + n] of every latent frame, and which of them are trained."""
        levels = np.zeros((self.batch_size, 1 + self.length), np.float32)
        trained = np.zeros_like(levels, bool)
        for row, mask in zip(levels, trained, strict=True):
            first = 1 if rng.random() < self.mixture.pose_only else 1 + int(rng.integers(1, self.length))
            row[1:first] = rng.uniform(0, self.mixture.history_sigma, first - 1) * rng.integers(2)
            row[first:] = 1.0 if first == 1 else self._monotone(self.length + 1 - first, rng)
            mask[first:] = True
        return torch.from_numpy(levels), torch.from_numpy(trained)

    def _monotone(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Levels that do not fall over the chunks: a rollout's future is never clearer than its present."""
        return np.sort(rng.choice(np.array(self.mixture.sigmas, np.float32), count))

    def _loss(self, batch: WindowBatch, sigma: Tensor, trained: Tensor) -> dict[str, Tensor]:
        noise = torch.randn_like(batch.latents)
        noisy = add_noise(batch.latents, noise, sigma)
        text, mask = self.model.text(batch.scene)
        conditioning = batch.conditioning(text, mask)
        velocity = self.model.world(noisy, 1000.0 * sigma, conditioning, mode="streaming")
        error = measure(velocity.float() - (noise - batch.latents), self.metric).square().mean((1, 3, 4))
        clean_error = (error * sigma.square())[trained].mean()
        alone = trained & (sigma == 1.0) & (trained[:, 1:2])
        return {
            "loss": error[trained].mean(),
            "clean_mse": clean_error,
            "pose_only_mse": error[alone].mean() if alone.any() else clean_error,
        }
