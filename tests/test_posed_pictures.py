"""Worlds of pictures that others posed: what is read, what is refused, and what they become."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.files.pictures import read_rgb
from engine.files.posed_pictures import TRANSFORMS, Z_UP_TO_Y_DOWN, read_posed_pictures
from engine.files.world import WorldInfo, list_worlds, memory_bytes, read_world, write_world
from engine.memory.summary import summarize
from engine.session.picture_world import fitted, lens_of, no_text, world_of_keyframes, world_of_photo
from tests.conftest import WEIGHTS_SHA256
from tests.guided import GuidedBackend, guided_spec

SIDE = 24


@pytest.fixture
def pictures() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    depth = rng.uniform(1, 9, (2, SIDE, SIDE)).round(3)
    depth[:, :4] = np.inf
    depth[:, 4:6] = 0
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w[1, :3, 3] = (1, -0.5, 2)
    color = rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    return {"color": color, "depth": depth, "c2w": c2w, "intrinsics": np.array([12.0, 12, 12, 12])}


@pytest.fixture
def scan(pictures: dict[str, Any], tmp_path: Path) -> Path:
    """A folder as nerfstudio has them: depth as millimetres, in .npy and 16-bit .png."""
    folder = tmp_path / "scan"
    folder.mkdir()
    frames = []
    for n, c2w in enumerate(pictures["c2w"]):
        cv2.imwrite(str(folder / f"{n}.png"), pictures["color"][n, ..., ::-1])
        millimetres = 1000 * pictures["depth"][n]
        name = f"{n}-depth.npy"
        np.save(folder / name, millimetres)
        if n == 1:
            name = f"{n}-depth.png"
            cv2.imwrite(str(folder / name), np.where(np.isinf(millimetres), 0, millimetres).astype(np.uint16))
        pose = np.linalg.inv(Z_UP_TO_Y_DOWN) @ c2w @ np.diag([1, -1, -1, 1])
        frames.append({"file_path": f"{n}.png", "depth_file_path": name, "transform_matrix": pose.tolist()})
    values = {"w": SIDE, "h": SIDE, "fl_x": 12, "frames": frames}
    (folder / TRANSFORMS).write_text(json.dumps(values))
    return folder


def rewrite(scan: Path, **changes: Any) -> None:
    values = json.loads((scan / TRANSFORMS).read_text())
    values["frames"][0] |= changes
    (scan / TRANSFORMS).write_text(json.dumps(values))


def test_both_forms_give_the_same_keyframes(pictures: dict[str, Any], scan: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "posed.npz", **pictures)
    for n, (left, right) in enumerate(
        zip(read_posed_pictures(scan), read_posed_pictures(tmp_path / "posed.npz"), strict=True)
    ):
        np.testing.assert_array_equal(left.color, right.color)
        np.testing.assert_allclose(left.c2w, right.c2w, atol=1e-12)
        below = slice(4 if n else 0, None)
        np.testing.assert_allclose(left.inverse_depth[below], right.inverse_depth[below], atol=1e-4)


def test_far_is_sky_and_zero_is_unknown(pictures: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "posed.npz", **pictures)
    first = read_posed_pictures(tmp_path / "posed.npz")[0].inverse_depth
    assert (first[:4] == 0).all()
    assert (first[4:6] == -1).all()
    np.testing.assert_allclose(first[6:], 1 / pictures["depth"][0, 6:], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"depth_file_path": "../../etc/passwd"}, "outside of its folder"),
        ({"file_path": "/etc/passwd"}, "outside of its folder"),
        ({"depth_file_path": None}, "no depth_file_path"),
        ({"depth_file_path": "0.png"}, "16 bits"),
        ({"file_path": "9.png"}, "there is no picture"),
        ({"file_path": TRANSFORMS}, "not a picture"),
    ],
)
def test_transforms_that_cannot_be_used_are_refused(
    scan: Path, changes: dict[str, Any], problem: str
) -> None:
    rewrite(scan, **changes)
    with pytest.raises(ValueError, match=problem) as caught:
        read_posed_pictures(scan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color", np.zeros((2, SIDE, SIDE), np.uint8)),
        ("depth", np.zeros((2, SIDE, SIDE + 1))),
        ("c2w", np.zeros((2, 4, 4))),
        ("c2w", np.eye(4)[None]),
        ("intrinsics", np.zeros(4)),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(
    pictures: dict[str, Any], name: str, value: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "posed.npz", **pictures | {name: value})
    with pytest.raises(ValueError, match=r"posed\.npz"):
        read_posed_pictures(tmp_path / "posed.npz")


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        read_posed_pictures(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".gif"])
def test_a_picture_cut_short_is_refused_or_read_in_part(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"photo{suffix}"
    cv2.imwrite(str(file), np.full((17, 31, 3), 200, np.uint8))
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with suppress(ValueError):
            assert read_rgb(file).shape == (17, 31, 3)


def test_a_picture_that_announces_gigabytes_is_refused_before_decoding(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    cv2.imwrite(str(file), np.zeros((8, 8, 3), np.uint8))
    raw = bytearray(file.read_bytes())
    raw[16:24] = (50000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="50000x50000; scale it down"):
        read_rgb(file)


def info() -> WorldInfo:
    return WorldInfo(name="made", title="Made", licence="x", model=WEIGHTS_SHA256)


def test_a_world_of_posed_pictures_begins_at_the_first(pictures: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "posed.npz", **pictures)
    keyframes, spec = read_posed_pictures(tmp_path / "posed.npz"), guided_spec()
    world = world_of_keyframes(info(), spec, GuidedBackend(), keyframes, no_text(spec), 60)
    write_world(tmp_path / "made.world", world)
    back = read_world(tmp_path / "made.world")
    np.testing.assert_array_equal(back.c2w, pictures["c2w"][0])
    assert back.first_frame.shape == (32, 64, 3)
    assert back.first_latent.shape == (4, 2, 4)
    assert len(back.keyframes) == 2
    (entry,) = list_worlds([tmp_path])
    assert entry.num_keyframes == 2
    assert 0 < memory_bytes(tmp_path / "made.world") < (tmp_path / "made.world").stat().st_size


def test_a_photo_becomes_a_memory_of_one_keyframe() -> None:
    spec = guided_spec()
    photo = np.full((90, 120, 3), 77, np.uint8)
    world = world_of_photo(info(), spec, GuidedBackend(), photo, no_text(spec), mirrored=False)
    (keyframe,) = world.keyframes
    assert keyframe.color.shape == (32, 64, 3)
    np.testing.assert_allclose(keyframe.inverse_depth, 0.25, atol=1e-4)
    np.testing.assert_array_equal(world.c2w, np.eye(4))


def test_photos_are_cropped_in_the_middle() -> None:
    photo = np.zeros((100, 300, 3), np.uint8)
    photo[:, 100:200] = 255
    assert (fitted(photo, 50, 50) == 255).mean() > 0.95


@pytest.mark.parametrize("fov_deg", [10, 170, float("nan")])
def test_impossible_lenses_are_refused(fov_deg: float) -> None:
    with pytest.raises(ValueError, match="--fov"):
        lens_of(fov_deg, 320, 192)


def test_a_summary_counts_what_keyframes_saw(pictures: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "posed.npz", **pictures)
    summary = summarize(read_posed_pictures(tmp_path / "posed.npz"))
    assert summary.num_keyframes == 2
    assert summary.num_positions == 2
    assert summary.sizes == {f"{SIDE}x{SIDE}": 2}
    assert 5 < summary.area_m2 < 200
    assert summary.map.count("^") == 2
    assert summarize([]).num_keyframes == 0
