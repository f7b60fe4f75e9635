"""What an error of the latent costs in pixels: the metric that the decoder induces on latent space.

Latents are normalised channel by channel, but the eye is not: a few directions carry colour and layout, the rest carry
edges. A loss in this metric learns what shows first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.vae.pocket import Autoencoder
from training.data.latents import LatentWalk

STEP = 0.3
"""Length of the probes, in standard deviations of a channel."""
FLOOR = 0.05
"""Least weight of a direction, as a share of the mean: nothing is forgotten altogether."""


@torch.no_grad()
def pixel_metric(
    autoencoder: Autoencoder, walks: Sequence[LatentWalk], num_probes: int = 24, seed: int = 0
) -> Tensor:
    """Measure how strongly the decoder answers to each direction of a latent token.

    At random tokens of real latents every channel is moved in turn; with r_i the change of the picture, the metric is the mean of
    G_ij = r_i . r_j.

    Returns:
        The symmetric square root of G, scaled so that the mean eigenvalue of G is 1, [C, C] float32.
    """
    rng = np.random.default_rng(seed)
    channels = autoencoder.config.latent_channels
    total = torch.zeros(channels, channels)
    for _ in range(num_probes):
        walk = walks[int(rng.integers(len(walks)))]
        latent = walk.latents[int(rng.integers(1, len(walk.latents)))].float()
        row, column = int(rng.integers(latent.shape[1])), int(rng.integers(latent.shape[2]))
        probes = latent.expand(1 + channels, -1, -1, -1).clone()
        probes[1:, :, row, column] += STEP * torch.eye(channels)
        mean, std = autoencoder.latents_mean[:, None, None], autoencoder.latents_std[:, None, None]
        pictures = autoencoder.decode_groups((probes * std + mean)[:, None])[:, 0].flatten(1)
        answers = (pictures[1:] - pictures[:1]) / STEP
        total += answers @ answers.T
    values, vectors = torch.linalg.eigh(total / total.trace() * channels)
    values = values.clamp_min(FLOOR)
    values = values / values.mean()
    return vectors @ torch.diag(values.sqrt()) @ vectors.T


def measure(error: Tensor, metric: Tensor | None) -> Tensor:
    """Express latent errors [B, C, T, H, W] in the metric; unchanged where there is none."""
    return error if metric is None else torch.einsum("ij,bjthw->bithw", metric, error)
