"""Poses as other programs write them: each format gives the same cameras, and damage is one sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from engine.camera.formats.nerfstudio import OPENGL_TO_OPENCV
from engine.camera.formats.track_files import load_track, read_posed
from engine.camera.integrator import rotation_x, rotation_y
from engine.camera.tracks import Track, at_times

SIZE, LENS = (640, 480), (500.0, 510.0, 320.0, 240.0)
NAMES = ("a 0.png", "b.png", "c.png")


def cameras() -> np.ndarray:
    c2w = np.tile(np.eye(4), (3, 1, 1))
    for n, pose in enumerate(c2w):
        pose[:3, :3] = rotation_y(0.3 * n) @ rotation_x(-0.2 * n)
        pose[:3, 3] = [0.5 * n, -1.6, 2.0 + n]
    return c2w


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation by less than half a turn."""
    w = 0.5 * np.sqrt(1.0 + np.trace(rotation))
    skew = rotation - rotation.T
    return np.array([w, *(np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (4.0 * w))])


def write_nerfstudio(path: Path) -> Path:
    frames = [
        {"file_path": f"images/{name}", "transform_matrix": (pose @ OPENGL_TO_OPENCV).tolist()}
        for name, pose in zip(NAMES, cameras(), strict=True)
    ]
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy", "w", "h"), (*LENS, *SIZE), strict=True))
    # Frames stand in any order.
    path.write_text(json.dumps({**lens, "frames": frames[::-1]}))
    return path


def world_to_camera() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(quaternion(pose[:3, :3].T), -pose[:3, :3].T @ pose[:3, 3]) for pose in cameras()]


def write_colmap_text(folder: Path) -> Path:
    folder.mkdir()
    lines = ["# Image list"]
    for n, (name, (turn, shift)) in enumerate(zip(NAMES, world_to_camera(), strict=True)):
        lines += [" ".join(map(str, [n + 1, *turn, *shift, 7, name])), "1.0 2.0 -1" if n else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "cameras.txt").write_text(f"# Cameras\n7 PINHOLE 640 480 {' '.join(map(str, LENS))}\n")
    return folder


def write_colmap_binary(folder: Path) -> Path:
    folder.mkdir()
    camera = struct.pack("<QiiQQ4d", 1, 7, 1, *SIZE, *LENS)
    images = struct.pack("<Q", len(NAMES))
    for n, (name, (turn, shift)) in enumerate(zip(NAMES, world_to_camera(), strict=True)):
        images += struct.pack("<i7di", n + 1, *turn, *shift, 7) + name.encode() + b"\0"
        images += struct.pack("<Q", n) + bytes(24 * n)
    (folder / "cameras.bin").write_bytes(camera)
    (folder / "images.bin").write_bytes(images)
    return folder


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_nerfstudio, "transforms.json"),
        (write_colmap_text, "text"),
        (write_colmap_binary, "binary"),
    ],
)
def test_every_program_says_the_same_of_the_same_cameras(tmp_path: Path, write, name: str):
    posed = read_posed(write(tmp_path / name))
    assert posed.names is not None
    assert [Path(name).name for name in posed.names] == list(NAMES)
    np.testing.assert_allclose(posed.track.c2w, cameras(), atol=1e-9)
    assert posed.track.intrinsics is not None
    np.testing.assert_allclose(posed.track.intrinsics, [LENS] * 3)
    assert posed.track.image_size == SIZE
    # The same file is a track wherever a track is asked for.
    np.testing.assert_array_equal(load_track(tmp_path / name).c2w, posed.track.c2w)


@pytest.mark.parametrize("name", ["walk.tum", "groundtruth.txt"])
def test_tum_lines_have_times_and_the_rate_they_make(tmp_path: Path, name: str):
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for n, pose in enumerate(cameras()):
        w, *xyz = quaternion(pose[:3, :3])
        lines.append(" ".join(map(str, [100.0 + 0.1 * n, *pose[:3, 3], *xyz, w])))
    path = tmp_path / name
    path.write_text("\n".join(lines))
    posed = read_posed(path)
    np.testing.assert_allclose(posed.track.c2w, cameras(), atol=1e-9)
    assert posed.times_s is not None
    np.testing.assert_allclose(posed.times_s, [100.0, 100.1, 100.2])
    assert load_track(path).fps == pytest.approx(10.0)


def test_a_text_file_of_actions_is_still_actions(tmp_path: Path):
    (tmp_path / "walk.txt").write_text("w-8,aw-8\n")
    assert load_track(tmp_path / "walk.txt").num_frames == 17


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.json", "{", "not valid JSON"),
        ("t.json", "[]", "no list of frames"),
        ("t.json", '{"frames": [{"file_path": "a"}]}', "4x4 transform_matrix"),
        ("t.json", '{"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3]]}]}', "4x4"),
        ("t.tum", "1 2 3\n", "3 numbers a line; expected are 8 numbers"),
        ("t.tum", "1 0 0 0 0 0 0 nan\n", "finite"),
        ("t.tum", "2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "do not rise"),
        ("t.tum", "1 0 0 0 0 0 0 5\n", "not of length 1"),
        ("t.tum", "", "holds 0 poses"),
    ],
)
def test_damaged_poses_are_refused_in_one_sentence(tmp_path: Path, name: str, text: str, reason: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        read_posed(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("keep", [4, 8, 30, 70, 100])
def test_a_colmap_model_that_is_cut_short_is_refused(tmp_path: Path, keep: int):
    folder = write_colmap_binary(tmp_path / "model")
    path = folder / "images.bin"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cut short or damaged"):
        read_posed(folder)


def test_a_colmap_model_that_claims_too_much_is_refused(tmp_path: Path):
    folder = write_colmap_binary(tmp_path / "model")
    (folder / "images.bin").write_bytes(struct.pack("<Q", 1 << 60) + bytes(100))
    with pytest.raises(ValueError, match="claims"):
        read_posed(folder)


def test_a_fisheye_lens_is_no_pinhole(tmp_path: Path):
    folder = write_colmap_text(tmp_path / "model")
    (folder / "cameras.txt").write_text("7 OPENCV_FISHEYE 640 480 1 1 1 1 0 0 0 0\n")
    with pytest.raises(ValueError, match="undistort"):
        read_posed(folder)


def test_poses_between_two_are_on_the_way_and_stand_still_outside():
    track = Track(cameras())
    at = at_times(track, np.array([10.0, 11.0, 13.0]), np.array([9.0, 10.5, 11.0, 12.0, 14.0]))
    np.testing.assert_allclose(at.c2w[0], track.c2w[0])
    np.testing.assert_allclose(at.c2w[1, :3, 3], track.c2w[:2, :3, 3].mean(0))
    np.testing.assert_allclose(at.c2w[2], track.c2w[1], atol=1e-12)
    np.testing.assert_allclose(at.c2w[3, :3, 3], track.c2w[1:, :3, 3].mean(0))
    np.testing.assert_allclose(at.c2w[4], track.c2w[2], atol=1e-12)
