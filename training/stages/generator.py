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
from torch import Tensor, nn

from model.config import ModelConfig
from model.sampler import STREAMING_TIMESTEPS
from model.scene_memory import random_memory
from model.world_model import MAX_TIMESTEP, WorldModel
from training.data.latents import LatentWalk, WindowBatch, draw_windows
from training.metric import measure
from training.noise import add_noise
from training.optimizer import MasterOptimizer, OptimizerConfig


class ScenicModel(nn.Module):
    """A world model and what it is trained with for each scene: tokens to attend to, and a memory."""

    def __init__(self, config: ModelConfig, num_scenes: int) -> None:
        super().__init__()
        self.world = WorldModel(config, fresh=True)
        self.scenes = nn.Parameter(torch.randn(num_scenes, config.text_length, config.text_dim))
        """[num_scenes, L, D]."""
        fresh = [random_memory(config) for _ in range(num_scenes)] if config.scene_units else []
        self.memories = nn.ParameterList(matrix for memory in fresh for matrix in memory.flatten(0, 1))
        """Keys and values [U, D] of each scene, of each block: matrices of their own, as optimisers take them."""

    def memory(self) -> Tensor:
        """The memories of all scenes, [num_scenes, num_layers, 2, U, D]."""
        return torch.stack(list(self.memories)).unflatten(0, (len(self.scenes), -1, 2))

    def text(self, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Text and mask of the scenes in a batch, memory in front: [B, L, D] and [B, L]."""
        text = self.scenes[scene]
        if len(self.memories):
            text = torch.cat([self.memory()[scene].flatten(1, 3), text], dim=1)
        return text, torch.ones(text.shape[:2], device=text.device)

    @torch.no_grad()
    def set_text(self, scene: int, text: Tensor) -> None:
        """Put a scene's text [L, D], as `text` gives it, back.

        Raises:
            ValueError: It is of another size.
        """
        rows = self.world.config.memory_rows
        if text.shape != (rows + self.scenes.shape[1], self.scenes.shape[2]):
            raise ValueError(f"a scene's text has the shape {list(text.shape)}, which is not this model's")
        self.scenes[scene] = text[rows:]
        if rows:
            matrices = text[:rows].unflatten(0, (-1, self.world.config.scene_units))
            for own, matrix in zip(self.memories[scene * len(matrices) :], matrices, strict=False):
                own.copy_(matrix)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a weight: the blocks' own matrices, neither embedders nor the output layer nor scene tokens."""
    return ".blocks." in name and parameter.ndim >= 2 and "scale_shift" not in name


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
        figures = self._loss(batch, sigma, trained)
        figures["loss"].backward()
        return {key: float(value.detach()) for key, value in figures.items()}

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
        velocity, _ = self.model.world.window(
            noisy,
            1000.0 * sigma,
            text,
            mask,
            batch.c2w,
            batch.intrinsics,
            batch.frame_index,
            keep_state=False,
        )
        error = measure(velocity.float() - (noise - batch.latents), self.metric).square().mean((1, 3, 4))
        clean_error = (error * sigma.square())[trained].mean()
        alone = trained & (sigma == 1.0) & (trained[:, 1:2])
        return {
            "loss": error[trained].mean(),
            "clean_mse": clean_error,
            "pose_only_mse": error[alone].mean() if alone.any() else clean_error,
        }
