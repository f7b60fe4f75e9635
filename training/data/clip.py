"""One training clip and where clips come from: the interface that every source of data has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import check_intrinsics, check_poses

FPS = 16
"""Video frames a second of all public clips, and of walks through places."""


class ClipRejected(ValueError):
    """A clip that can be read but is not fit to train on; any other ValueError of a source means damage."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A video with its cameras: pictures, latents or both."""

    name: str
    """Unique within its source; errors call the clip by it."""
    source: str
    """Where it comes from, in a word: holodeck, or the name of an archive or folder."""
    scene: str
    """The place it was taken in."""
    caption: str
    """What the place looks like, without a word about the camera."""
    c2w: NDArray[np.float64]
    """One pose per video frame, [F, 4, 4]: camera-to-world, OpenCV axes, metres, in the source's own world frame."""
    intrinsics: NDArray[np.float64]
    """fx, fy, cx, cy in pixels of `frame_size`, [F, 4]."""
    frame_size: tuple[int, int]
    """Width and height in pixels."""
    fps: float
    frames: NDArray[np.uint8] | None = field(default=None, repr=False)
    """RGB, [F, H, W, 3], of `frame_size`."""
    latents: NDArray[np.float16] | None = field(default=None, repr=False)
    """Normalised, [T, C, h, w]; latent 0 is frame 0, latent k ends with frame k R, so F = 1 + R (T - 1)."""

    def __post_init__(self) -> None:
        """Judge shapes and numbers once, here.

        Raises:
            ValueError: They do not fit one another, or are not finite.
        """
        check_poses(self.c2w, self.name)
        check_intrinsics(self.intrinsics, self.num_frames, self.name)
        width, height = self.frame_size
        if self.frames is not None and self.frames.shape != (self.num_frames, height, width, 3):
            raise ValueError(
                f"{self.name} has frames of shape {self.frames.shape} for {self.num_frames} poses and "
                f"pictures of {width}x{height}; give one pose per frame"
            )
        if self.latents is not None:
            self._check_latents(self.latents)

    def _check_latents(self, latents: NDArray[np.float16]) -> None:
        if latents.ndim != 4 or latents.dtype != np.float16 or len(latents) < 2:
            raise ValueError(
                f"{self.name} has latents {latents.dtype} {latents.shape}; give float16 [T, C, h, w], T at least 2"
            )
        if (self.num_frames - 1) % (len(latents) - 1):
            raise ValueError(
                f"{self.name} has {self.num_frames} poses for {len(latents)} latents; give 1 + R (T - 1) poses"
            )
        if not np.isfinite(latents).all():
            raise ValueError(f"{self.name} has latents that are not finite; encode it again")

    @property
    def num_frames(self) -> int:
        return len(self.c2w)

    @property
    def temporal_stride(self) -> int:
        """Video frames R per latent.

        Raises:
            ValueError: The clip has no latents.
        """
        if self.latents is None:
            raise ValueError(f"{self.name} has no latents; encode it first")
        return (self.num_frames - 1) // (len(self.latents) - 1)


@dataclass(frozen=True)
class LeftOut:
    """Something that a source does not give, and why."""

    name: str
    reason: str
    """One sentence."""
    rejected: bool = False
    """Whether it can be read but is not wanted; otherwise it is broken."""


class ClipSource(Protocol):
    """A list of clips that are read when they are asked for; a map-style data set of torch's loaders."""

    name: str
    left_out: list[LeftOut]
    """What was found unfit already when the source was opened."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip:
        """Read one clip.

        Raises:
            ClipRejected: It is not fit to train on.
            ValueError: It is damaged.
        """
        ...

    def label(self, index: int) -> str:
        """What to call a clip, read or not."""
        ...


def readable(source: ClipSource, left_out: list[LeftOut]) -> Iterator[Clip]:
    """Yield every clip of a source that can be used; the others are added to `left_out`."""
    left_out += source.left_out
    for index in range(len(source)):
        clip = try_reading(source, index)
        if isinstance(clip, LeftOut):
            left_out.append(clip)
        else:
            yield clip


def try_reading(source: ClipSource, index: int) -> Clip | LeftOut:
    """Read one clip, or say why it is left out."""
    try:
        return source[index]
    except ClipRejected as error:
        return LeftOut(source.label(index), str(error), rejected=True)
    except (ValueError, OSError) as error:
        return LeftOut(source.label(index), str(error))


def count_left_out(left_out: list[LeftOut]) -> dict[str, int]:
    """How many clips were rejected and how many are broken."""
    counts = Counter("rejected" if item.rejected else "broken" for item in left_out)
    return {kind: counts[kind] for kind in ("rejected", "broken")}
