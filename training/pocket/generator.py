"""Generator stage of the pocket: chunk-causal flow matching of latents, conditioned on what a spatial memory shows.

Clips begin with a clean first frame, poses count from it, and chunks have noise levels of their own. What the memory hides has to
come from history, scene and camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.conditioning import Conditioning
from model.sampler import STREAMING_TIMESTEPS
from model.vae.guided import GuidedAutoencoder
from training.data.latents import pack_windows
from training.data.memory_clips import MemoryClips
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.stages.noise import add_noise
from training.stages.scenic_model import NO_SCENE, ScenicModel, is_hidden_matrix


@dataclass(frozen=True, eq=False)
class LatentClips:
    """Clips of one scene as latents, N clips of T = 1 + n latent frames."""

    scene: int
    latents: Tensor
    """Truth, [N, C, T, h, w]."""
    memory: Tensor
    """Encoding of the memory's rendering and its coverage, [N, C + 1, T, h, w]."""
    c2w: Tensor
    """Packed windows relative to the first frame, [N, R T, 4, 4]."""


LOW_TIMESTEP = 400.0
"""A level of little noise beside those of the schedule."""
HIDDEN_SHARE = 0.08
"""Share of samples whose memory is hidden altogether."""
ALL_NOISE_SHARE = 0.5
"""Share of samples whose chunks behind the history are all pure noise."""
PLACELESS_SHARE = 0.45
"""Share of samples that are of places without a scene of their own, where there are both."""
KNOWN, UNKNOWN = 0.95, 0.05
"""Coverage of a latent cell above and below which it counts as known and unknown in the metrics."""


@torch.no_grad()
def encode_clips(autoencoder: GuidedAutoencoder, clips: MemoryClips, scene: int) -> LatentClips:
    """Encode truth and renderings of clips."""
    config = autoencoder.config
    truth, memory, poses = [], [], []
    for color, shown, c2w in zip(clips.color, clips.memory, clips.c2w, strict=True):
        truth.append(autoencoder.encode(_video(color))[0])
        coverage = torch.from_numpy(np.array(shown[..., 3:])).permute(0, 3, 1, 2).float() / 255
        groups = autoencoder.group(coverage[None].expand(-1, -1, 3, -1, -1)).mean(1, keepdim=True)
        cells = functional.avg_pool2d(groups, config.spatial_stride).transpose(0, 1)
        memory.append(torch.cat([autoencoder.encode(_video(shown[..., :3]))[0], cells]))
        poses.append(torch.from_numpy(pack_windows(np.asarray(c2w), config.temporal_stride)).flatten(0, 1))
    return LatentClips(scene, torch.stack(truth), torch.stack(memory), torch.stack(poses))


def _video(frames: NDArray[np.uint8]) -> Tensor:
    """Frames [F, H, W, 3] as numbers in [-1, 1], [1, F, 3, H, W]."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0


@dataclass(frozen=True)
class LatentBatch:
    """B clips of T latent frames."""

    latents: Tensor
    """[B, C, T, h, w]."""
    conditioning: Conditioning
    """In the packed form."""
    coverage: Tensor
    """What the memory covers of each cell, before any of it is hidden, [B, T, h, w]."""


def balanced(clips: Sequence[LatentClips]) -> NDArray[np.float64]:
    """Shares at which files of clips are drawn: by how many they hold, those of places without a scene PLACELESS_SHARE in all."""
    counts = np.array([len(its.latents) for its in clips], float)
    placeless = np.array([its.scene == NO_SCENE for its in clips])
    for group, share in ((placeless, PLACELESS_SHARE), (~placeless, 1 - PLACELESS_SHARE)):
        if group.any():
            counts[group] *= share / counts[group].sum()
    return counts / counts.sum()


class GeneratorStage:
    """Clips, noise levels and the velocity loss."""

    def __init__(
        self,
        model: ScenicModel,
        clips: Sequence[LatentClips],
        intrinsics: tuple[float, float, float, float],
        batch_size: int = 12,
        name: str = "generator",
        history_sigma: float = 0.3,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Prepare the stage.

        Args:
            intrinsics: fx, fy, cx, cy of all clips, pixels.
            history_sigma: Greatest noise on the chunks that serve as history.
        """
        self.intrinsics = torch.tensor(intrinsics)
        self.name, self.model, self.clips, self.batch_size = name, model, clips, batch_size
        self.history_sigma = history_sigma
        self.shares = balanced(clips)
        self.optimizer = MasterOptimizer(model, optimizer or OptimizerConfig(), is_hidden_matrix)

    @property
    def frames_per_step(self) -> float:
        """Video frames of the clips, without the first frames."""
        return float(
            self.batch_size * (self.clips[0].latents.shape[2] - 1) * self.model.world.config.temporal_stride
        )

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step; the loss counts trained chunks only, and neither the first frame nor the history."""
        batch = self.batch(rng)
        sigma, trained = self.levels(rng, batch.latents.shape[2])
        noisy_from = self.history(batch, trained, rng)
        noise = torch.randn_like(batch.latents)
        noisy = add_noise(noisy_from, noise, sigma)
        velocity = self.model.world(noisy, 1000.0 * sigma, batch.conditioning, mode="streaming").float()
        error = (velocity - (noise - batch.latents)).square().mean(1)
        loss = error.mean((2, 3))[trained].mean()
        loss.backward()
        clean = (error.detach() * sigma.square()[..., None, None])[trained]
        coverage = batch.coverage[trained]
        metrics = {"loss": float(loss.detach()), "clean_mse": float(clean.mean())}
        for name, cells in (("known_mse", coverage > KNOWN), ("unknown_mse", coverage < UNKNOWN)):
            if cells.any():
                metrics[name] = float(clean[cells].mean())
        return metrics

    def history(self, batch: LatentBatch, trained: Tensor, rng: np.random.Generator) -> Tensor:
        """Clean latents [B, C, T, h, w] whose untrained frames serve as history: the truth."""
        return batch.latents

    def batch(self, rng: np.random.Generator) -> LatentBatch:
        """Draw clips."""
        picks = [self.clips[i] for i in rng.choice(len(self.clips), self.batch_size, p=self.shares)]
        rows = [int(rng.integers(len(clips.latents))) for clips in picks]
        latents, memory, poses = (
            torch.stack([getattr(clips, name)[row] for clips, row in zip(picks, rows, strict=True)])
            for name in ("latents", "memory", "c2w")
        )
        hidden = torch.from_numpy(rng.random(self.batch_size) < HIDDEN_SHARE)
        shown = torch.where(hidden[:, None, None, None, None], 0.0, memory)
        text, mask = self.model.text(torch.tensor([clips.scene for clips in picks]))
        lens = self.intrinsics.expand(*poses.shape[:2], 4)
        start = torch.zeros(self.batch_size, dtype=torch.int64)
        return LatentBatch(latents, Conditioning(text, mask, poses, lens, start, shown), memory[:, -1])

    def levels(self, rng: np.random.Generator, num_frames: int) -> tuple[Tensor, Tensor]:
        """Noise level [B, T] of every latent frame, and which of them are trained.

        Levels do not fall over the chunks: a rollout's future is never clearer than its present.
        """
        sigmas = np.array([*STREAMING_TIMESTEPS, LOW_TIMESTEP], np.float32) / 1000
        levels = np.zeros((self.batch_size, num_frames), np.float32)
        trained = np.zeros_like(levels, bool)
        for row, mask in zip(levels, trained, strict=True):
            first = int(rng.integers(1, num_frames))
            row[1:first] = rng.uniform(0, self.history_sigma, first - 1) * rng.integers(2)
            row[first:] = (
                1.0 if rng.random() < ALL_NOISE_SHARE else np.sort(rng.choice(sigmas, num_frames - first))
            )
            mask[first:] = True
        return torch.from_numpy(levels), torch.from_numpy(trained)
