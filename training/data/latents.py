"""Clips as latents: encoded, kept in memory as walks, cut into training windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.vae.pocket import Autoencoder
from training.data.clip import Clip, ClipRejected
from training.data.holodeck_clips import rendered_clip
from training.data.latent_cache import LatentCache
from training.data.render import RenderJob

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


def weights_tag(autoencoder: Autoencoder) -> str:
    """Name an autoencoder by its weights, in eight hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()[:8]


@torch.no_grad()
def encode_frames(autoencoder: Autoencoder, frames: NDArray[np.uint8]) -> Tensor:
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


def encoded(clip: Clip, autoencoder: Autoencoder) -> Clip:
    """Return a clip with latents in place of frames, cut to a whole number of latents."""
    stride, spatial = autoencoder.config.temporal_stride, autoencoder.config.spatial_stride
    if clip.frames is None:
        raise ValueError(f"{clip.name} has no frames to encode; give the films, not their latents")
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
    jobs: Sequence[RenderJob], scenes: Sequence[str], autoencoder: Autoencoder, directory: Path
) -> Iterator[LatentWalk]:
    """Encode rendered walks, each once: their latents lie beside their frames."""
    cache = LatentCache(directory, weights_tag(autoencoder))
    for job in jobs:
        clip = cache.clip(job.stem, lambda job=job: encoded(rendered_clip(job, directory), autoencoder))
        yield latent_walk(clip, scenes.index(job.place))


@dataclass(frozen=True)
class WindowBatch:
    """The first latent of each walk and a window of n latents from anywhere along it; B samples."""

    scene: Tensor
    """Row in the scene table, int64 [B]."""
    latents: Tensor
    """Clean, [B, C, 1 + n, H, W] float32; frame 0 is the walk's first."""
    c2w: Tensor
    """Relative poses in packed windows, [B, (1 + n) * R, 4, 4]."""
    intrinsics: Tensor
    """[B, (1 + n) * R, 4]."""
    frame_index: Tensor
    """Absolute latent frame, int64 [B, 1 + n]."""
    text: Tensor | None = None
    """What stands in place of the scenes' rows in the table, [B, L, D] float32; None where the table is read."""
    text_mask: Tensor | None = None
    """1 for real tokens, [B, L]."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is there, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def to(self, device: torch.device) -> WindowBatch:
        """The same batch on a device."""
        return WindowBatch(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


MAX_INDEX_SHIFT = 2000
"""Half of the windows pretend to lie later in a walk than they do, by up to this many latent frames, so that rotary
positions of long sessions are familiar."""


def draw_window(num_latents: int, length: int, rng: np.random.Generator) -> tuple[slice, Tensor]:
    """Choose `length` latents in a row behind the first one of a clip, and the indices [1 + length] that they are told."""
    start = int(rng.integers(1, num_latents - length + 1))
    shift = int(rng.integers(MAX_INDEX_SHIFT)) if rng.random() < 0.5 and start > 1 else 0
    index = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(start, start + length) + shift])
    return slice(start, start + length), index


def side_by_side(batches: Sequence[WindowBatch]) -> WindowBatch:
    """Put clips of one length into one batch."""
    parts = [batch.tensors() for batch in batches]
    return WindowBatch(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def draw_windows(
    walks: Sequence[LatentWalk], batch_size: int, length: int, rng: np.random.Generator
) -> WindowBatch:
    """Cut one window of `length` latents out of each of `batch_size` random walks."""
    picks = [walks[i] for i in rng.integers(len(walks), size=batch_size)]
    latents, poses, index = [], [], []
    for walk in picks:
        window, told = draw_window(len(walk.latents), length, rng)
        latents.append(torch.cat([walk.latents[:1], walk.latents[window]]))
        poses.append(torch.cat([walk.c2w[:1], walk.c2w[window]]).flatten(0, 1))
        index.append(told)
    c2w = torch.stack(poses)
    return WindowBatch(
        scene=torch.tensor([walk.scene for walk in picks]),
        latents=torch.stack(latents).float().transpose(1, 2).contiguous(),
        c2w=c2w,
        intrinsics=torch.stack([walk.intrinsics for walk in picks])[:, None].expand(-1, c2w.shape[1], -1),
        frame_index=torch.stack(index),
    )
