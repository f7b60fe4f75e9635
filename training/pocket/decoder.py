"""Decoder stage of the pocket: frames from latents that the encoder, the memory's rendering or a generator gave.

The encoder is done by then, so latents are made once and whole frames of them are cut in step with the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.vae.guided import GuidedAutoencoder
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.autoencoder import DEPTH_WEIGHT, reconstruction_loss
from training.pocket.clips import CHUNK, MemoryClips
from training.pocket.memory_generator import LatentClips

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster

BLIND_SHARE = 0.08
"""Share of samples whose memory is hidden altogether."""


FLICKER_WEIGHT = 1.0
"""Weight of the L1 error of what changes from frame to frame: where nothing moves, nothing may."""


@dataclass(frozen=True, eq=False)
class DecoderClips:
    """Frames, renderings and latents of the same clips."""

    clips: MemoryClips
    latents: LatentClips
    generated: Tensor | None = None
    """What a generator made along them, [N, C, T, h, w]."""


class DecoderStage:
    """Batches of two neighbouring groups of frames with their renderings, and the reconstruction loss."""

    def __init__(
        self,
        autoencoder: GuidedAutoencoder,
        data: Sequence[DecoderClips],
        batch_size: int = 8,
        crop: tuple[int, int] = (96, 160),
        name: str = "decoder",
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """`crop`: height and width in pixels, multiples of the spatial stride."""
        self.name, self.data, self.batch_size, self.crop = name, data, batch_size, crop
        self.model = autoencoder
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = MasterOptimizer(
            self.model, optimizer or OptimizerConfig(), trained=lambda name: name.startswith("decoder.")
        )
        self.shares = np.array([len(d.clips.c2w) for d in data], float)
        self.shares /= self.shares.sum()

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch; a quarter of a frame is a quarter."""
        height, width = self.data[0].clips.color.shape[2:4]
        return self.batch_size * 2.0 * CHUNK * self.crop[0] * self.crop[1] / (height * width)

    def share_out(self, cluster: Cluster) -> None:
        """Keep the network whole in every process: it is small, and gradients are averaged."""
        cluster.keep_whole(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of clips."""
        truth, guide, latents, told = self._batch(rng)
        dtype = self.model.decoder.conv_in.weight.dtype
        raw = (
            latents * self.model.latents_std.float()[:, None, None]
            + self.model.latents_mean.float()[:, None, None]
        )
        noisy = raw + self.model.config.latent_noise * torch.randn_like(raw)
        decoded = self.model.decode_groups(noisy.to(dtype), guide.to(dtype)).float()
        color, clean = decoded[..., :3, :, :].flatten(0, 2), truth[..., :3, :, :].flatten(0, 2)
        depth_error = (decoded[..., 3, :, :] - truth[..., 3, :, :]).abs().mean()
        flicker = _changes(decoded[..., :3, :, :]) - _changes(truth[..., :3, :, :])
        loss = (
            reconstruction_loss(color, clean)
            + DEPTH_WEIGHT * depth_error
            + FLICKER_WEIGHT * flicker.abs().mean()
        )
        loss.backward()
        psnr = _psnr(decoded[..., :3, :, :].detach().clamp(-1, 1), truth[..., :3, :, :])
        shown = _psnr(guide[..., :3, :, :], truth[..., :3, :, :])
        known = guide[:, :, :, 3].mean((1, 2, 3, 4)) > 0.9
        metrics = {
            "loss": float(loss.detach()),
            "depth": float(depth_error.detach()),
            "psnr": float(psnr.mean()),
        }
        if known.any():
            metrics |= {"psnr_known": float(psnr[known].mean()), "psnr_memory": float(shown[known].mean())}
        if (told & known).any():
            metrics["psnr_generated"] = float((psnr - shown)[told & known].mean())
        if (~known).any():
            metrics["psnr_unknown"] = float(psnr[~known].mean())
        return metrics

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw samples of two groups.

        Returns:
            Truth [B, 2, R, 4, H, W] (colour in [-1, 1], inverse depth in 1/m), guides [B, 2, R, 5, H, W], latents
            [B, 2, C, h, w], and whose latents are a generator's [B].
        """
        parts = [self._sample(rng) for _ in range(self.batch_size)]
        truth, guide = (
            torch.from_numpy(np.stack([part[i] for part in parts]))
            .permute(0, 1, 4, 2, 3)
            .unflatten(1, (2, CHUNK))
            for i in (0, 1)
        )
        return (
            truth,
            guide,
            torch.stack([part[2] for part in parts]),
            torch.tensor([part[3] for part in parts]),
        )

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Tensor, bool]:
        data = self.data[int(rng.choice(len(self.data), p=self.shares))]
        clips, stride = data.clips, self.model.config.spatial_stride
        n = int(rng.integers(len(clips.c2w)))
        chunk = int(rng.integers((clips.color.shape[1] - 1) // CHUNK - 1))
        height, width = clips.color.shape[2:4]
        row = int(rng.integers((height - self.crop[0]) // stride + 1))
        column = int(rng.integers((width - self.crop[1]) // stride + 1))
        rows = slice(row * stride, row * stride + self.crop[0])
        columns = slice(column * stride, column * stride + self.crop[1])
        cut = (n, slice(1 + CHUNK * chunk, 1 + CHUNK * (chunk + 2)), rows, columns)
        truth = np.concatenate(
            [clips.color[cut] / np.float32(127.5) - 1, clips.inverse_depth[cut][..., None]],
            -1,
            dtype=np.float32,
        )
        memory = clips.memory[cut].astype(np.float32)
        depth = clips.memory_depth[cut][..., None]
        guide = np.concatenate(
            [memory[..., :3] / 127.5 - 1, memory[..., 3:] / 255, depth], -1, dtype=np.float32
        )
        draw, told = rng.random(), False
        source = data.latents.latents
        if data.generated is not None and draw < 0.7:
            source, told = data.generated, True
        elif draw < 0.85 and guide[..., 3].mean() > 0.6:
            source = data.latents.memory[:, :-1]
        cells = (slice(row, row + self.crop[0] // stride), slice(column, column + self.crop[1] // stride))
        latents = source[n][:, chunk + 1 : chunk + 3, *cells].transpose(0, 1).float()
        if rng.random() < BLIND_SHARE:
            guide[:] = 0
        return truth, guide, latents, told


def _changes(video: Tensor) -> Tensor:
    """Differences of neighbouring frames, across groups too; [B, T, R, 3, H, W] to [B, T R - 1, 3, H, W]."""
    return video.flatten(1, 2).diff(dim=1)


def _psnr(image: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each sample, [B]; colour in [-1, 1]."""
    return 10 * torch.log10(4.0 / (image - truth).square().flatten(1).mean(1).clamp_min(1e-6))
