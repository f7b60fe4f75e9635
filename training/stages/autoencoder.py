"""Autoencoder stage: reconstruct short clips, with noise on the latent so that small errors of the generator do little harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.vae.pocket import Autoencoder, AutoencoderConfig
from training.optimizer import MasterOptimizer, OptimizerConfig

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster

Walk = NDArray[np.uint8]

STILL_SHARE = 0.25
"""Share of clips whose first group is one frame held still, as at the start of a world."""
KL_WEIGHT = 1e-3
"""Weight of the posterior's KL divergence from a unit Gaussian; with a variance that is fixed, half the mean square."""


class AutoencoderStage:
    """Batches of two neighbouring groups of frames and the reconstruction loss."""

    def __init__(
        self,
        config: AutoencoderConfig,
        walks: Sequence[Walk],
        batch_size: int = 10,
        crop: tuple[int, int] | None = (48, 80),
        name: str = "autoencoder",
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Prepare the stage.

        Args:
            crop: Height and width that clips are cut to, for more variety per step; None trains on whole frames.
        """
        self.name, self.walks, self.batch_size, self.crop = name, walks, batch_size, crop
        self.model = Autoencoder(config)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = MasterOptimizer(self.model, optimizer or OptimizerConfig())

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch; a quarter of a frame is a quarter."""
        height, width = self.walks[0].shape[1:3]
        share = 1.0 if self.crop is None else self.crop[0] * self.crop[1] / (height * width)
        return self.batch_size * 2.0 * self.model.config.temporal_stride * share

    def share_out(self, cluster: Cluster) -> None:
        """Keep the network whole in every process: it is small, and gradients are averaged."""
        cluster.keep_whole(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of clips."""
        clean = self._batch(rng).to(self.model.latents_mean.device)
        dtype = self.model.encoder.conv_in.weight.dtype
        low = clean.flatten(0, 1).to(dtype).contiguous(memory_format=torch.channels_last)
        raw = self.model.encoder(low)
        noisy = raw + self.model.config.latent_noise * torch.randn_like(raw)
        decoded = self.model.decode_groups(noisy.unflatten(0, (self.batch_size, -1))).float()
        loss = reconstruction_loss(decoded.flatten(0, 1), clean.flatten(0, 1))
        size = raw.float().square().mean()
        (loss + KL_WEIGHT * 0.5 * size).backward()
        error = functional.mse_loss(decoded.detach().clamp(-1, 1), clean)
        psnr = float(10 * torch.log10(4.0 / error))
        return {"loss": float(loss.detach()), "psnr": psnr, "latent_rms": float(size.detach().sqrt())}

    def _batch(self, rng: np.random.Generator) -> Tensor:
        """Draw clips of two groups, [B, 2, 3R, H, W] in [-1, 1]; half of them mirrored."""
        stride = self.model.config.temporal_stride
        clips = []
        for _ in range(self.batch_size):
            walk = self.walks[int(rng.integers(len(self.walks)))]
            start = rng.integers(walk.shape[0] - 2 * stride + 1)
            clip = walk[start : start + 2 * stride]
            if self.crop is not None:
                top = rng.integers(clip.shape[1] - self.crop[0] + 1)
                left = rng.integers(clip.shape[2] - self.crop[1] + 1)
                clip = clip[:, top : top + self.crop[0], left : left + self.crop[1]]
            clip = np.array(clip)
            if rng.random() < STILL_SHARE:
                clip[:stride] = clip[stride - 1]
            clips.append(clip[:, :, ::-1] if rng.random() < 0.5 else clip)
        video = torch.from_numpy(np.ascontiguousarray(np.stack(clips))).permute(0, 1, 4, 2, 3)
        return (video.float() / 127.5 - 1.0).reshape(self.batch_size, 2, 3 * stride, *video.shape[-2:])

    @torch.no_grad()
    def finished_model(self, num_batches: int = 40) -> Autoencoder:
        """The EMA weights in fp32, with latent statistics measured on the training walks."""
        model = Autoencoder(self.model.config)
        model.load_state_dict(self.optimizer.ema_state(), strict=False)
        rng = np.random.default_rng(0)
        raw = torch.cat([model.encoder(self._batch(rng).flatten(0, 1)) for _ in range(num_batches)])
        model.latents_mean.copy_(raw.mean((0, 2, 3)))
        model.latents_std.copy_(raw.std((0, 2, 3)).clamp_min(1e-3))
        return model.eval()


def reconstruction_loss(decoded: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier + 2 MSE + 0.5 L1 of gradients + 0.5 L1 of the 4x4 averages; both [N, 3, H, W] in [-1, 1]."""
    error = decoded - clean
    charbonnier = (error.square() + 1e-6).sqrt().mean() + 2.0 * error.square().mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return charbonnier + 0.5 * gradient + 0.5 * functional.avg_pool2d(error, 4).abs().mean()
