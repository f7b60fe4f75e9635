"""Poses as people's programs write them: marks, separators, headers, units and orders that are told by what stands there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from engine.camera.formats.nerfstudio import OPENGL_TO_OPENCV
from engine.camera.formats.text_lines import MAX_LINE_CHARS, fields, read_lens
from engine.camera.formats.track_files import load_track, read_cameras, read_posed
from engine.camera.integrator import rotation_x, rotation_y
from engine.files.natural_order import natural_key

COUNT = 12
TUM_HEADER = "timestamp tx ty tz qx qy qz qw"
EUROC_HEADER = (
    "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"
)


def cameras(count: int = COUNT) -> np.ndarray:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    for n, pose in enumerate(c2w):
        pose[:3, :3] = rotation_y(0.05 * n) @ rotation_x(-0.02 * n)
        pose[:3, 3] = [0.1 * n, -1.6, 0.2 * n]
    return c2w


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation by less than half a turn."""
    w = 0.5 * np.sqrt(1.0 + np.trace(rotation))
    skew = rotation - rotation.T
    return np.array([w, *(np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (4.0 * w))])


def rows(start: int = 1_403_636_579, unit: int = 1, w_first: bool = False, between: str = " ") -> list[str]:
    """Lines of time, position and quaternion, twenty a second."""
    lines = []
    for n, pose in enumerate(cameras()):
        w, *xyz = quaternion(pose[:3, :3])
        time = f"{start + n / 20:.6f}" if unit == 1 else str(start * unit + n * unit // 20)
        turn = [w, *xyz] if w_first else [*xyz, w]
        lines.append(between.join([time, *(f"{value:.9f}" for value in (*pose[:3, 3], *turn))]))
    return lines


def check(path: Path, fps: float | None = 20.0) -> None:
    posed = read_posed(path)
    np.testing.assert_allclose(posed.track.c2w, cameras(), atol=1e-6)
    # A track is read alike wherever one is asked for.
    np.testing.assert_array_equal(load_track(path).c2w, posed.track.c2w)
    assert posed.track.fps == (None if fps is None else pytest.approx(fps, rel=1e-4))


TEXTS: dict[str, Callable[[], str]] = {
    "plain": lambda: "\n".join(rows()),
    "header": lambda: "\n".join([TUM_HEADER, *rows()]),
    "commented header": lambda: "\n".join(["# " + TUM_HEADER, *rows()]),
    "indented comment": lambda: "\n".join(["   # by a tool", "", *rows()]),
    "windows newlines": lambda: "\r\n".join(["# tool", *rows(), ""]),
    "tabs": lambda: "\n".join(rows(between="\t")),
    "commas": lambda: "\n".join(rows(between=",")),
    "commas and spaces": lambda: "\n".join(line + "," for line in rows(between=", ")),
    "decimal commas": lambda: "\n".join(line.replace(".", ",") for line in rows(between=";")),
    "nanoseconds of ORB-SLAM": lambda: "\n".join(rows(unit=10**9)),
    "microseconds": lambda: "\n".join(rows(unit=10**6)),
    "milliseconds": lambda: "\n".join(rows(unit=1000)),
    "EuRoC": lambda: "\n".join([EUROC_HEADER, *rows(unit=10**9, w_first=True, between=",")]),
    "EuRoC without header": lambda: "\n".join(rows(unit=10**9, w_first=True, between=",")),
    "EuRoC's states": lambda: "\n".join(
        line + ",0.1,0.2,0.3" * 3 for line in rows(unit=10**9, w_first=True, between=",")
    ),
    "quotes": lambda: "\n".join(
        '"' + line.replace(",", '","') + '"' for line in ["t,x,y,z,qx,qy,qz,qw", *rows(between=",")]
    ),
    "remarks behind numbers": lambda: "\n".join(line + "  # checked" for line in rows()),
    "w first by its header": lambda: "\n".join(["time,x,y,z,qw,qx,qy,qz", *rows(w_first=True, between=",")]),
    "nanoseconds by the header": lambda: "\n".join(
        ["timestamp_ns x y z q_x q_y q_z q_w", *rows(start=0, unit=10**9)]
    ),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_trajectories_are_told_by_what_stands_in_them(tmp_path: Path, name: str, encoding: str):
    path = tmp_path / "poses.txt"
    path.write_bytes(TEXTS[name]().encode(encoding))
    check(path)


@pytest.mark.parametrize("name", ["groundtruth.csv", "walk.tum", "poses.dat", "poses"])
def test_the_name_of_a_trajectory_does_not_matter(tmp_path: Path, name: str):
    (tmp_path / name).write_text("\n".join(rows(between=",")))
    check(tmp_path / name)


def test_a_remark_may_be_in_any_encoding(tmp_path: Path):
    (tmp_path / "poses.txt").write_bytes("\n".join(["# Stra\u00dfe", *rows()]).encode("latin-1"))
    check(tmp_path / "poses.txt")


def test_text_of_powershell_is_read(tmp_path: Path):
    (tmp_path / "poses.txt").write_bytes("\r\n".join(rows()).encode("utf-16"))
    check(tmp_path / "poses.txt")
    (tmp_path / "walk.txt").write_bytes("w-8,aw-8\r\n".encode("utf-8-sig"))
    assert load_track(tmp_path / "walk.txt").num_frames == 17


@pytest.mark.parametrize("rows_of", [12, 16])
def test_rows_of_matrices_are_poses_without_times(tmp_path: Path, rows_of: int):
    lines = [" ".join(f"{value:.9e}" for value in pose.ravel()[:rows_of]) for pose in cameras()]
    (tmp_path / "00.txt").write_text("\n".join(lines))
    check(tmp_path / "00.txt", fps=None)


def test_columns_may_stand_in_any_order_that_a_header_names(tmp_path: Path):
    lines = ["qw,qx,qy,qz,pos_x,pos_y,pos_z,quality,time [ms]"]
    for n, pose in enumerate(cameras()):
        lines.append(",".join(map(str, [*quaternion(pose[:3, :3]), *pose[:3, 3], 0.9, 50.0 * n])))
    (tmp_path / "poses.csv").write_text("\n".join(lines))
    check(tmp_path / "poses.csv")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3 4 5 6 7\n" * 3, "looks like poses of 7 numbers a line; expected are 8 numbers"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 1\n", r"the line 2, .* 8 numbers as above"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 lost 0 0 1\n", "the line 2"),
        ("1 0 0 0 0 0 0 1\n\n\n# late\n2 0 0 0 0 0 0 1 9\n", "the line 5"),
        ("1 2 3\n4 5 6\n", "holds neither poses"),
        ("A street\n", "holds neither poses"),
        ("", "holds neither poses"),
    ],
)
def test_no_line_is_dropped_and_what_cannot_be_told_is_named(tmp_path: Path, text: str, reason: str):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        load_track(tmp_path / "p.txt")
    assert str(tmp_path / "p.txt") in str(caught.value)


def write_colmap(
    folder: Path, names: list[str], points: str | None, camera: str = "7 PINHOLE 64 48 50 50 32 24"
) -> Path:
    """Write a model; `points` is the line after each image's, None leaves it out."""
    folder.mkdir(parents=True)
    lines = ["  # Image list", ""]
    for n, (name, pose) in enumerate(zip(names, cameras(len(names)), strict=True)):
        turn, shift = quaternion(pose[:3, :3].T), -pose[:3, :3].T @ pose[:3, 3]
        lines.append(" ".join(map(str, [n + 1, *turn, *shift, camera.split()[0], name])))
        lines += [] if points is None else [points]
    (folder / "images.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", newline="")
    (folder / "cameras.txt").write_text(f"\ufeff# Cameras\r\n{camera}\r\n", newline="")
    return folder


@pytest.mark.parametrize("points", ["10.5 20.5 -1 30 40 7", "10 20 -1 30 40 7 5 6 7 8 9 10", "", None])
def test_no_image_of_a_model_is_lost_with_its_points_or_without(tmp_path: Path, points: str | None):
    names = [f"{n} a.jpg" for n in range(COUNT)]
    posed = read_posed(write_colmap(tmp_path / "model", names, points))
    assert posed.names == tuple(names)
    np.testing.assert_allclose(posed.track.c2w, cameras(), atol=1e-9)


def test_points_of_any_number_are_passed_over(tmp_path: Path):
    long = "10.25 20.5 -1 " * MAX_LINE_CHARS
    assert read_posed(write_colmap(tmp_path / "model", ["1.jpg", "2.jpg"], long)).track.num_frames == 2


@pytest.mark.parametrize("points", ["1 2 -1 3 4 5", "", None])
def test_images_without_an_ending_are_no_points(tmp_path: Path, points: str | None):
    posed = read_posed(write_colmap(tmp_path / "model", [str(n) for n in range(COUNT)], points))
    assert posed.names == tuple(map(str, range(COUNT)))


def test_a_camera_that_lacks_a_number_is_named(tmp_path: Path):
    folder = write_colmap(tmp_path / "model", ["1.jpg"], "", camera="7 PINHOLE 64 48 50 50 32")
    with pytest.raises(ValueError, match="a PINHOLE camera of 3 numbers, not 4"):
        read_posed(folder)


def test_a_damaged_line_of_a_model_is_named(tmp_path: Path):
    folder = write_colmap(tmp_path / "model", ["1.jpg", "2.jpg"], "1 2 -1")
    text = (folder / "images.txt").read_text("utf-8-sig")
    (folder / "images.txt").write_text(text + "3 1 0 0\n")
    with pytest.raises(ValueError, match="damaged line '3 1 0 0'"):
        read_posed(folder)


@pytest.mark.parametrize("place", [".", "sparse", "sparse/0", "sparse/1", "colmap/sparse/0"])
def test_a_project_is_read_wherever_its_model_lies(tmp_path: Path, place: str):
    write_colmap(tmp_path / "walk" / place, ["1.jpg", "2.jpg"], "")
    assert read_posed(tmp_path / "walk").track.num_frames == 2


def frames(names: list[str], **values: object) -> dict[str, object]:
    poses = [(pose @ OPENGL_TO_OPENCV).tolist() for pose in cameras(len(names))]
    items = [{"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses, strict=True)]
    return {"frames": items, "fl_x": 50.0, "w": 64, "h": 48, **values}


def write_frames(path: Path, values: dict[str, object]) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8-sig")
    return path


def test_images_go_by_the_numbers_in_their_names(tmp_path: Path):
    names = [f"images/frame_{n}.png" for n in range(COUNT)]
    path = write_frames(tmp_path / "transforms.json", frames(names))
    np.testing.assert_allclose(read_posed(path).track.c2w, cameras(), atol=1e-12)
    model = write_colmap(tmp_path / "model", [f"{n}.jpg" for n in range(COUNT)], "")
    np.testing.assert_allclose(read_posed(model).track.c2w, cameras(), atol=1e-9)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["a10b2", "a2b10", "a2b9"], ["a2b9", "a2b10", "a10b2"]),
        (["IMG_2", "img_1", "IMG_10"], ["img_1", "IMG_2", "IMG_10"]),
        (["cam10/1", "cam2/20", "cam2/3"], ["cam2/3", "cam2/20", "cam10/1"]),
        (["x", "007", "7", ""], ["", "007", "7", "x"]),
    ],
)
def test_natural_order_counts(names: list[str], ordered: list[str]):
    assert sorted(names, key=natural_key) == ordered


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "EQUIRECTANGULAR", "FISHEYE624", "ORTHOPHOTO", "new"])
@pytest.mark.parametrize("sized", [True, False])
def test_lenses_that_are_no_pinholes_are_refused_by_name(tmp_path: Path, model: str, sized: bool):
    values = frames(["a.png"], camera_model=model)
    if not sized:
        del values["w"], values["h"]
    with pytest.raises(ValueError, match=f"{model.upper()}.*undistort"):
        read_posed(write_frames(tmp_path / "t.json", values))


def test_a_matrix_without_its_last_row_is_a_pose(tmp_path: Path):
    values = frames(["a.png", "b.png"])
    whole = read_posed(write_frames(tmp_path / "whole.json", values)).track.c2w
    for frame in cast("list[dict[str, Any]]", values["frames"]):
        frame["transform_matrix"] = frame["transform_matrix"][:3]
    np.testing.assert_array_equal(read_posed(write_frames(tmp_path / "t.json", values)).track.c2w, whole)


@pytest.mark.parametrize("flag", ["is_fisheye", "equirectangular"])
def test_flags_of_other_lenses_are_refused(tmp_path: Path, flag: str):
    with pytest.raises(ValueError, match=f"{flag} set.*undistort"):
        read_posed(write_frames(tmp_path / "t.json", frames(["a.png"], **{flag: True})))
    assert (
        read_posed(write_frames(tmp_path / "t.json", frames(["a.png"], **{flag: False}))).track.num_frames
        == 1
    )


def test_only_a_camera_that_took_an_image_matters(tmp_path: Path):
    folder = write_colmap(tmp_path / "model", ["1.jpg"], "")
    cameras_file = folder / "cameras.txt"
    cameras_file.write_text(cameras_file.read_text("utf-8-sig") + "8 FOV 64 48 1 1 1 1 1\n")
    assert read_posed(folder).track.num_frames == 1
    cameras_file.write_text("7 FOV 64 48 1 1 1 1 1\n")
    with pytest.raises(ValueError, match=r"'FOV'; undistort"):
        read_posed(folder)


def test_cameras_of_a_rig_are_kept_apart(tmp_path: Path):
    names = [f"cam{n % 2 + 1}/{n // 2}.jpg" for n in range(24)]
    first, second = read_cameras(write_frames(tmp_path / "t.json", frames(names)))
    assert (first.camera, second.camera) == ("cam1", "cam2")
    assert first.names == tuple(f"cam1/{n}.jpg" for n in range(12))
    np.testing.assert_allclose(second.track.c2w, cameras(24)[1::2], atol=1e-12)
    with pytest.raises(ValueError, match=r"2 cameras \(cam1, cam2\)"):
        load_track(tmp_path / "t.json")


def test_a_camera_for_each_image_is_still_one_film(tmp_path: Path):
    values = frames([f"{n}.jpg" for n in range(COUNT)])
    for n, frame in enumerate(values["frames"]):  # type: ignore[arg-type]
        frame["fl_x"] = 50.0 + n
    posed = read_posed(write_frames(tmp_path / "t.json", values))
    assert posed.track.intrinsics is not None
    np.testing.assert_allclose(posed.track.intrinsics[:, 0], 50.0 + np.arange(COUNT))


def test_an_angle_of_view_waits_for_the_size_of_the_images(tmp_path: Path):
    values = frames(["a", "b"], camera_angle_x=np.pi / 2)
    for key in ("fl_x", "w", "h"):
        del values[key]
    posed = read_posed(write_frames(tmp_path / "t.json", values))
    assert posed.track.intrinsics is None
    assert posed.intrinsics_of is not None
    np.testing.assert_allclose(posed.intrinsics_of((80, 60)), [[40.0, 40.0, 40.0, 30.0]] * 2)


@pytest.mark.parametrize(
    "text", ["50 50 32 24", "50,50,32,24", "# fx fy cx cy\r\n50\t50\n32 24\n", "50;50;32;24"]
)
def test_a_lens_is_read_as_people_write_it(tmp_path: Path, text: str):
    (tmp_path / "lens.txt").write_text("\ufeff" + text, encoding="utf-8")
    np.testing.assert_array_equal(read_lens(tmp_path / "lens.txt"), [50, 50, 32, 24])


def test_fields_are_parted_at_whatever_stands_between(tmp_path: Path):
    assert fields(" 1,2;3\t4 ") == ["1.2", "3", "4"]
    assert fields("1, 2 ,3,") == ["1", "2", "3"]
