"""Clips of places beside what a spatial memory, of which more or less is hidden, shows of them.

A clip is a first frame and some chunks of R frames, with truth and rendering of the memory for every frame. What is hidden is
drawn for each clip: nothing, some keyframes, everything on one side, everything but the first frame, or everything; where a walk
begins with one picture, the memory grows by frames of the walk itself, as it does in a session.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.memory.rendering import MemoryRendering
from engine.memory.spatial_memory import GROWTH_DELAY
from holodeck import Place
from holodeck.compiled import render_rgbd
from holodeck.walks import walk
from training.data.clip import FPS
from training.data.holodeck.walk_set import INTRINSICS
from training.data.memory_clips import MemoryClips
from training.pocket.keyframes import sample_views

Poses = NDArray[np.float64]
Clip = tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8], NDArray[np.float16], Poses]
"""One row of each array of `MemoryClips`."""

SHARES = {"whole": 0.5, "half": 0.15, "sector": 0.1, "grown": 0.15, "none": 0.1}
"""How often each part of a placed memory is shown."""
SPARSE_SHARES = {"whole": 0.35, "half": 0.15, "grown": 0.35, "none": 0.15}
"""The same where a memory has few keyframes."""
EMPTY_SHARES = {"grown": 0.7, "none": 0.3}
"""The same where it has none."""
GROWTH_EVERY = 2
"""Chunks between two frames that are fused where a memory grows."""
SKY_M = 1e4
"""Depth from which on a pixel is sky."""


@dataclass(frozen=True)
class ClipSettings:
    """Sizes of all clips."""

    num_chunks: int = 8
    """After the first frame."""
    width: int = 320
    height: int = 192
    intrinsics: tuple[float, float, float, float] = INTRINSICS
    """fx, fy, cx, cy in pixels."""
    stride: int = 4
    """Frames of a chunk, R."""

    @property
    def num_frames(self) -> int:
        return 1 + self.stride * self.num_chunks

    @property
    def lens(self) -> NDArray[np.float32]:
        """The intrinsics, [4]."""
        return np.array(self.intrinsics, np.float32)


def make_clips(
    place: Place,
    keyframes: Sequence[Keyframe],
    shares: Mapping[str, float],
    num_clips: int,
    settings: ClipSettings,
    seed: int,
) -> MemoryClips:
    """Render clips of a place.

    Args:
        shares: How often each part of the memory is shown, by the names of `SHARES`; they add up to 1.
    """
    rng = np.random.default_rng([seed, zlib.crc32(place.name.encode())])
    return stacked([make_clip(place, keyframes, shares, settings, rng) for _ in range(num_clips)])


def stacked(clips: Sequence[Clip]) -> MemoryClips:
    """Put clips of one size together."""
    return MemoryClips(*(np.stack(part) for part in zip(*clips, strict=True)))


def make_clip(
    place: Place,
    keyframes: Sequence[Keyframe],
    shares: Mapping[str, float],
    settings: ClipSettings,
    rng: np.random.Generator,
) -> Clip:
    """Render one clip."""
    poses = clip_poses(place, settings.num_frames, rng)
    size = settings.width, settings.height
    truth = [render_rgbd(place, c2w, settings.lens, *size, centred_depth=True) for c2w in poses]
    color = np.stack([picture for picture, _ in truth])
    inverse = np.stack([inverse_of(depth) for _, depth in truth])
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    # A generated depth is off by a factor that stays the same all along a walk.
    stretch = float(np.exp(rng.normal(0, 0.03))) if rng.random() < 0.5 else 1.0
    memory = MemoryRenderer(shown_keyframes(kind, keyframes, rng))
    shown = _rendered(memory, kind == "grown", color, inverse * np.float32(stretch), poses, settings, rng)
    coverage = (255 * shown.coverage).astype(np.uint8)[..., None]
    guide = np.concatenate([shown.color, coverage], -1)
    return color, inverse.astype(np.float16), guide, shown.inverse_depth.astype(np.float16), poses


def inverse_of(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse depth, 1/m, 0 where there is only sky."""
    return np.where(depth > SKY_M, 0.0, 1.0 / depth).astype(np.float32)


def shown_keyframes(kind: str, keyframes: Sequence[Keyframe], rng: np.random.Generator) -> list[Keyframe]:
    """Keyframes that are not hidden; none where a memory begins empty."""
    if kind == "whole":
        return list(keyframes)
    if kind == "half":
        kept = rng.random(len(keyframes)) < rng.uniform(0.15, 0.7)
        return [keyframe for keyframe, keep in zip(keyframes, kept, strict=True) if keep]
    if kind == "sector":
        angle = rng.uniform(0, 2 * np.pi)
        away = np.array([np.sin(angle), 0.0, np.cos(angle)])
        return [keyframe for keyframe in keyframes if keyframe.c2w[:3, 2] @ away < 0.3]
    return []


def _rendered(
    memory: MemoryRenderer,
    is_growing: bool,
    color: NDArray[np.uint8],
    inverse: NDArray[np.float32],
    poses: Poses,
    settings: ClipSettings,
    rng: np.random.Generator,
) -> MemoryRendering:
    """Render a memory for all frames of a clip, chunk by chunk; a growing one takes in frames that were shown before."""
    stride, lens = settings.stride, settings.lens

    def fuse(frame: int) -> None:
        memory.add(_fused(color[frame], inverse[frame], poses[frame], lens, rng))

    if is_growing:
        fuse(0)
    parts = []
    for chunk in range(settings.num_chunks + 1):
        first, end = (0, 1) if chunk == 0 else (1 + stride * (chunk - 1), 1 + stride * chunk)
        if is_growing and chunk > GROWTH_DELAY and chunk % GROWTH_EVERY == 0:
            fuse(stride * (chunk - GROWTH_DELAY))
        lenses = np.repeat(lens[None], end - first, 0)
        parts.append(memory.render(poses[first:end], lenses, settings.width, settings.height))
    return MemoryRendering(
        np.concatenate([part.color for part in parts]),
        np.concatenate([part.coverage for part in parts]),
        np.concatenate([part.inverse_depth for part in parts]),
    )


def _fused(
    color: NDArray[np.uint8],
    inverse: NDArray[np.float32],
    c2w: Poses,
    lens: NDArray[np.float32],
    rng: np.random.Generator,
) -> Keyframe:
    """A frame as a keyframe, whose depth is at times soft at edges, as a network's is."""
    if rng.random() < 0.5:
        inverse = np.asarray(cv2.GaussianBlur(inverse, (0, 0), rng.uniform(0.5, 1.2)), np.float32)
    return Keyframe.of(color, inverse, c2w, lens)


def clip_poses(place: Place, num_frames: int, rng: np.random.Generator) -> Poses:
    """Poses of a clip, [F, 4, 4]: a stretch of a walk, at times faster, turned up, down or over, held still; or a sweep round."""
    if rng.random() < 0.12:
        return _sweep(sample_views(place, rng, 1)[0], num_frames, rng)
    speed = int(rng.choice([1, 1, 1, 2, 3]))
    path = walk(place, FPS * 24 + num_frames * 3, FPS, int(rng.integers(1 << 30)))
    start = int(rng.integers(len(path) - speed * num_frames))
    poses = path[start : start + speed * num_frames : speed].copy()
    if rng.random() < 0.3:
        pitch, roll = np.radians(rng.normal(0, (18, 12)))
        poses[:, :3, :3] = poses[:, :3, :3] @ _rotation(pitch, 0) @ _rotation(roll, 2)
    if num_frames > 8 and rng.random() < 0.12:
        still = int(rng.integers(num_frames - 8))
        poses[still:] = poses[still]
    return poses


def _sweep(c2w: Poses, num_frames: int, rng: np.random.Generator) -> Poses:
    """Turn on the spot at up to 160 degrees a second."""
    rate = np.radians(rng.uniform(30, 160)) / FPS * rng.choice([-1, 1])
    poses = np.repeat(c2w[None], num_frames, 0)
    for number in range(num_frames):
        poses[number, :3, :3] = _rotation(rate * number, 1) @ c2w[:3, :3]
    return poses


def _rotation(angle_rad: float, axis: int) -> NDArray[np.float64]:
    """About x, y or z, [3, 3]."""
    return np.asarray(cv2.Rodrigues(np.eye(3)[axis] * angle_rad)[0], np.float64)
