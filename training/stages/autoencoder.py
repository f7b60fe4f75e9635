"""Autoencoder stage: reconstruct frames from their latents and from what a spatial memory shows of them.

Noise on the latent keeps small errors of the generator from doing much harm. Videos without a memory are clips whose memory
holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.vae.guided import NOTHING_SHOWN, RGB, GuidedAutoencoder, GuidedAutoencoderConfig
from training.data.memory_clips import MemoryClips
from training.optimizer import MasterOptimizer, OptimizerConfig

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster

STILL_SHARE = 0.15
"""Share of samples whose first group is one frame held still, as at the start of a world."""
BLIND_SHARE = 0.15
"""Share of samples whose memory is hidden altogether."""
ECHO_SHARE = 0.35
"""Share of well-known samples whose latent is that of the memory's own rendering: what a generator with nothing to add says."""
KNOWN, WELL_KNOWN = 0.6, 0.9
"""Coverage from which a sample may be an echo, and from which it counts as known in the metrics."""
KL_WEIGHT = 1e-3
"""Weight of the posterior's KL divergence from a unit Gaussian; with a variance that is fixed, half the mean square."""
DEPTH_WEIGHT = 0.5
FLICKER_WEIGHT = 1.0
"""Weight of the L1 error of what changes from frame to frame: where nothing moves, nothing may."""
NOISE_SPREAD = (0.5, 1.0, 2.5)
"""Factors on the latent's noise, one of which is drawn for each latent frame."""
CROP_STEP_PX = 32
"""Crops begin at multiples of this, the side of a latent cell."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Crop:
    """Where a sample lies: two neighbouring groups of frames of one clip, and a part of the picture."""

    source: int
    """Number of its clips."""
    clip: int
    frames: NDArray[np.int64]
    """[2 R]."""
    rows: slice
    columns: slice

    def read(self, clips: MemoryClips) -> tuple[Array, Array]:
        """Read truth [2R, H, W, 4], colour in [-1, 1] and inverse depth, and guide [2R, H, W, 5], which adds coverage."""
        first = int(self.frames[0])
        cut = (self.clip, slice(first, int(self.frames[-1]) + 1), self.rows, self.columns)
        local = self.frames - first
        color = clips.color[cut][local] / np.float32(127.5) - 1
        memory = clips.memory[cut][local].astype(np.float32)
        depth, memory_depth = (a[cut][local][..., None] for a in (clips.inverse_depth, clips.memory_depth))
        truth = np.concatenate([color, depth], -1, dtype=np.float32)
        guide = [memory[..., :RGB] / 127.5 - 1, memory[..., RGB:] / 255, memory_depth]
        return truth, np.concatenate(guide, -1, dtype=np.float32)


@dataclass(frozen=True)
class Batch:
    """B samples of two groups of R frames."""

    truth: Tensor
    """Colour in [-1, 1] and inverse depth in 1/m, [B, 2, R, 4, H, W]."""
    guide: Tensor
    """[B, 2, R, 5, H, W]."""
    echo: Tensor
    """Whether the latent is that of the guide, bool [B]."""
    crops: tuple[Crop, ...]


class AutoencoderStage:
    """Batches of two neighbouring groups of frames with their renderings, and the reconstruction loss."""

    still_share = STILL_SHARE

    def __init__(
        self,
        config: GuidedAutoencoderConfig,
        clips: Sequence[MemoryClips],
        batch_size: int = 8,
        crop: tuple[int, int] | None = (96, 160),
        name: str = "autoencoder",
        optimizer: OptimizerConfig | None = None,
        start: GuidedAutoencoder | None = None,
        trained: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Prepare the stage.

        Args:
            start: Whose weights and statistics it begins with, of the same sizes; random ones where None.
            crop: Height and width that clips are cut to, multiples of the spatial stride; None trains on whole frames.
            trained: Whether a parameter is trained, by its name.
        """
        self.name, self.clips, self.batch_size, self.crop = name, clips, batch_size, crop
        self.shares = np.full(len(clips), 1 / len(clips))
        self.stride = config.temporal_stride
        self.model = GuidedAutoencoder(config)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = MasterOptimizer(self.model, optimizer or OptimizerConfig(), trained=trained)

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch; a quarter of a frame is a quarter."""
        height, width = self.clips[0].color.shape[2:4]
        share = 1.0 if self.crop is None else self.crop[0] * self.crop[1] / (height * width)
        return self.batch_size * 2.0 * self.stride * share

    def share_out(self, cluster: Cluster) -> None:
        """Keep the network whole in every process: it is small, and gradients are averaged."""
        cluster.keep_whole(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of clips."""
        batch = self.batch(rng)
        dtype = self.model.encoder.conv_in.weight.dtype
        raw = self.raw_latents(batch, rng)
        decoded = self.model.decode_groups(raw.to(dtype), batch.guide.to(dtype)).float()
        color, clean = (part[..., :RGB, :, :].flatten(0, 2) for part in (decoded, batch.truth))
        known_depth = batch.truth[..., RGB, :, :].isfinite()
        off = (decoded[..., RGB, :, :] - batch.truth[..., RGB, :, :].nan_to_num()).abs() * known_depth
        depth_error = off.sum() / known_depth.sum().clamp_min(1)
        flicker = (_changes(decoded) - _changes(batch.truth)).abs().mean()
        loss = self.color_loss(color, clean) + DEPTH_WEIGHT * depth_error + FLICKER_WEIGHT * flicker
        size = raw.float().square().mean()
        (loss + KL_WEIGHT * 0.5 * size).backward()
        metrics = {"loss": float(loss.detach()), "depth": float(depth_error.detach())}
        return metrics | _metrics(batch, decoded.detach())

    def color_loss(self, decoded: Tensor, clean: Tensor) -> Tensor:
        """Of colours in [-1, 1], [N, 3, H, W] each."""
        return reconstruction_loss(decoded, clean)

    def raw_latents(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """What the decoder is given, not normalised, [B, 2, C, h, w]: the encoder's answer and noise."""
        weight = self.model.encoder.conv_in.weight
        echo = batch.echo[:, None, None, None, None, None]
        source = torch.where(echo, batch.guide[:, :, :, :RGB], batch.truth[:, :, :, :RGB])
        groups = source.flatten(0, 1).flatten(1, 2).to(weight.dtype)
        raw = self.model.encoder(groups.contiguous(memory_format=torch.channels_last))
        spread = torch.from_numpy(rng.choice(NOISE_SPREAD, len(raw)).astype(np.float32)).to(raw)
        noise = self.model.config.latent_noise * spread[:, None, None, None] * torch.randn_like(raw)
        return (raw + noise).unflatten(0, (self.batch_size, -1))

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw samples; half of them mirrored, half with their colour channels changed round."""
        truths, guides, echoes, crops = [], [], [], []
        for _ in range(self.batch_size):
            crop = self.draw_crop(rng)
            truth, guide = crop.read(self.clips[crop.source])
            if rng.random() < BLIND_SHARE:
                guide[:] = NOTHING_SHOWN
            echoes.append(guide[..., RGB].mean() > KNOWN and rng.random() < ECHO_SHARE)
            if rng.random() < 0.5:
                truth, guide = truth[:, :, ::-1], guide[:, :, ::-1]
            if rng.random() < 0.5:
                order = rng.permutation(RGB)
                truth, guide = truth[..., [*order, 3]], guide[..., [*order, 3, 4]]
            truths.append(truth)
            guides.append(guide)
            crops.append(crop)
        return self.assembled(truths, guides, echoes, crops)

    def assembled(
        self, truths: list[Array], guides: list[Array], echoes: list[bool], crops: list[Crop]
    ) -> Batch:
        """Put samples together, on the model's device."""
        device = self.model.latents_mean.device
        truth, guide = (
            torch.from_numpy(np.stack(part)).permute(0, 1, 4, 2, 3).unflatten(1, (2, self.stride)).to(device)
            for part in (truths, guides)
        )
        return Batch(truth, guide, torch.tensor(echoes, device=device), tuple(crops))

    def draw_crop(self, rng: np.random.Generator) -> Crop:
        """Draw where a sample lies; its first group may be one frame held still."""
        source = int(rng.choice(len(self.clips), p=self.shares))
        color = self.clips[source].color
        # Frame 0 is a group of its own, which holding a frame still stands for.
        group = int(rng.integers((color.shape[1] - 1) // self.stride - 1))
        frames = np.arange(1 + self.stride * group, 1 + self.stride * (group + 2))
        if rng.random() < self.still_share:
            frames[: self.stride] = frames[self.stride - 1]
        height, width = color.shape[2:4]
        rows, columns = slice(0, height), slice(0, width)
        if self.crop is not None:
            top, left = (
                int(rng.integers((whole - part) // CROP_STEP_PX + 1)) * CROP_STEP_PX
                for whole, part in zip((height, width), self.crop, strict=True)
            )
            rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
        return Crop(source, int(rng.integers(len(color))), frames, rows, columns)

    @torch.no_grad()
    def finished_model(self, num_batches: int = 20) -> GuidedAutoencoder:
        """The EMA weights in fp32, with latent statistics measured on the training clips."""
        model = GuidedAutoencoder(self.model.config)
        model.load_state_dict(self.optimizer.ema_state(), strict=False)
        rng = np.random.default_rng(0)
        raw = torch.cat(
            [
                model.encoder(self.batch(rng).truth[:, :, :, :RGB].flatten(0, 1).flatten(1, 2).cpu())
                for _ in range(num_batches)
            ]
        )
        model.latents_mean.copy_(raw.mean((0, 2, 3)))
        model.latents_std.copy_(raw.std((0, 2, 3)).clamp_min(1e-3))
        return model.eval()


def _changes(video: Tensor) -> Tensor:
    """Differences of colour between neighbouring frames of [B, T, R, 4, H, W], across groups too, [B, T R - 1, 3, H, W]."""
    return video[:, :, :, :RGB].flatten(1, 2).diff(dim=1)


def _metrics(batch: Batch, decoded: Tensor) -> dict[str, float]:
    """PSNR of the decoded frames [B, 2, R, 4, H, W]; apart for what is hardly known, and for echoes beside the guide itself."""
    clean, guide = batch.truth[..., :RGB, :, :], batch.guide[..., :RGB, :, :]
    psnr = _psnr(decoded[..., :RGB, :, :].clamp(-1, 1), clean)
    known = batch.guide[:, :, :, RGB].mean((1, 2, 3, 4)) > WELL_KNOWN
    metrics = {"psnr": float(psnr.mean())}
    if (known & batch.echo).any():
        metrics["psnr_echo"] = float(psnr[known & batch.echo].mean())
        metrics["psnr_memory"] = float(_psnr(guide, clean)[known & batch.echo].mean())
    if (~known).any():
        metrics["psnr_unknown"] = float(psnr[~known].mean())
    return metrics


def _psnr(frames: Tensor, clean: Tensor) -> Tensor:
    """Of each sample, [B]; values in [-1, 1]."""
    return 10 * torch.log10(4.0 / (frames - clean).square().flatten(1).mean(1).clamp_min(1e-6))


def reconstruction_loss(decoded: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier + 4 MSE + 0.5 L1 of gradients + 0.5 L1 of the 4x4 averages; both [N, 3, H, W] in [-1, 1]."""
    error = decoded - clean
    charbonnier = (error.square() + 1e-6).sqrt().mean() + 4.0 * error.square().mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return charbonnier + 0.5 * gradient + 0.5 * functional.avg_pool2d(error, 4).abs().mean()
