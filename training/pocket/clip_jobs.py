"""Data of the pocket's recipe on disk: keyframes of its places, and clips of them and of generated places, each made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from engine.files.atomic import replacing
from engine.memory.codec import THOROUGH
from engine.memory.keyframes import Keyframe
from engine.memory.store import compressed, decode_keyframes, encode_keyframes
from holodeck import Place, get_place
from training.data.holodeck.rendering import in_parallel, rendering_code
from training.data.memory_clips import MemoryClips
from training.pocket.clips import (
    EMPTY_SHARES,
    SHARES,
    SPARSE_SHARES,
    Clip,
    ClipSettings,
    make_clip,
    make_clips,
    stacked,
)
from training.pocket.keyframes import (
    COLOR_QUALITY,
    Placement,
    faces,
    free_positions,
    place_keyframes,
    rendered_keyframe,
)

SPARSE_COUNTS = (0, 6, 12, 24)
"""Keyframes of a generated place, one of which is drawn."""
GENERATED = "generated-{}"


def digest(settings: object) -> str:
    """Eight hex digits that change with settings and with the code that draws, so that stale files are never read."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode() + rendering_code()).hexdigest()[:8]


@dataclass(frozen=True)
class KeyframeJob:
    """The keyframes of one place."""

    place: str
    placement: Placement

    def path(self, folder: Path) -> Path:
        return folder / f"{self.place}-{digest(asdict(self))}.keyframes.safetensors"

    def make(self, folder: Path) -> None:
        """Place, render and compress them, unless they are there."""
        if self.path(folder).exists():
            return
        placed = place_keyframes(get_place(self.place), self.placement)
        arrays = encode_keyframes([compressed(keyframe, COLOR_QUALITY, THOROUGH) for keyframe in placed])
        with replacing(self.path(folder)) as temporary:
            save_file(arrays, temporary)

    def read(self, folder: Path) -> list[Keyframe]:
        """Read what `make` wrote."""
        path = self.path(folder)
        return decode_keyframes(load_file(path), f"the run, {path}")

    def is_made(self, folder: Path) -> bool:
        return self.path(folder).exists()


@dataclass(frozen=True)
class ClipJob:
    """Some clips of one scene."""

    scene: str
    """Name of the place, or "generated"."""
    seed: int
    """For generated places, that of the first."""
    num_clips: int
    """Of each place."""
    settings: ClipSettings
    keyframes: KeyframeJob | None = None
    """The place's; None for generated places, which get a few of their own."""
    num_places: int = 1
    """Generated places, of neighbouring seeds."""

    @property
    def stem(self) -> str:
        """File name without ending."""
        return f"{self.scene}-{self.seed:05d}-{digest(asdict(self))}"

    def is_made(self, folder: Path) -> bool:
        return MemoryClips.are_at(folder, self.stem)

    def make(self, folder: Path) -> None:
        """Render them, unless they are there."""
        if self.is_made(folder):
            return
        if self.keyframes is None:
            clips = self._of_generated_places()
        else:
            memory = self.keyframes.read(folder)
            clips = make_clips(
                get_place(self.scene), memory, SHARES, self.num_clips, self.settings, self.seed
            )
        clips.save(folder, self.stem)

    def _of_generated_places(self) -> MemoryClips:
        clips: list[Clip] = []
        for seed in range(self.seed, self.seed + self.num_places):
            rng = np.random.default_rng([9, seed])
            try:
                place = get_place(GENERATED.format(seed))
                memory = sparse_keyframes(place, int(rng.choice(SPARSE_COUNTS)), rng)
                shares = SPARSE_SHARES if memory else EMPTY_SHARES
                clips += [make_clip(place, memory, shares, self.settings, rng) for _ in range(self.num_clips)]
            except ValueError:
                # No walk is long enough there; the others do.
                continue
        if not clips:
            raise ValueError(
                f"no generated place from {self.seed} on can be walked through; choose another seed"
            )
        return stacked(clips)


def sparse_keyframes(place: Place, count: int, rng: np.random.Generator) -> list[Keyframe]:
    """Render a few keyframes of a place, anywhere."""
    if not count:
        return []
    poses = [face for point in free_positions(place, rng, max(2, count // 3)) for face in faces(point)]
    return [rendered_keyframe(place, poses[pick], side=384) for pick in rng.permutation(len(poses))[:count]]


class Job(Protocol):
    """A file, or a few, that are made once."""

    def is_made(self, folder: Path) -> bool: ...
    def make(self, folder: Path) -> None: ...


def make_all(jobs: Sequence[Job], folder: Path, num_workers: int) -> Iterator[None]:
    """Do what is missing, in parallel; yields once for each job that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not job.is_made(folder)]
    if not missing:
        return
    yield from in_parallel([partial(job.make, folder) for job in missing], num_workers)
