"""The autoencoder's own ceiling: a film encoded and decoded again, and the first latent of a new world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.files.bundle import EngineSpec
from evaluation.rollouts import Frames
from model.vae.pocket import AUTOENCODER_FILE, Autoencoder, StreamingDecoder, load_autoencoder_weights

LATENTS_PER_CALL = 16


def open_autoencoder(folder: Path, spec: EngineSpec) -> Autoencoder:
    """Load the autoencoder of a folder, of whatever size it is, for a bundle.

    Raises:
        ValueError: There is none, it is damaged, or it makes other latents than the bundle takes.
    """
    path = folder / AUTOENCODER_FILE
    found = load_autoencoder_weights(path)
    makes = found.config.latent_channels, found.config.temporal_stride, found.config.spatial_stride
    takes = spec.latent_channels, spec.temporal_stride, spec.spatial_stride
    if makes != takes:
        made, taken = (
            "{} channels for {} frames and {} pixels a side".format(*sizes) for sizes in (makes, takes)
        )
        raise ValueError(f"the autoencoder {path} makes latents of {made}, and {spec.name} takes {taken}")
    return found


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, frames: Frames) -> Frames:
    """Encode a clip of 1 + stride * n frames, [F, H, W, 3], and decode it as the engine does, latent by latent."""
    latents = _encode(autoencoder, frames)
    decoder = StreamingDecoder(autoencoder)
    height, width = latents.shape[-2:]
    caches = tuple(torch.zeros(shape) for _, shape in decoder.cache_spec(height, width))
    parts = []
    for latent in latents.split(1, dim=2):
        pictures, *made = decoder(latent.contiguous(), *caches)
        caches = tuple(made)
        parts.append(pictures.numpy())
    parts[0] = parts[0][-1:]
    return np.concatenate(parts)


@torch.no_grad()
def first_latent(autoencoder: Autoencoder, frame: Frames) -> NDArray[np.float32]:
    """Encode a single picture [H, W, 3], from which a world can begin, [C, h, w]."""
    return _encode(autoencoder, frame[None])[0, :, 0].numpy()


def _encode(autoencoder: Autoencoder, frames: Frames) -> Tensor:
    """Encode piece by piece, [1, C, T, h, w]: groups of frames know nothing of one another, so any frame may lead a piece."""
    stride = autoencoder.config.temporal_stride
    latents = [autoencoder.encode(_as_video(frames[:1]))]
    step = stride * LATENTS_PER_CALL
    for start in range(1, len(frames), step):
        piece = _as_video(frames[start - 1 : start + step])
        latents.append(autoencoder.encode(piece)[:, :, 1:])
    return torch.cat(latents, 2)


def _as_video(frames: Frames) -> Tensor:
    """Bytes [F, H, W, 3] to numbers in [-1, 1], [1, F, 3, H, W]."""
    return torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0
