"""Autoencoder stage of the pocket: reconstruct frames from their latents and from what a spatial memory shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.vae.guided import GuidedAutoencoder, GuidedAutoencoderConfig
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.clips import CHUNK, MemoryClips

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster

STILL_SHARE = 0.15
"""Share of samples whose first group is one frame held still, as at the start of a world."""
BLIND_SHARE = 0.15
"""Share of samples whose memory is hidden altogether."""
ECHO_SHARE = 0.35
"""Share of samples whose latent is that of the memory's own rendering: what a generator says that has nothing to add."""
KL_WEIGHT = 1e-3
"""Weight of the posterior's KL divergence from a unit Gaussian; with a variance that is fixed, half the mean square."""
DEPTH_WEIGHT = 0.5


class GuidedAutoencoderStage:
    """Batches of two neighbouring groups of frames with their renderings, and the reconstruction loss."""

    def __init__(
        self,
        config: GuidedAutoencoderConfig,
        clips: Sequence[MemoryClips],
        batch_size: int = 8,
        crop: tuple[int, int] | None = (96, 160),
        name: str = "autoencoder",
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Prepare the stage.

        Args:
            crop: Height and width that clips are cut to, multiples of the spatial stride; None trains on whole frames.
        """
        self.name, self.clips, self.batch_size, self.crop = name, clips, batch_size, crop
        self.model = GuidedAutoencoder(config)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = MasterOptimizer(self.model, optimizer or OptimizerConfig())

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch; a quarter of a frame is a quarter."""
        height, width = self.clips[0].color.shape[2:4]
        share = 1.0 if self.crop is None else self.crop[0] * self.crop[1] / (height * width)
        return self.batch_size * 2.0 * CHUNK * share

    def share_out(self, cluster: Cluster) -> None:
        """Keep the network whole in every process: it is small, and gradients are averaged."""
        cluster.keep_whole(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of clips."""
        truth, guide, echo = self._batch(rng)
        dtype = self.model.encoder.conv_in.weight.dtype
        groups = truth[:, :, :, :3]
        echoed = guide[:, :, :, :3]
        source = torch.where(echo[:, None, None, None, None, None], echoed, groups)
        low = source.flatten(0, 1).flatten(1, 2).to(dtype).contiguous(memory_format=torch.channels_last)
        raw = self.model.encoder(low)
        size = raw.float().square().mean()
        spread = torch.from_numpy(rng.choice([0.5, 1.0, 2.5], len(raw)).astype(np.float32))
        noisy = raw + self.model.config.latent_noise * spread[:, None, None, None].to(
            dtype
        ) * torch.randn_like(raw)
        decoded = self.model.decode_groups(noisy.unflatten(0, (self.batch_size, -1)), guide.to(dtype)).float()
        color, clean = decoded[..., :3, :, :].flatten(0, 2), truth[..., :3, :, :].flatten(0, 2)
        depth_error = (decoded[..., 3, :, :] - truth[..., 3, :, :]).abs().mean()
        loss = reconstruction_loss(color, clean) + DEPTH_WEIGHT * depth_error
        (loss + KL_WEIGHT * 0.5 * size).backward()
        error = (
            (color.detach().clamp(-1, 1) - clean)
            .square()
            .unflatten(0, (self.batch_size, -1))
            .mean((1, 2, 3, 4))
        )
        psnr = 10 * torch.log10(4.0 / error)
        known = guide[:, :, :, 3].mean((1, 2, 3, 4)) > 0.9
        figures = {
            "loss": float(loss.detach()),
            "psnr": float(psnr.mean()),
            "depth": float(depth_error.detach()),
        }
        if (known & echo).any():
            figures["psnr_echo"] = float(psnr[known & echo].mean())
            base = (guide[..., :3, :, :] - truth[..., :3, :, :]).square().mean((1, 2, 3, 4, 5))
            figures["psnr_memory"] = float(
                (10 * torch.log10(4.0 / base.clamp_min(1e-6)))[known & echo].mean()
            )
        if (~known).any():
            figures["psnr_unknown"] = float(psnr[~known].mean())
        return figures

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw samples of two groups.

        Returns:
            Truth [B, 2, R, 4, H, W] (colour in [-1, 1], inverse depth in 1/m), guides [B, 2, R, 5, H, W], and whose
            latent is an echo of the memory [B].
        """
        truths, guides, echoes = [], [], []
        for _ in range(self.batch_size):
            clips = self.clips[int(rng.integers(len(self.clips)))]
            n = int(rng.integers(len(clips.c2w)))
            chunk = int(rng.integers((clips.color.shape[1] - 1) // CHUNK - 1))
            frames = np.arange(1 + CHUNK * chunk, 1 + CHUNK * (chunk + 2))
            if rng.random() < STILL_SHARE:
                frames[:CHUNK] = frames[CHUNK - 1]
            height, width = clips.color.shape[2:4]
            if self.crop is None:
                rows, columns = slice(0, height), slice(0, width)
            else:
                top = int(rng.integers((height - self.crop[0]) // 16 + 1)) * 16
                left = int(rng.integers((width - self.crop[1]) // 16 + 1)) * 16
                rows, columns = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
            first, last = frames[0], frames[-1] + 1
            local = frames - first
            cut = (n, slice(first, last), rows, columns)
            truth = np.concatenate(
                [clips.color[cut][local] / np.float32(127.5) - 1, clips.inverse_depth[cut][local][..., None]],
                -1,
                dtype=np.float32,
            )
            memory = clips.memory[cut][local].astype(np.float32)
            guide = np.concatenate(
                [
                    memory[..., :3] / 127.5 - 1,
                    memory[..., 3:] / 255,
                    clips.memory_depth[cut][local][..., None],
                ],
                -1,
                dtype=np.float32,
            )
            if rng.random() < BLIND_SHARE:
                guide[:] = 0
            known = guide[..., 3].mean() > 0.6
            if rng.random() < 0.5:
                truth, guide = truth[:, :, ::-1], guide[:, :, ::-1]
            if rng.random() < 0.5:
                order = rng.permutation(3)
                truth = truth[..., [*order, 3]]
                guide = guide[..., [*order, 3, 4]]
            truths.append(np.ascontiguousarray(truth))
            guides.append(np.ascontiguousarray(guide))
            echoes.append(known and rng.random() < ECHO_SHARE)
        truth, guide = (
            torch.from_numpy(np.stack(part)).permute(0, 1, 4, 2, 3).unflatten(1, (2, CHUNK))
            for part in (truths, guides)
        )
        return truth, guide, torch.tensor(echoes)

    @torch.no_grad()
    def finished_model(self, num_batches: int = 20) -> GuidedAutoencoder:
        """The averaged weights in fp32, with latent statistics measured on the training clips."""
        model = GuidedAutoencoder(self.model.config)
        model.load_state_dict(self.optimizer.ema_state(), strict=False)
        rng = np.random.default_rng(0)
        raw = torch.cat(
            [
                model.encoder(self._batch(rng)[0][:, :, :, :3].flatten(0, 1).flatten(1, 2))
                for _ in range(num_batches)
            ]
        )
        model.latents_mean.copy_(raw.mean((0, 2, 3)))
        model.latents_std.copy_(raw.std((0, 2, 3)).clamp_min(1e-3))
        return model.eval()


def reconstruction_loss(decoded: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier + 2 MSE + 0.5 L1 of gradients + 0.5 L1 of the 4x4 averages; both [N, 3, H, W] in [-1, 1]."""
    error = decoded - clean
    charbonnier = (error.square() + 1e-6).sqrt().mean() + 2.0 * error.square().mean()
    gradient = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return charbonnier + 0.5 * gradient + 0.5 * functional.avg_pool2d(error, 4).abs().mean()
