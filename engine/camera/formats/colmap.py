"""COLMAP models, text and binary: cameras and registered images, without the points."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.camera.actions import MAX_FRAMES
from engine.camera.formats.posed_frames import (
    PINHOLE_MODELS,
    PinholeCamera,
    PosedFrames,
    PosedImage,
    by_camera,
    rotations,
)
from engine.camera.formats.text_lines import fields, is_comment, numbers, text_lines
from engine.camera.lens import coefficients
from engine.files.natural_order import natural_key

MAX_NAME_BYTES = 4096
COLMAP_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
"""Number in binary files, name, and count of parameters."""
ONE_FOCAL_LENGTH = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
FEW_FIELDS = 10
"""Of an image's line, the last of them its name; lines of points are far longer and are not parted."""


def is_colmap(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return any((folder / name).is_file() for name in ("images.bin", "images.txt"))


def find_colmap(folder: Path) -> Path | None:
    """Find the model of a project: in the folder itself or in `sparse`, there the first by number; None without one."""
    numbered = [path for place in ("sparse", "colmap/sparse") for path in _folders(folder / place)]
    places = (folder, *numbered, folder / "sparse")
    return next((place for place in places if is_colmap(place)), None)


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(
        (path for path in place.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name)
    )


def read_colmap(folder: Path) -> tuple[PosedFrames, ...]:
    """Read a model's folder: the images of each camera of a rig, in the order of their names.

    Raises:
        ValueError: It holds no model, or a damaged one, in one sentence.
    """
    for suffix, read_cameras, read_images in (
        (".bin", _binary_cameras, _binary_images),
        (".txt", _text_cameras, _text_images),
    ):
        images, cameras = folder / f"images{suffix}", folder / f"cameras{suffix}"
        if images.is_file() and cameras.is_file():
            return _colmap_frames(read_cameras(cameras), list(read_images(images)), str(images))
    raise ValueError(f"{folder} holds no COLMAP model; one has images.bin and cameras.bin, or both as .txt")


_Image = tuple[str, tuple[float, ...], int]
"""Image name, quaternion and translation of world-to-camera, camera number."""
_Camera = PinholeCamera | str
"""A camera, or why it is none that can be used; it matters only where an image was taken with it."""


def _colmap_frames(cameras: dict[int, _Camera], images: list[_Image], source: str) -> tuple[PosedFrames, ...]:
    if not images:
        raise ValueError(f"{source} has no images; register some first")
    if missing := sorted({camera for _, _, camera in images} - cameras.keys()):
        raise ValueError(f"{source} names camera {missing[0]}, which its cameras file does not have")
    stored = np.array([pose for _, pose, _ in images], np.float64)
    if not np.isfinite(stored).all():
        raise ValueError(f"{source} has a pose that is not finite; register its images again")
    to_world = rotations(stored[:, :4], source).transpose(0, 2, 1)
    c2w = np.tile(np.eye(4), (len(images), 1, 1))
    c2w[:, :3, :3] = to_world
    c2w[:, :3, 3] = -(to_world @ stored[:, 4:, None])[..., 0]
    posed = []
    for (name, _, number), pose in zip(images, c2w, strict=True):
        camera = cameras[number]
        if isinstance(camera, str):
            raise ValueError(camera)
        posed.append(PosedImage(name, pose, camera, number))
    return by_camera(posed, source)


def _camera(model: str, size: tuple[int, int], parameters: Sequence[float], path: Path) -> _Camera:
    counts = dict(COLMAP_MODELS.values())
    if model not in PINHOLE_MODELS:
        return f"{path} has a camera of model {model[:40]!r}; undistort to PINHOLE first"
    if len(parameters) != counts[model]:
        return f"{path} has a {model} camera of {len(parameters)} numbers, not {counts[model]}; export the model again"
    fx, *rest = parameters
    fy, cx, cy = (fx, *rest[:2]) if model in ONE_FOCAL_LENGTH else rest[:3]
    first = counts["SIMPLE_PINHOLE" if model in ONE_FOCAL_LENGTH else "PINHOLE"]
    # COLMAP's coefficients are OpenCV's, in its order.
    distortion = coefficients(*parameters[first:])
    if not np.isfinite(distortion).all():
        return f"{path} has a camera with a distortion that is not finite; calibrate it again"
    return PinholeCamera(size, (fx, fy, cx, cy), distortion)


def _text_cameras(path: Path) -> dict[int, _Camera]:
    cameras = {}
    for line in text_lines(path):
        if not line.strip() or is_comment(line):
            continue
        row = fields(line)
        try:
            number, model, size = int(row[0]), row[1], (int(row[2]), int(row[3]))
            parameters = [float(value) for value in row[4:]]
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path} has a damaged line {line.strip()[:60]!r}") from error
        cameras[number] = _camera(model, size, parameters, path)
    return cameras


def _text_images(path: Path) -> Iterator[_Image]:
    """Yield images; each is followed by a line of its points, which may be empty, long, or not there at all."""
    expects_points, count = False, 0
    for line in text_lines(path):
        if is_comment(line):
            continue
        if expects_points and not _is_image(line):
            if line.strip() and not _is_points(line):
                raise ValueError(f"{path} has a damaged line {line.strip()[:60]!r}")
            expects_points = False
            continue
        if not line.strip():
            continue
        image = _text_image(line)
        if image is None:
            raise ValueError(f"{path} has a damaged line {line.strip()[:60]!r}")
        count += 1
        if count > MAX_FRAMES:
            raise ValueError(f"{path} has over {MAX_FRAMES} images; cut it")
        yield image
        expects_points = True


def _text_image(line: str) -> _Image | None:
    row = line.split(maxsplit=FEW_FIELDS - 1)
    try:
        int(row[0])
        return row[9].rstrip(), tuple(float(value) for value in row[1:8]), int(row[8])
    except (ValueError, IndexError):
        return None


def _is_image(line: str) -> bool:
    """Whether a line where points may stand is an image's: points have numbers alone, and three for each."""
    image = _text_image(line)
    return image is not None and (numbers(image[0].split(maxsplit=3)[:3]) is None or " " not in image[0])


def _is_points(line: str) -> bool:
    return numbers(line.split(maxsplit=3)[:3]) is not None


def _binary_cameras(path: Path) -> dict[int, _Camera]:
    def read(take: Callable[[str], tuple[Any, ...]], file: BinaryIO) -> tuple[int, _Camera]:
        number, kind, width, height = take("<iiQQ")
        if kind not in COLMAP_MODELS:
            raise ValueError(f"{path} has a camera of the unknown model {kind}; undistort to PINHOLE first")
        model, count = COLMAP_MODELS[kind]
        return number, _camera(model, (width, height), take(f"<{count}d"), path)

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
