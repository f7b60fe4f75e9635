"""Clips of places beside what a spatial memory, of which more or less is hidden, shows of them.

A clip is a first frame and some chunks of R frames, with truth and rendering of the memory for every frame. What is hidden is
drawn for each clip: nothing, some keyframes, everything but the first frame, or everything; where a walk begins with one picture,
the memory grows by frames of the walk itself, as it does in a session.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.memory.keyframes import Keyframe, MemoryRendering
from engine.memory.renderer import MemoryRenderer
from holodeck import Place
from holodeck.compiled import render_rgbd
from holodeck.walks import walk
from training.data.holodeck.walk_set import INTRINSICS
from training.pocket.keyframes import sample_views

WIDTH, HEIGHT, FPS = 320, 192, 16
CHUNK = 4
SHARES = {"whole": 0.5, "half": 0.15, "sector": 0.1, "grown": 0.15, "none": 0.1}
"""How often each part of a placed memory is shown."""
SPARSE_SHARES = {"whole": 0.35, "half": 0.15, "grown": 0.35, "none": 0.15}
"""The same where a memory has few keyframes."""
GROWTH_DELAY, GROWTH_EVERY = 2, 2
"""A frame is fused two chunks after it was shown, and one of every second chunk."""


@dataclass(frozen=True, eq=False)
class MemoryClips:
    """Clips in one array each, N clips of F = 1 + R n frames."""

    color: NDArray[np.uint8]
    """Truth, [N, F, H, W, 3]."""
    inverse_depth: NDArray[np.float16]
    """Truth, [N, F, H, W], 1/m."""
    memory: NDArray[np.uint8]
    """Rendering of the memory, colour and coverage in 0 or 255, [N, F, H, W, 4]."""
    memory_depth: NDArray[np.float16]
    """Its inverse depth, [N, F, H, W]."""
    c2w: NDArray[np.float64]
    """[N, F, 4, 4]."""

    NAMES = ("color", "inverse_depth", "memory", "memory_depth", "c2w")

    def save(self, folder: Path, stem: str) -> None:
        for name in self.NAMES:
            np.save(folder / f"{stem}.{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, stem: str) -> MemoryClips:
        """Map the arrays of a place into memory."""
        return cls(
            *(np.load(folder / f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in cls.NAMES)
        )


def make_clips(
    place: Place,
    keyframes: Sequence[Keyframe],
    shares: dict[str, float],
    num_clips: int,
    num_chunks: int,
    seed: int,
) -> MemoryClips:
    """Render clips of a place."""
    rng = np.random.default_rng([seed, zlib.crc32(place.name.encode())])
    clips = [_clip(place, keyframes, shares, num_chunks, rng) for _ in range(num_clips)]
    return MemoryClips(*(np.stack(part) for part in zip(*clips, strict=True)))


def _clip(
    place: Place,
    keyframes: Sequence[Keyframe],
    shares: dict[str, float],
    num_chunks: int,
    rng: np.random.Generator,
):
    num_frames = 1 + CHUNK * num_chunks
    poses = clip_poses(place, num_frames, rng)
    lens = np.array(INTRINSICS, np.float32)
    truth = [render_rgbd(place, c2w, lens, WIDTH, HEIGHT, centred_depth=True) for c2w in poses]
    color = np.stack([picture for picture, _ in truth])
    inverse = np.stack([np.where(depth > 1e4, 0.0, 1.0 / depth) for _, depth in truth]).astype(np.float32)
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    memory = MemoryRenderer(_shown(kind, keyframes, rng))
    stretch = np.exp(rng.normal(0, 0.03)) if rng.random() < 0.5 else 1.0
    if kind == "grown":
        memory.add(_remembered(color[0], inverse[0], poses[0], rng, stretch))
    parts = []
    for chunk in range(num_chunks + 1):
        first, end = (0, 1) if chunk == 0 else (1 + CHUNK * (chunk - 1), 1 + CHUNK * chunk)
        if kind == "grown" and chunk > GROWTH_DELAY and chunk % GROWTH_EVERY == 0:
            frame = CHUNK * (chunk - GROWTH_DELAY)
            memory.add(_remembered(color[frame], inverse[frame], poses[frame], rng, stretch))
        parts.append(memory.render(poses[first:end], np.repeat(lens[None], end - first, 0), WIDTH, HEIGHT))
    rendering = MemoryRendering(
        *(
            np.concatenate([getattr(p, name) for p in parts])
            for name in ("color", "coverage", "inverse_depth")
        )
    )
    shown = np.concatenate([rendering.color, np.uint8(255 * rendering.coverage)[..., None]], -1)
    return color, inverse.astype(np.float16), shown, rendering.inverse_depth.astype(np.float16), poses


def _shown(kind: str, keyframes: Sequence[Keyframe], rng: np.random.Generator) -> list[Keyframe]:
    """Keyframes that are not hidden."""
    if kind == "whole":
        return list(keyframes)
    if kind == "half":
        kept = rng.random(len(keyframes)) < rng.uniform(0.15, 0.7)
        return [k for k, keep in zip(keyframes, kept, strict=True) if keep]
    if kind == "sector":
        angle = rng.uniform(0, 2 * np.pi)
        away = np.array([np.sin(angle), 0.0, np.cos(angle)])
        return [k for k in keyframes if k.c2w[:3, 2] @ away < 0.3]
    return []


def _remembered(
    color: NDArray[np.uint8],
    inverse: NDArray[np.float32],
    c2w: NDArray[np.float64],
    rng: np.random.Generator,
    stretch: float,
) -> Keyframe:
    """A frame as a keyframe, whose depth is off by a scale and soft at edges, as a network's is."""
    if rng.random() < 0.5:
        soft = cv2.GaussianBlur(inverse, (0, 0), rng.uniform(0.5, 1.2))
        inverse = soft
    return Keyframe.of(
        color, (inverse * np.float32(stretch)).astype(np.float32), c2w, np.array(INTRINSICS, np.float32)
    )


def clip_poses(place: Place, num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Poses of a clip: a stretch of a walk, at times twice as fast, turned up, down or over, held still, or swept round."""
    if rng.random() < 0.12:
        return _sweep(sample_views(place, rng, 1)[0], num_frames, rng)
    speed = int(rng.choice([1, 1, 1, 2, 3]))
    path = walk(place, 16 * 24 + num_frames * 3, FPS, int(rng.integers(1 << 30)))
    start = int(rng.integers(len(path) - speed * num_frames))
    poses = path[start : start + speed * num_frames : speed].copy()
    if rng.random() < 0.3:
        tilt = (
            cv2.Rodrigues(np.radians([rng.normal(0, 18), 0.0, 0.0]))[0]
            @ cv2.Rodrigues(np.radians([0.0, 0.0, rng.normal(0, 12)]))[0]
        )
        poses[:, :3, :3] = poses[:, :3, :3] @ tilt
    if rng.random() < 0.12:
        still = int(rng.integers(num_frames - 8))
        poses[still:] = poses[still]
    return poses


def _sweep(c2w: NDArray[np.float64], num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Turn on the spot at up to 160 degrees a second."""
    rate = np.radians(rng.uniform(30, 160)) / FPS * rng.choice([-1, 1])
    poses = np.repeat(c2w[None], num_frames, 0)
    for n in range(num_frames):
        turn = cv2.Rodrigues(np.array([0.0, rate * n, 0.0]))[0]
        poses[n, :3, :3] = turn @ c2w[:3, :3]
    return poses
