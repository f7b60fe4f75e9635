"""Clips as latents: encoded, kept in memory as walks, cut into training windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.vae.guided import GuidedAutoencoder, autoencoder_in, load_autoencoder_weights
from training.data.clip import Clip, ClipRejected, ClipSource
from training.data.holodeck.rendering import RenderJob, rendered_clip
from training.data.latent_cache import LatentCache

GROUPS_PER_CALL = 32
LENS_TOLERANCE = 0.02
"""Greatest relative change of focal length or principal point within a clip that still counts as one lens."""


@dataclass(frozen=True)
class LatentWalk:
    """One encoded walk of T latent frames through a place."""

    scene: int
    """Row of the place in the table of scene embeddings."""
    latents: Tensor
    """Normalised, [T, C, H, W] float16; latent 0 is the place's first frame."""
    c2w: Tensor
    """Poses relative to the first frame in packed windows, [T, R, 4, 4] float32."""
    intrinsics: Tensor
    """fx, fy, cx, cy in frame pixels, [4] float32."""


def pack_windows(c2w: NDArray[np.float64], stride: int) -> NDArray[np.float32]:
    """Arrange poses [1 + stride * (T - 1), 4, 4] as windows [T, stride, 4, 4], relative to the first pose.

    The window of latent 0 is the first frame repeated, as when a walk has only begun.
    """
    relative = np.linalg.inv(c2w[0]) @ c2w
    first = np.repeat(relative[:1], stride, 0)[None]
    return np.concatenate([first, relative[1:].reshape(-1, stride, 4, 4)]).astype(np.float32)


def load_autoencoder(folder: Path) -> GuidedAutoencoder:
    """The autoencoder that lies in a folder of checkpoints, fp32.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    return load_autoencoder_weights(autoencoder_in(folder))


def weights_tag(autoencoder: GuidedAutoencoder) -> str:
    """Name an autoencoder by the weights that decide its latents, in eight hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(autoencoder.state_dict().items()):
        if name.startswith("decoder."):
            continue
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()[:8]


@torch.no_grad()
def encode_frames(autoencoder: GuidedAutoencoder, frames: NDArray[np.uint8]) -> Tensor:
    """Encode a clip [F, H, W, 3] to normalised latents [T, C, h, w] float16.

    They lie in memory as they would when read from a file: what is computed from them is then the same to the last bit.
    """
    stride = autoencoder.config.temporal_stride
    dtype = autoencoder.encoder.conv_in.weight.dtype
    padded = np.concatenate([np.repeat(frames[:1], stride - 1, 0), frames])
    parts = []
    for start in range(0, len(padded), stride * GROUPS_PER_CALL):
        part = torch.from_numpy(padded[start : start + stride * GROUPS_PER_CALL]).permute(0, 3, 1, 2)
        groups = (part.float() / 127.5 - 1.0).reshape(-1, stride * 3, *part.shape[-2:])
        raw = autoencoder.encoder(groups.to(dtype).contiguous(memory_format=torch.channels_last)).float()
        mean, std = autoencoder.latents_mean.float(), autoencoder.latents_std.float()
        parts.append(((raw - mean[:, None, None]) / std[:, None, None]).half())
    return torch.cat(parts).contiguous()


def latents_path(job: RenderJob, tag: str, directory: Path) -> Path:
    """Where a walk's latents lie that the autoencoder of this tag makes."""
    return LatentCache(directory, tag).path(job.stem)


def encoded(clip: Clip, autoencoder: GuidedAutoencoder) -> Clip:
    """Return a clip with latents in place of frames, cut to a whole number of latents."""
    stride, spatial = autoencoder.config.temporal_stride, autoencoder.config.spatial_stride
    if clip.frames is None:
        raise ValueError(f"{clip.name} has no frames to encode; give the videos, not their latents")
    if clip.frame_size[0] % spatial or clip.frame_size[1] % spatial:
        raise ValueError(
            f"{clip.name} has frames of {clip.frame_size[0]}x{clip.frame_size[1]}; "
            f"this autoencoder takes multiples of {spatial}"
        )
    num_frames = 1 + (clip.num_frames - 1) // stride * stride
    if num_frames < 1 + stride:
        raise ValueError(f"{clip.name} has {clip.num_frames} frames; at least {1 + stride} make two latents")
    latents = encode_frames(autoencoder, np.asarray(clip.frames[:num_frames])).numpy()
    return replace(
        clip, c2w=clip.c2w[:num_frames], intrinsics=clip.intrinsics[:num_frames], frames=None, latents=latents
    )


def latent_walk(clip: Clip, scene: int) -> LatentWalk:
    """Turn an encoded clip into what the generator's stages train on.

    Args:
        scene: Row of its scene in the table of scene embeddings.

    Raises:
        ValueError: It has no latents, or its lens changes, which these stages do not know.
    """
    stride = clip.temporal_stride
    assert clip.latents is not None, "a clip with a temporal stride has latents"
    if (np.abs(clip.intrinsics / clip.intrinsics[0] - 1.0) > LENS_TOLERANCE).any():
        raise ClipRejected(f"{clip.name} zooms; only clips of one lens can be trained on")
    windows = torch.from_numpy(pack_windows(clip.c2w, stride))
    lens = torch.tensor(clip.intrinsics.mean(0), dtype=torch.float32)
    return LatentWalk(scene, torch.from_numpy(clip.latents), windows, lens)


def encode_walks(
    jobs: Sequence[RenderJob], scenes: Sequence[str], autoencoder: GuidedAutoencoder, directory: Path
) -> Iterator[LatentWalk]:
    """Encode rendered walks, each once: their latents lie beside their frames."""
    cache = LatentCache(directory, weights_tag(autoencoder))
    for job in jobs:
        clip = cache.clip(job.stem, lambda job=job: encoded(rendered_clip(job, directory), autoencoder))
        yield latent_walk(clip, scenes.index(job.place))


class FrameSource(ClipSource, Protocol):
    """A source whose clips have frames."""

    def content(self, index: int) -> str:
        """Hash of all that a clip is made from, fit for a file name; found without decoding it."""
        ...


class EncodedClips:
    """A source of videos as latents; each video is encoded once and kept."""

    def __init__(self, videos: FrameSource, cache: LatentCache, autoencoder: GuidedAutoencoder) -> None:
        """Prepare the source; the cache belongs to the autoencoder."""
        self.videos, self.cache, self.autoencoder = videos, cache, autoencoder
        self.name, self.left_out = videos.name, videos.left_out
        self.num_encoded = 0
        """Clips that had to be encoded so far."""

    def __len__(self) -> int:
        return len(self.videos)

    def label(self, index: int) -> str:
        return self.videos.label(index)

    def __getitem__(self, index: int) -> Clip:
        return self.cache.clip(self.videos.content(index), lambda: self._encode(index))

    def _encode(self, index: int) -> Clip:
        self.num_encoded += 1
        return encoded(self.videos[index], self.autoencoder)
