"""Pictures with exact depth, of places and still lifes that are generated: what the depth network of the pocket learns from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.files.atomic import replacing
from holodeck import Place, get_place
from holodeck.collision import is_free
from holodeck.compiled import render_rgbd
from holodeck.generator.still_life import StillLife, generate_still_life
from training.data.memory_clips import MemoryClips
from training.pocket.clip_jobs import GENERATED, digest
from training.pocket.clips import ClipSettings, inverse_of
from training.pocket.keyframes import sample_views, turned_pose

NAMES = ("color", "inverse_depth")
"""Of the arrays; the last one's file is written last, so it says that both are whole."""
DISTANCES_M = (0.7, 5.0)
"""Of close-ups from the thing that they show."""
ZOOMED_SHARE, MOST_ZOOM = 0.5, 2.2
"""Share of close-ups taken with a longer lens. Nobody knows the lens of a photo, so what a longer one shows counts as nearer."""
UNFOCUSED_SHARE = 0.4
"""Share of close-ups whose background, or foreground, is out of focus."""
DEFOCUS_PX_M = (1.0, 8.0)
"""Blur of what is out of focus: pixels for each 1/m of inverse depth."""
BLURS_PX = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the blurs that are mixed into all others."""
EYE_RADIUS_M, LEAST_EYE_HEIGHT_M = 0.15, 0.08
"""Around a camera there is nothing, and it is at least so high."""
MOST_TRIES = 200
"""Cameras that are tried before a still life is given up."""

View = tuple[NDArray[np.uint8], NDArray[np.float16]]
"""RGB [H, W, 3] and inverse depth [H, W], 1/m."""


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


class RgbdJob(Protocol):
    """Views that are drawn into files."""

    @property
    def stem(self) -> str:
        """File name without ending."""
        ...

    def is_made(self, folder: Path) -> bool:
        return (folder / f"{self.stem}.{NAMES[-1]}.npy").exists()

    def make(self, folder: Path) -> None:
        """Render them, unless they are there.

        Raises:
            ValueError: There is no view.
        """
        if self.is_made(folder):
            return
        parts = [list(part) for part in zip(*self._views(), strict=True)]
        if not parts:
            raise ValueError(f"nothing is to be seen for {self.stem}; choose another seed")
        for name, part in zip(NAMES, parts, strict=True):
            with replacing(folder / f"{self.stem}.{name}.npy") as temporary:
                np.save(temporary, np.stack(part), allow_pickle=False)

    @abstractmethod
    def _views(self) -> Iterator[View]: ...


@dataclass(frozen=True)
class ViewJob(RgbdJob):
    """Views of generated places of neighbouring seeds."""

    seed: int
    """Of the first place."""
    num_places: int
    num_views: int
    """Of each place."""
    settings: ClipSettings

    @property
    def stem(self) -> str:
        return f"views-{self.seed:05d}-{digest(asdict(self))}"

    def _views(self) -> Iterator[View]:
        for seed in range(self.seed, self.seed + self.num_places):
            try:
                place = get_place(GENERATED.format(seed))
                poses = sample_views(place, np.random.default_rng([11, seed]), self.num_views)
            except ValueError:
                # No walk is long enough there; the others do.
                continue
            for c2w in poses:
                color, inverse = _rendered(place, c2w, self.settings)
                yield color, inverse.astype(np.float16)


@dataclass(frozen=True)
class CloseUpJob(RgbdJob):
    """Views of the things of still lifes of neighbouring seeds, from near."""

    seed: int
    """Of the first still life."""
    num_still_lifes: int
    num_views: int
    """Of each still life."""
    settings: ClipSettings

    @property
    def stem(self) -> str:
        return f"close-ups-{self.seed:05d}-{digest(asdict(self))}"

    def _views(self) -> Iterator[View]:
        for seed in range(self.seed, self.seed + self.num_still_lifes):
            still_life, rng = generate_still_life(seed), np.random.default_rng([12, seed])
            for _ in range(self.num_views):
                c2w = close_pose(still_life, rng)
                if c2w is not None:
                    yield _close_up(still_life.place, c2w, self.settings, rng)


def close_pose(still_life: StillLife, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Draw a camera that looks at one of the things, most often from above and now and then askew: camera-to-world, [4, 4].

    None where no free point was found.
    """
    place = still_life.place
    low_x, low_z, high_x, high_z = place.bounds
    for _ in range(MOST_TRIES):
        distance = np.exp(rng.uniform(*np.log(DISTANCES_M)))
        low_deg, high_deg = ((-65, -15), (-15, 12), (-90, -65))[rng.choice(3, p=(0.6, 0.3, 0.1))]
        roll_deg = rng.normal(0, 15) if rng.random() < 0.5 else 0.0
        c2w = turned_pose(np.zeros(3), rng.uniform(0, 360), rng.uniform(low_deg, high_deg), roll_deg)
        beside = rng.normal(0, 0.15 * distance, 3) * (1.0, 0.6, 1.0)
        target = np.array(still_life.targets[rng.integers(len(still_life.targets))]) + beside
        x, y, z = c2w[:3, 3] = target - distance * c2w[:3, 2]
        inside = low_x < x < high_x and low_z < z < high_z and LEAST_EYE_HEIGHT_M < -y < place.ceiling_m
        if inside and is_free(place.arrays, c2w[:3, 3], EYE_RADIUS_M):
            return c2w
    return None


def _close_up(
    place: Place, c2w: NDArray[np.float64], settings: ClipSettings, rng: np.random.Generator
) -> View:
    """Render a view as a camera does that nobody knows: its lens may be longer, and its focus near."""
    zoom = float(np.exp(rng.uniform(0.0, np.log(MOST_ZOOM)))) if rng.random() < ZOOMED_SHARE else 1.0
    color, inverse = _rendered(place, c2w, settings, zoom)
    inverse *= np.float32(zoom)
    if rng.random() < UNFOCUSED_SHARE:
        height, width = inverse.shape
        middle = inverse[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
        color = out_of_focus(color, inverse, float(np.percentile(middle, 65)), rng.uniform(*DEFOCUS_PX_M))
    return color, inverse.astype(np.float16)


def _rendered(
    place: Place, c2w: NDArray[np.float64], settings: ClipSettings, zoom: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    lens = settings.lens * np.array([zoom, zoom, 1, 1], np.float32)
    color, depth = render_rgbd(place, c2w, lens, settings.width, settings.height, centred_depth=True)
    return color, inverse_of(depth)


def out_of_focus(
    color: NDArray[np.uint8], inverse_depth: NDArray[np.float32], in_focus: float, px_m: float
) -> NDArray[np.uint8]:
    """Blur a picture [H, W, 3] by `px_m` pixels for each 1/m between its inverse depth [H, W] and what is in focus."""
    deviation = cv2.GaussianBlur(px_m * np.abs(inverse_depth - np.float32(in_focus)), (0, 0), 2.0)
    position = np.interp(deviation, BLURS_PX, np.arange(len(BLURS_PX)))
    level = np.minimum(position.astype(int), len(BLURS_PX) - 2)
    share = (position - level)[..., None].astype(np.float32)
    sharp = color.astype(np.float32)
    blurred = np.stack([sharp, *(cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in BLURS_PX[1:])])
    row, column = np.indices(level.shape)
    mixed = (1 - share) * blurred[level, row, column] + share * blurred[level + 1, row, column]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
