"""Distorted lenses: what files say of them is read, and their pictures are undistorted."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.camera.formats.nerfstudio import OPENGL_TO_OPENCV
from engine.camera.formats.track_files import read_cameras
from engine.camera.lens import undistort, undistorted_intrinsics
from engine.files.posed_pictures import read_posed_pictures
from training.data.videos.folder import VideoFolder, VideoOptions

SIZE = 96, 64
LENS = (70.0, 71.0, 49.0, 31.0)
BARREL = (-0.12, 0.03, 0.002, -0.001, 0.0, 0.0, 0.0, 0.0)
PINCUSHION = (0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
NUM_IMAGES = 17


def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What is seen in a direction x / z, y / z; smooth, so that it can be sampled anywhere."""
    waves = (np.sin(9 * x + 2 * y), np.sin(8 * y), np.cos(5 * x - 7 * y))
    return np.stack([127.5 + 100 * wave for wave in waves], -1).round().astype(np.uint8)


def pixel_centres() -> tuple[np.ndarray, ...]:
    return tuple(np.meshgrid(*(np.arange(side) + 0.5 for side in SIZE)))


def taken(distortion: tuple[float, ...]) -> np.ndarray:
    """A picture of the scene through a distorted lens, [H, W, 3]."""
    u, v = pixel_centres()
    fx, fy, cx, cy = LENS
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
    x, y = (
        cv2.undistortPoints(pixels, matrix, np.array(distortion))
        .reshape(SIZE[1], SIZE[0], 2)
        .transpose(2, 0, 1)
    )
    return scene(x, y)


def pinhole(intrinsics: np.ndarray) -> np.ndarray:
    """The same picture through a pinhole."""
    fx, fy, cx, cy = intrinsics
    u, v = pixel_centres()
    return scene((u - cx) / fx, (v - cy) / fy)


def error(picture: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(picture.astype(float) - truth).mean())


@pytest.mark.parametrize("distortion", [BARREL, PINCUSHION])
def test_an_undistorted_picture_is_what_a_pinhole_sees(distortion: tuple[float, ...]) -> None:
    lens, coefficients = np.array([LENS]), np.array([distortion])
    new = undistorted_intrinsics(lens, coefficients, SIZE)[0]
    flat = undistort(taken(distortion), lens[0], coefficients[0], new)
    assert error(flat, pinhole(new)) < 1.5
    assert error(taken(distortion), pinhole(lens[0])) > 3.5, "it was bent before"


def test_a_lens_without_distortion_leaves_pictures_as_they_are() -> None:
    lens, none = np.array([LENS]), np.zeros((1, 8))
    np.testing.assert_array_equal(undistorted_intrinsics(lens, none, SIZE), lens)
    picture = taken(PINCUSHION)
    assert undistort(picture, lens[0], none[0], lens[0]) is picture


def test_a_distortion_that_folds_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be undone"):
        undistorted_intrinsics(np.array([LENS]), np.array([[-3.0, *(0.0,) * 7]]), SIZE)


def write_colmap(folder: Path, camera: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"1 {camera}\n")
    lines = [f"{n + 1} 1 0 0 0 {-n} 0 0 1 {n:03d}.png\n\n" for n in range(NUM_IMAGES)]
    (folder / "images.txt").write_text("".join(lines))


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ("PINHOLE 96 64 70 71 49 31", None),
        ("OPENCV 96 64 70 71 49 31 0 0 0 0", None),
        ("SIMPLE_RADIAL 96 64 70 49 31 0.1", (0.1, 0, 0, 0, 0, 0, 0, 0)),
        ("RADIAL 96 64 70 49 31 0.1 0.2", (0.1, 0.2, 0, 0, 0, 0, 0, 0)),
        ("OPENCV 96 64 70 71 49 31 0.1 0.2 0.3 0.4", (0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0)),
        (
            "FULL_OPENCV 96 64 70 71 49 31 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8",
            (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        ),
    ],
)
def test_every_pinhole_model_of_colmap_brings_its_distortion(
    camera: str, expected: tuple[float, ...] | None, tmp_path: Path
) -> None:
    write_colmap(tmp_path, camera)
    (part,) = read_cameras(tmp_path)
    if expected is None:
        assert part.distortion is None
    else:
        assert part.distortion is not None
        assert part.distortion.tolist() == [list(map(float, expected))] * NUM_IMAGES


def write_nerfstudio(folder: Path, **lens: float) -> None:
    """A capture of pictures through the distorted lens, each with its depth."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for n in range(NUM_IMAGES):
        name = f"images/{n:03d}.png"
        cv2.imwrite(str(folder / name), taken(BARREL)[..., ::-1])
        np.save(folder / f"{n:03d}.npy", np.full(SIZE[::-1], 1000.0 + 100 * n))
        pose = np.eye(4)
        pose[0, 3] = n
        matrix = (pose @ OPENGL_TO_OPENCV).tolist()
        frames.append({"file_path": name, "depth_file_path": f"{n:03d}.npy", "transform_matrix": matrix})
    camera = dict(zip(("fl_x", "fl_y", "cx", "cy", "w", "h"), (*LENS, *SIZE), strict=True))
    values = {**camera, "camera_model": "OPENCV", **lens, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(values))


DISTORTED = dict(zip(("k1", "k2", "p1", "p2"), BARREL, strict=False))


def test_clips_of_a_distorted_capture_are_undistorted(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "films" / "walk", **DISTORTED)
    films = VideoFolder(tmp_path / "films", VideoOptions(SIZE, min_frames=5))
    assert films.left_out == []
    clip = films[0]
    assert clip.frames is not None
    assert clip.intrinsics is not None
    np.testing.assert_array_equal(clip.intrinsics, np.tile(clip.intrinsics[0], (NUM_IMAGES, 1)))
    assert clip.intrinsics[0, 0] != pytest.approx(LENS[0])
    assert error(clip.frames[3], pinhole(clip.intrinsics[3])) < 1.5
    before = films.content(0)
    write_nerfstudio(tmp_path / "others" / "walk")
    straight = VideoFolder(tmp_path / "others", VideoOptions(SIZE, min_frames=5))
    np.testing.assert_allclose(straight[0].intrinsics[0], LENS)
    assert straight.content(0) != before


def test_keyframes_of_a_distorted_capture_are_undistorted(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "scan", **DISTORTED)
    keyframe = read_posed_pictures(tmp_path / "scan")[2]
    assert error(keyframe.color, pinhole(np.asarray(keyframe.intrinsics, np.float64))) < 1.5


def test_a_coefficient_that_no_pinhole_has_is_named(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path / "walk", k4=0.1)
    with pytest.raises(ValueError, match="k4"):
        read_cameras(tmp_path / "walk" / "transforms.json")
