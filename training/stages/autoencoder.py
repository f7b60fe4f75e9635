"""Autoencoder stage: reconstruct short clips, with noise on the latent so that small errors of the generator do little harm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.autoencoder import Autoencoder, AutoencoderConfig
from training.optimizer import MasterOptimizer, OptimizerConfig

Walk = NDArray[np.uint8]


class AutoencoderStage:
    """Batches of clips from rendered walks and the reconstruction loss."""

    name = "autoencoder"

    def __init__(
        self, config: AutoencoderConfig, walks: Sequence[Walk], batch_size: int = 4, num_latent_frames: int = 3
    ) -> None:
        self.walks, self.batch_size, self.num_latent_frames = walks, batch_size, num_latent_frames
        self.model = Autoencoder(config).to(torch.bfloat16).to(memory_format=torch.channels_last)
        self.optimizer = MasterOptimizer(self.model, OptimizerConfig())

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on clips of `num_latent_frames` latent frames."""
        video = self._batch(rng)
        clean = torch.from_numpy(video).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        low = clean.to(torch.bfloat16)
        raw = self.model.encoder(self.model.group(low).contiguous(memory_format=torch.channels_last))
        noisy = raw + self.model.config.latent_noise * torch.randn_like(raw)
        decoded = self.model.decode_raw(noisy.unflatten(0, (self.batch_size, -1))).float()
        loss = reconstruction_loss(decoded.flatten(0, 1), clean.flatten(0, 1))
        loss.backward()
        error = functional.mse_loss(decoded.detach().clamp(-1, 1), clean)
        return {"loss": float(loss.detach()), "psnr": float(10 * torch.log10(4.0 / error))}

    def _batch(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        num_frames = 1 + self.model.config.temporal_stride * (self.num_latent_frames - 1)
        clips = []
        for _ in range(self.batch_size):
            walk = self.walks[rng.integers(len(self.walks))]
            start = rng.integers(walk.shape[0] - num_frames + 1)
            clip = np.asarray(walk[start : start + num_frames])
            clips.append(clip[:, :, ::-1] if rng.random() < 0.5 else clip)
        return np.ascontiguousarray(np.stack(clips))

    @torch.no_grad()
    def finished_model(self, num_clips: int = 48) -> Autoencoder:
        """The averaged weights in fp32, with latent statistics measured on the training walks."""
        model = Autoencoder(self.model.config)
        model.load_state_dict(self.optimizer.averaged_state(), strict=False)
        rng = np.random.default_rng(0)
        raws = []
        for _ in range(num_clips):
            video = torch.from_numpy(self._batch(rng)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
            raws.append(model.encoder(model.group(video)))
        raw = torch.cat(raws)
        model.latents_mean.copy_(raw.mean((0, 2, 3)))
        model.latents_std.copy_(raw.std((0, 2, 3)).clamp_min(1e-3))
        return model.eval()


def reconstruction_loss(decoded: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier + 0.5 L1 of gradients + 0.5 L1 of the 4x4 averages; both [N, 3, H, W] in [-1, 1]."""
    error = decoded - clean
    charbonnier = (error.square() + 1e-6).sqrt().mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return charbonnier + 0.5 * gradient + 0.5 * functional.avg_pool2d(error, 4).abs().mean()
