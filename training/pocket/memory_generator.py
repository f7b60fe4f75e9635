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

from model.camera import relative_poses, window_frames
from model.conditioning import Conditioning
from model.sampler import STREAMING_TIMESTEPS
from model.vae.guided import GuidedAutoencoder
from training.data.holodeck.walk_set import INTRINSICS
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.clips import CHUNK, MemoryClips
from training.stages.noise import add_noise
from training.stages.scenic_model import ScenicModel, is_hidden_matrix


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


@torch.no_grad()
def encode_clips(autoencoder: GuidedAutoencoder, clips: MemoryClips, scene: int) -> LatentClips:
    """Encode truth and renderings of a place's clips."""
    truth, memory, poses = [], [], []
    num_frames = clips.color.shape[1]
    order = window_frames(1 + (num_frames - 1) // CHUNK, CHUNK, num_frames)
    for n in range(len(clips.c2w)):
        truth.append(_encoded(autoencoder, clips.color[n]))
        shown = _encoded(autoencoder, clips.memory[n][..., :3])
        coverage = torch.from_numpy(_groups(clips.memory[n][..., 3:])).float() / 255
        stride = autoencoder.config.spatial_stride
        cells = functional.avg_pool2d(coverage.mean(1), stride)
        memory.append(torch.cat([shown, cells.transpose(0, 1)]))
        poses.append(relative_poses(torch.from_numpy(np.asarray(clips.c2w[n]))[None])[0, order].float())
    return LatentClips(scene, torch.stack(truth), torch.stack(memory), torch.stack(poses))


def _groups(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Arrange frames [F, H, W, K] as groups [T, R, K, H, W]; frame 0 fills its group alone."""
    padded = np.concatenate([np.repeat(frames[:1], CHUNK - 1, 0), frames]).transpose(0, 3, 1, 2)
    return padded.reshape(-1, CHUNK, *padded.shape[1:])


def _encoded(autoencoder: GuidedAutoencoder, frames: NDArray[np.uint8]) -> Tensor:
    """Encode frames [F, H, W, 3] to latents [C, T, h, w]."""
    groups = torch.from_numpy(_groups(frames)).float().flatten(1, 2) / 127.5 - 1
    return autoencoder.encode_groups(groups).transpose(0, 1)


class MemoryGeneratorStage:
    """Windows of clips, noise levels and the velocity loss."""

    def __init__(
        self,
        model: ScenicModel,
        clips: Sequence[LatentClips],
        batch_size: int = 12,
        name: str = "generator",
        history_sigma: float = 0.3,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        self.name, self.model, self.clips, self.batch_size = name, model, clips, batch_size
        self.history_sigma = history_sigma
        self.shares = np.array([len(c.latents) for c in clips], float) / sum(len(c.latents) for c in clips)
        self.optimizer = MasterOptimizer(model, optimizer or OptimizerConfig(), is_hidden_matrix)

    @property
    def frames_per_step(self) -> float:
        """Video frames of the clips, without the first frames."""
        return float(self.batch_size * (self.clips[0].latents.shape[2] - 1) * CHUNK)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step; the loss counts trained chunks only, and neither the first frame nor the history."""
        latents, conditioning, coverage = self._batch(rng)
        sigma, trained = self._levels(rng, latents.shape[2])
        noise = torch.randn_like(latents)
        velocity = self.model.world(
            add_noise(latents, noise, sigma), 1000.0 * sigma, conditioning, mode="streaming"
        ).float()
        error = (velocity - (noise - latents)).square().mean(1)
        per_frame = error.mean((2, 3))
        loss = per_frame[trained].mean()
        loss.backward()
        clean = (error * sigma.square()[..., None, None]).detach()
        known = trained[..., None, None] & (coverage > 0.95)
        unknown = trained[..., None, None] & (coverage < 0.05)
        return {
            "loss": float(loss.detach()),
            "clean_mse": float(clean.mean((2, 3))[trained].mean()),
            **({"known_mse": float(clean[known].mean())} if known.any() else {}),
            **({"unknown_mse": float(clean[unknown].mean())} if unknown.any() else {}),
        }

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Conditioning, Tensor]:
        """Draw clips: latents, what they are generated from, and coverage [B, T, h, w]."""
        picks = [self.clips[i] for i in rng.choice(len(self.clips), self.batch_size, p=self.shares)]
        rows = [int(rng.integers(len(c.latents))) for c in picks]
        latents = torch.stack([c.latents[n] for c, n in zip(picks, rows, strict=True)])
        memory = torch.stack([c.memory[n] for c, n in zip(picks, rows, strict=True)])
        hidden = torch.from_numpy(rng.random(self.batch_size) < 0.08)
        memory = torch.where(hidden[:, None, None, None, None], torch.zeros(()), memory)
        text, mask = self.model.text(torch.tensor([c.scene for c in picks]))
        poses = torch.stack([c.c2w[n] for c, n in zip(picks, rows, strict=True)])
        lens = torch.tensor(INTRINSICS).expand(*poses.shape[:2], 4)
        start = torch.zeros(self.batch_size, dtype=torch.int64)
        return latents, Conditioning(text, mask, poses, lens, start, memory), memory[:, -1]

    def _levels(self, rng: np.random.Generator, num_frames: int) -> tuple[Tensor, Tensor]:
        """Noise level [B, T] of every latent frame, and which of them are trained."""
        sigmas = np.array([*STREAMING_TIMESTEPS, 400.0], np.float32) / 1000
        levels = np.zeros((self.batch_size, num_frames), np.float32)
        trained = np.zeros_like(levels, bool)
        for row, mask in zip(levels, trained, strict=True):
            first = int(rng.integers(1, num_frames))
            row[1:first] = rng.uniform(0, self.history_sigma, first - 1) * rng.integers(2)
            row[first:] = 1.0 if rng.random() < 0.5 else np.sort(rng.choice(sigmas, num_frames - first))
            mask[first:] = True
        return torch.from_numpy(levels), torch.from_numpy(trained)
