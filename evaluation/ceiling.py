"""The autoencoder's own ceiling: a film encoded and decoded again, and the first latent of a new world."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.rollouts import Frames
from model.autoencoder import Autoencoder, StreamingDecoder

LATENTS_PER_CALL = 16


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
