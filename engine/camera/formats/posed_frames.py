"""Poses and what their file says of the frames they belong to; what the readers of every format share.

Tracks have the pinhole part of a camera; its distortion is for whoever reads the pictures (`engine/camera/lens.py`). Lengths
are in the file's own unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.camera.lens import NUM_COEFFICIENTS
from engine.camera.tracks import Track, check_intrinsics, check_poses
from engine.files.natural_order import natural_key

Array = NDArray[np.float64]
PINHOLE_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
"""Names of camera models that are pinholes but for a distortion that can be undone."""
FEWEST_OF_A_CAMERA = 4
"""Frames on average that each camera of a rig took; with fewer, cameras are one film's, solved for one frame each."""


@dataclass(frozen=True, eq=False)
class PosedFrames:
    """Poses of one camera's frames, and what their file says of the images they belong to."""

    track: Track
    names: tuple[str, ...] | None = None
    """File name of each image, as the file writes it; None where poses belong to the frames of a video."""
    times_s: Array | None = None
    """When each pose was taken, rising, [F]."""
    camera: str = ""
    """Which camera of a rig took them; empty where there is one."""
    intrinsics_of: Callable[[tuple[int, int]], Array] | None = None
    """Intrinsics [F, 4] for images of a width and height, where the file says an angle of view and leaves the size to them."""
    distortion: Array | None = None
    """Of the lens that took each image, [F, 8], OpenCV's coefficients; None where no image has any."""


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera."""

    size: tuple[int, int]
    """Width and height of its image in pixels."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    distortion: tuple[float, ...] = ()
    """OpenCV's eight coefficients; empty where there is none."""


@dataclass(frozen=True, eq=False)
class PosedImage:
    """One image of a model, as readers of models with names find it."""

    name: str
    c2w: Array
    """[4, 4], OpenCV axes."""
    camera: PinholeCamera | None
    """None where the file does not say."""
    camera_id: object = None
    """Tells cameras apart; hashable."""


def by_camera(images: Sequence[PosedImage], source: str) -> tuple[PosedFrames, ...]:
    """Sort images by name and part those that different cameras of a rig took: by folder, then by camera.

    Raises:
        ValueError: A pose is not rigid, or the images of one camera differ in size.
    """
    images = sorted(images, key=lambda image: natural_key(image.name))
    folders = _parted(images, lambda image: image.name.replace("\\", "/").rpartition("/")[0])
    groups: dict[str, list[PosedImage]] = {}
    for folder, members in folders.items():
        cameras = _parted(members, lambda image: image.camera_id)
        label = str(folder).rpartition("/")[2] if len(folders) > 1 else ""
        if len(cameras) == 1 or len(members) < FEWEST_OF_A_CAMERA * len(cameras):
            groups[_unused(label, groups)] = members
            continue
        for number, taken in enumerate(cameras.values(), start=1):
            groups[_unused("-".join(filter(None, (label, f"camera{number}"))), groups)] = taken
    return tuple(_join(members, label, source) for label, members in groups.items())


def _parted(
    images: Sequence[PosedImage], key: Callable[[PosedImage], object]
) -> dict[object, list[PosedImage]]:
    parts: dict[object, list[PosedImage]] = {}
    for image in images:
        parts.setdefault(key(image), []).append(image)
    return parts


def _unused(label: str, taken: Container[str]) -> str:
    """Number a label that is taken; folders of one name may lie in different ones."""
    numbered = itertools.chain([label], (f"{label or 'images'}-{n}" for n in itertools.count(2)))
    return next(name for name in numbered if name not in taken)


def _join(images: Sequence[PosedImage], label: str, source: str) -> PosedFrames:
    c2w = check_poses(np.stack([image.c2w for image in images]), source)
    track = join_cameras(c2w, [image.camera for image in images], source)
    distortion = join_distortion(
        [() if image.camera is None else image.camera.distortion for image in images]
    )
    return PosedFrames(track, tuple(image.name for image in images), camera=label, distortion=distortion)


def join_distortion(distortions: Sequence[tuple[float, ...]]) -> Array | None:
    """Join what is known of each image's lens, [F, 8]; None where no image is distorted."""
    if not any(distortions):
        return None
    none = (0.0,) * NUM_COEFFICIENTS
    return np.array([given or none for given in distortions], np.float64)


def join_cameras(c2w: Array, cameras: Sequence[PinholeCamera | None], source: str) -> Track:
    """Join poses and cameras; cameras are left out unless every frame has one."""
    known = [camera for camera in cameras if camera is not None]
    if len(known) < len(c2w):
        return Track(c2w)
    sizes = {camera.size for camera in known}
    if len(sizes) > 1:
        raise ValueError(f"{source} has images of different sizes {sorted(sizes)[:3]}; keep those of one")
    (size,) = sizes
    if min(size) < 1:
        raise ValueError(f"{source} has images of {size[0]}x{size[1]} pixels; sizes are positive")
    intrinsics = check_intrinsics(np.array([camera.intrinsics for camera in known]), len(c2w), source)
    return Track(c2w, intrinsics, image_size=size)


def rotations(quaternions: Array, source: str) -> Array:
    """Turn quaternions w, x, y, z [F, 4] into rotations [F, 3, 3]."""
    length = np.linalg.norm(quaternions, axis=1)
    if not (np.isfinite(length) & (np.abs(length - 1.0) < 0.1)).all():
        raise ValueError(f"{source} has a quaternion that is not of length 1; write the poses again")
    w, x, y, z = (quaternions / length[:, None]).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
