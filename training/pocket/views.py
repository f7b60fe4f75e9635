"""Pictures with exact depth, of places that are generated: what the depth network of the pocket learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.atomic import replacing
from holodeck import Place, get_place
from holodeck.compiled import render_rgbd
from training.data.memory_clips import MemoryClips
from training.pocket.clip_jobs import GENERATED, digest
from training.pocket.clips import ClipSettings, inverse_of
from training.pocket.keyframes import sample_views

NAMES = ("color", "inverse_depth")
"""Of the arrays; the last one's file is written last, so it says that both are whole."""


@dataclass(frozen=True, eq=False)
class RgbdViews:
    """N pictures and their depth."""

    color: NDArray[np.uint8]
    """[N, H, W, 3]."""
    inverse_depth: NDArray[np.float16]
    """1/m along the optical axis, 0 where there is only sky, [N, H, W]."""

    @classmethod
    def of_clips(cls, clips: MemoryClips, stride: int) -> RgbdViews:
        """Take every so many frames of clips."""
        color, inverse = clips.color[:, ::stride], clips.inverse_depth[:, ::stride]
        return cls(color.reshape(-1, *color.shape[2:]), inverse.reshape(-1, *inverse.shape[2:]))

    @classmethod
    def open(cls, folder: Path, stem: str) -> RgbdViews:
        """Map what a job wrote into memory."""
        arrays = (np.load(folder / f"{stem}.{name}.npy", mmap_mode="r", allow_pickle=False) for name in NAMES)
        return cls(*arrays)


@dataclass(frozen=True)
class ViewJob:
    """Views of generated places of neighbouring seeds."""

    seed: int
    """Of the first place."""
    num_places: int
    num_views: int
    """Of each place."""
    settings: ClipSettings

    @property
    def stem(self) -> str:
        """File name without ending."""
        return f"views-{self.seed:05d}-{digest(asdict(self))}"

    def is_made(self, folder: Path) -> bool:
        return (folder / f"{self.stem}.{NAMES[-1]}.npy").exists()

    def make(self, folder: Path) -> None:
        """Render them, unless they are there."""
        if self.is_made(folder):
            return
        parts = [list(part) for part in zip(*self._views(), strict=True)]
        if not parts:
            raise ValueError(
                f"no generated place from {self.seed} on can be walked through; choose another seed"
            )
        for name, part in zip(NAMES, parts, strict=True):
            with replacing(folder / f"{self.stem}.{name}.npy") as temporary:
                np.save(temporary, np.stack(part), allow_pickle=False)

    def _views(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float16]]]:
        for seed in range(self.seed, self.seed + self.num_places):
            try:
                place = get_place(GENERATED.format(seed))
                poses = sample_views(place, np.random.default_rng([11, seed]), self.num_views)
            except ValueError:
                # No walk is long enough there; the others do.
                continue
            yield from (self._view(place, c2w) for c2w in poses)

    def _view(self, place: Place, c2w: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        settings = self.settings
        size = settings.width, settings.height
        color, depth = render_rgbd(place, c2w, settings.lens, *size, centred_depth=True)
        return color, inverse_of(depth).astype(np.float16)
