"""COLMAP models, text and binary: cameras and registered images, without the points."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.camera.actions import MAX_FRAMES
from engine.camera.formats.posed_frames import PinholeCamera, PosedFrames, join_cameras, read_text, rotations
from engine.camera.tracks import check_poses

MAX_NAME_BYTES = 4096
COLMAP_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    6: ("FULL_OPENCV", 12),
}
"""Number in binary files, name, and count of parameters; fisheye cameras are no pinholes."""
ONE_FOCAL_LENGTH = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")


def read_colmap(folder: Path) -> PosedFrames:
    """Read a model's folder; images in the order of their names.

    Raises:
        ValueError: It holds no model, or a damaged one, in one sentence.
    """
    for suffix, read_cameras, read_images in (
        (".bin", _binary_cameras, _binary_images),
        (".txt", _text_cameras, _text_images),
    ):
        images, cameras = folder / f"images{suffix}", folder / f"cameras{suffix}"
        if images.is_file() and cameras.is_file():
            return _colmap_frames(read_cameras(cameras), sorted(read_images(images)), str(images))
    raise ValueError(f"{folder} holds no COLMAP model; one has images.bin and cameras.bin, or both as .txt")


_Image = tuple[str, tuple[float, ...], int]
"""Image name, quaternion and translation of world-to-camera, camera number."""


def _colmap_frames(cameras: dict[int, PinholeCamera], images: list[_Image], source: str) -> PosedFrames:
    if not images:
        raise ValueError(f"{source} has no images; register some first")
    if missing := sorted({camera for _, _, camera in images} - cameras.keys()):
        raise ValueError(f"{source} names camera {missing[0]}, which its cameras file does not have")
    numbers = np.array([pose for _, pose, _ in images], np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{source} has a pose that is not finite; register its images again")
    to_world = rotations(numbers[:, :4], source).transpose(0, 2, 1)
    c2w = np.tile(np.eye(4), (len(images), 1, 1))
    c2w[:, :3, :3] = to_world
    c2w[:, :3, 3] = -(to_world @ numbers[:, 4:, None])[..., 0]
    track = join_cameras(check_poses(c2w, source), [cameras[camera] for _, _, camera in images], source)
    return PosedFrames(track, tuple(name for name, _, _ in images))


def _pinhole(model: str, size: tuple[int, int], parameters: Sequence[float]) -> PinholeCamera:
    fx, *rest = parameters
    fy, cx, cy = (fx, *rest[:2]) if model in ONE_FOCAL_LENGTH else rest[:3]
    return PinholeCamera(size, (fx, fy, cx, cy))


def _text_rows(path: Path) -> list[list[str]]:
    return [line.split() for line in read_text(path).splitlines() if not line.startswith("#")]


def _text_cameras(path: Path) -> dict[int, PinholeCamera]:
    counts = dict(COLMAP_MODELS.values())
    cameras = {}
    for row in filter(None, _text_rows(path)):
        try:
            number, model, size = int(row[0]), row[1], (int(row[2]), int(row[3]))
            parameters = [float(value) for value in row[4:]]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path} has a damaged line {' '.join(row)[:60]!r}") from error
        if model not in counts or len(parameters) != counts[model]:
            raise ValueError(f"{path} has a camera of model {model[:40]!r}; undistort to PINHOLE first")
        cameras[number] = _pinhole(model, size, parameters)
    return cameras


def _text_images(path: Path) -> Iterator[_Image]:
    # Two lines an image; the second, of its points, may be empty.
    for row in _text_rows(path)[::2]:
        if not row:
            continue
        try:
            pose = tuple(float(value) for value in row[1:8])
            yield " ".join(row[9:]), pose, int(row[8])
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path} has a damaged line {' '.join(row)[:60]!r}") from error


def _binary_cameras(path: Path) -> dict[int, PinholeCamera]:
    def read(take: Callable[[str], tuple[Any, ...]], file: BinaryIO) -> tuple[int, PinholeCamera]:
        number, kind, width, height = take("<iiQQ")
        if kind not in COLMAP_MODELS:
            raise ValueError(f"{path} has a camera of model {kind}; undistort to PINHOLE first")
        model, count = COLMAP_MODELS[kind]
        return number, _pinhole(model, (width, height), take(f"<{count}d"))

    return dict(_binary_records(path, read))


def _binary_images(path: Path) -> Iterator[_Image]:
    def read(take: Callable[[str], tuple[Any, ...]], file: BinaryIO) -> _Image:
        _, *pose, camera = take("<i7di")
        name = bytearray()
        while (letter := take("<c")[0]) != b"\0":
            name += letter
            if len(name) > MAX_NAME_BYTES:
                raise ValueError(f"{path} has an image name without an end; it is damaged")
        file.seek(24 * take("<Q")[0], 1)
        return name.decode("utf-8", "replace"), tuple(pose), camera

    yield from _binary_records(path, read)


def _binary_records(
    path: Path, read: Callable[[Callable[[str], tuple[Any, ...]], BinaryIO], Any]
) -> Iterator:
    """Yield the records of a COLMAP binary file; one that is cut short becomes one sentence."""
    with path.open("rb") as file:

        def take(layout: str) -> tuple[Any, ...]:
            return struct.unpack(layout, file.read(struct.calcsize(layout)))

        try:
            (count,) = take("<Q")
            if count > MAX_FRAMES:
                raise ValueError(f"{path} claims {count} records; at most {MAX_FRAMES} are accepted")
            for _ in range(count):
                yield read(take, file)
        except (struct.error, OverflowError, OSError) as error:
            raise ValueError(f"{path} is cut short or damaged; export the model again") from error
