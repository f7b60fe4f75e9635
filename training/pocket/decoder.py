"""Decoder stage of the pocket: the decoder learns the latents that the generator makes; the encoder stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.vae.guided import NOTHING_SHOWN, RGB, GuidedAutoencoder
from training.data.memory_clips import MemoryClips
from training.optimizer import OptimizerConfig
from training.pocket.generator import LatentClips, balanced
from training.stages.autoencoder import KNOWN, WELL_KNOWN, AutoencoderStage, Batch

GENERATED_SHARE, ECHO_SHARE = 0.7, 0.15
"""Shares of samples whose latents a rollout made, and are those of the memory's own rendering, where it knows enough; the others
are the truth's."""
BLIND_SHARE = 0.08
"""Share of samples whose guide is hidden."""
DECIBEL_WEIGHT = 0.05
"""Weight of the mean logarithm of each frame's squared error, which is what decibels are."""
LEAST_ERROR = 2e-4
"""Squared error far below which nothing is gained any more: 43 dB."""


class DecoderStage(AutoencoderStage):
    """Samples whose latents were made before: mostly by rollouts, else those of the memory's rendering or of the truth."""

    still_share = 0.0

    def __init__(
        self,
        start: GuidedAutoencoder,
        clips: Sequence[MemoryClips],
        encoded: Sequence[LatentClips],
        generated: Sequence[Tensor],
        batch_size: int = 8,
        crop: tuple[int, int] | None = (96, 160),
        name: str = "decoder",
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Prepare the stage.

        Args:
            encoded: Latents of the clips, in their order.
            generated: What rollouts made of the same clips, [N, C, T, h, w] each.
        """
        super().__init__(start.config, clips, batch_size, crop, name, optimizer, start, _is_decoder)
        self.encoded, self.generated = encoded, generated
        self.shares = balanced(encoded)
        # The model's own copies are rounded while it computes in bfloat16.
        self.mean, self.std = start.latents_mean.clone(), start.latents_std.clone()

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw samples as they are: neither mirrored nor recoloured, since their latents are made already."""
        crops = [self.draw_crop(rng) for _ in range(self.batch_size)]
        parts = [crop.read(self.clips[crop.source]) for crop in crops]
        for _, guide in parts:
            if rng.random() < BLIND_SHARE:
                guide[:] = NOTHING_SHOWN
        truths, guides = ([part[n] for part in parts] for n in (0, 1))
        return self.assembled(truths, guides, [False] * len(crops), crops)

    def color_loss(self, decoded: Tensor, clean: Tensor) -> Tensor:
        """The autoencoder's loss, and the logarithm of each frame's squared error, so that good frames count as poor ones do."""
        error = (decoded - clean).square().flatten(1).mean(1)
        return super().color_loss(decoded, clean) + DECIBEL_WEIGHT * (error / LEAST_ERROR).log1p().mean()

    def raw_latents(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Latents of the samples' two groups and noise, not normalised, [B, 2, C, h, w]."""
        cell = self.model.config.spatial_stride
        coverage = batch.guide[:, :, :, RGB].mean((1, 2, 3, 4)).tolist()
        picked = []
        for crop, known in zip(batch.crops, coverage, strict=True):
            encoded, draw = self.encoded[crop.source], rng.random()
            clips = encoded.latents
            # What a generator invents where nothing is known is not what is there, and can teach nothing but blur.
            if known > WELL_KNOWN and draw < GENERATED_SHARE:
                clips = self.generated[crop.source]
            elif known > KNOWN and GENERATED_SHARE <= draw < GENERATED_SHARE + ECHO_SHARE:
                clips = encoded.memory[:, :-1]
            last = int(crop.frames[-1]) // self.stride
            rows, columns = (slice(s.start // cell, s.stop // cell) for s in (crop.rows, crop.columns))
            picked.append(clips[crop.clip][:, last - 1 : last + 1, rows, columns].transpose(0, 1))
        raw = torch.stack(picked).float() * self.std[:, None, None] + self.mean[:, None, None]
        raw = raw.to(batch.truth.device)
        return raw + self.model.config.latent_noise * torch.randn_like(raw)

    @torch.no_grad()
    def finished_model(self, num_batches: int = 0) -> GuidedAutoencoder:
        """The EMA weights in fp32; encoder and latent statistics are those it began with."""
        model = GuidedAutoencoder(self.model.config)
        model.load_state_dict(self.model.state_dict() | self.optimizer.ema_state())
        return model.float().eval()


def _is_decoder(name: str) -> bool:
    return name.startswith("decoder.")
