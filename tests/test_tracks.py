"""Action strings and camera track files: what comes back, and what is refused."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.camera.actions import format_actions, infer_actions, integrate_actions, parse_actions
from engine.camera.formats.track_files import convert, load_track, save_track
from engine.camera.integrator import rotation_x, rotation_y, rotation_z
from engine.camera.tracks import (
    Track,
    at_fps,
    check_intrinsics,
    hold,
    map_intrinsics,
    output_intrinsics,
    rebase,
    resample,
)

KEY_SETS = st.frozensets(st.sampled_from("wsadjlik"), max_size=4)
SEGMENTS = st.lists(st.tuples(KEY_SETS, st.integers(1, 9)), min_size=1, max_size=6)


def walk(text: str, version: str = "current") -> np.ndarray:
    return integrate_actions(parse_actions(text), fps=16.0, version=version)


def test_an_action_string_is_read_whatever_its_case_spaces_and_commas():
    frames = parse_actions(" W-2, aw - 1\uff0cnone-2 ,None-1")
    assert frames == [frozenset("w")] * 2 + [frozenset("aw")] + [frozenset()] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("w", "<keys>-<frames>"),
        ("-8", "<keys>-<frames>"),
        ("w-8,", "<keys>-<frames>"),
        ("x-8", "unknown key 'x'"),
        ("w-0", "duration '0'"),
        ("w-", "duration ''"),
        ("w-1.5", "duration '1.5'"),
        ("w-\u00b2", "duration"),
        ("w--3", "unknown key '-'"),
        ("w-999999999", "longer than"),
        ("w-" + "9" * 5000, "duration"),
    ],
)
def test_a_bad_action_string_is_refused_in_one_sentence(text: str, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        parse_actions(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@settings(deadline=None)
@given(SEGMENTS)
def test_keys_survive_being_written_and_read(segments: list[tuple[frozenset[str], int]]):
    frames = [held for held, num_frames in segments for _ in range(num_frames)]
    assert parse_actions(format_actions(frames)) == frames


@settings(max_examples=25, deadline=None)
@given(SEGMENTS, st.sampled_from(["current", "v1"]))
def test_poses_become_an_action_string_that_walks_them_again(
    segments: list[tuple[frozenset[str], int]], version: str
):
    frames = [held for held, num_frames in segments for _ in range(num_frames)]
    poses = integrate_actions(frames, 16.0, version)
    found = infer_actions(poses.astype(np.float32).astype(np.float64), 16.0, version)
    np.testing.assert_allclose(integrate_actions(found, 16.0, version), poses, atol=1e-3)


def test_the_simplest_keys_are_found_and_a_hand_held_pose_has_none():
    text = "w-30,wa-12,none-9,k-110,li-8"
    assert format_actions(infer_actions(walk(text), 16.0)) == text
    poses = walk("w-10")
    poses[6:, 0, 3] += 0.01
    with pytest.raises(ValueError, match="frame 6, so the track has no action string"):
        infer_actions(poses, 16.0)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_saved_track_comes_back_bit_for_bit(tmp_path: Path, suffix: str):
    track = Track(walk("wd-20,i-5"), np.tile([100.0, 90.0, 80.0, 48.0], (26, 1)), 16.0, (160, 96))
    path = tmp_path / f"walk{suffix}"
    save_track(track, path)
    loaded = load_track(path)
    np.testing.assert_array_equal(loaded.c2w, track.c2w)
    if suffix == ".npz":
        np.testing.assert_array_equal(loaded.intrinsics, track.intrinsics)
        assert (loaded.fps, loaded.image_size) == (16.0, (160, 96))
    assert [path.name for path in tmp_path.iterdir()] == [f"walk{suffix}"]


def test_a_track_converts_from_keys_to_poses_and_back(tmp_path: Path):
    convert("w-12,dw-6", tmp_path / "a.npz")
    convert(tmp_path / "a.npz", tmp_path / "b.npy")
    convert(tmp_path / "b.npy", tmp_path / "c.txt")
    assert (tmp_path / "c.txt").read_text() == "w-12,wd-6\n"
    np.testing.assert_array_equal(load_track(tmp_path / "c.txt").c2w, walk("w-12,dw-6"))


def bad_arrays() -> dict[str, tuple[np.ndarray, str]]:
    good = walk("w-4")
    nan, scaled, mirrored, far, perspective = (good.copy() for _ in range(5))
    nan[2, 0, 3] = np.nan
    scaled[3, :3, :3] *= 1.01
    mirrored[1, :3, 0] *= -1.0
    far[4, 0, 3] = 1e300
    perspective[0, 3, 2] = 0.5
    return {
        "nan": (nan, "not finite .* at frame 2"),
        "scaled": (scaled, "not rigid at frame 3"),
        "mirrored": (mirrored, "not rigid at frame 1"),
        "far": (far, "farther than .* at frame 4"),
        "perspective": (perspective, "not rigid at frame 0"),
        "wrong shape": (good[:, :3], r"shape \(5, 3, 4\)"),
        "empty": (good[:0], "shape"),
        "words": (np.array(["walk"]), "not numbers"),
        "complex": (good.astype(np.complex128), "not numbers"),
    }


@pytest.mark.parametrize("name", bad_arrays())
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_bad_poses_are_refused_in_one_sentence(tmp_path: Path, name: str, suffix: str):
    array, words = bad_arrays()[name]
    path = tmp_path / f"bad{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, c2w=array)
    with pytest.raises(ValueError, match=words) as caught:
        load_track(path)
    assert "\n" not in str(caught.value)


def test_a_pickled_array_is_never_loaded(tmp_path: Path):
    path = tmp_path / "pickle.npy"
    np.save(path, np.array([Explosive()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects are never loaded"):
        load_track(path)


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the pickle was loaded",))


def test_hostile_headers_are_refused_before_anything_is_allocated(tmp_path: Path):
    path = tmp_path / "huge.npy"
    for shape in ["(99999999999, 4, 4)", "(-1, 4, 4)", "(" * 3000, "(1000000, 4, 4)"]:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(ValueError, match=r"huge\.npy (holds|is)"):
            load_track(path)
    path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="not a NumPy array file"):
        load_track(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.getbasetemp()
    suffix = data.draw(st.sampled_from([".npy", ".npz"]))
    path = folder / f"damaged{suffix}"
    save_track(Track(walk("w-3")), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(ValueError):
        load_track(path)


def test_a_missing_or_unknown_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no track"):
        load_track(tmp_path / "none.npy")
    (tmp_path / "walk.mov").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds neither poses .* nor an action string"):
        load_track(tmp_path / "walk.mov")
    with pytest.raises(ValueError, match=r"use a file ending in \.npy"):
        save_track(Track(walk("w-1")), tmp_path / "walk.mov")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("frames.npy", b"")
    with pytest.raises(ValueError, match="no array 'c2w'; it has frames"):
        load_track(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="does not exist"):
        save_track(Track(walk("w-1")), tmp_path / "no" / "such" / "walk.npy")


def test_intrinsics_are_read_in_all_four_shapes():
    matrix = np.array([[100.0, 0.0, 80.0], [0.0, 90.0, 48.0], [0.0, 0.0, 1.0]])
    row = np.array([100.0, 90.0, 80.0, 48.0])
    expected = np.tile(row, (3, 1))
    for given_array in (matrix, np.tile(matrix, (3, 1, 1)), row, expected):
        np.testing.assert_array_equal(check_intrinsics(given_array, 3, "it"), expected)
    for bad in (row[:3], np.tile(row, (2, 1)), row * np.nan, -row, matrix.T):
        with pytest.raises(ValueError, match=r"^it "):
            check_intrinsics(bad, 3, "it")


def test_intrinsics_map_through_resize_and_centre_crop():
    mapped = map_intrinsics(np.array([[640.0, 640.0, 640.0, 352.0]]), (1280, 704), (160, 96))
    # 1280x704 covers 160x96 at 3/22: 175x96, of which 7 columns go on the left.
    np.testing.assert_allclose(mapped, [[640 * 175 / 1280, 640 * 96 / 704, 87.5 - 7, 48.0]])
    track = Track(walk("w-1"), np.tile([640.0, 640.0, 640.0, 352.0], (2, 1)))
    with pytest.raises(ValueError, match="add the width and height"):
        output_intrinsics(track, 160, 96)


def test_a_short_track_ends_in_holding_still_and_a_long_one_is_cut():
    track = Track(walk("w-4"))
    held = hold(track, 8).c2w
    np.testing.assert_array_equal(held[:5], track.c2w)
    np.testing.assert_array_equal(held[5:], np.tile(track.c2w[4], (3, 1, 1)))
    np.testing.assert_array_equal(hold(track, 3).c2w, track.c2w[:3])


def test_resampling_keeps_the_ends_and_turns_evenly():
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w[1, :3, :3] = rotation_y(0.8)
    c2w[1, :3, 3] = [4.0, 0.0, 2.0]
    track = resample(Track(c2w), 5)
    np.testing.assert_allclose(track.c2w[0], c2w[0], atol=1e-12)
    np.testing.assert_allclose(track.c2w[4], c2w[1], atol=1e-12)
    np.testing.assert_allclose(track.c2w[1, :3, :3], rotation_y(0.2), atol=1e-12)
    np.testing.assert_allclose(track.c2w[3, :3, 3], [3.0, 0.0, 1.5])
    assert at_fps(Track(walk("w-60"), fps=30.0), 16.0).num_frames == 33


def test_a_rebased_track_is_the_same_motion_from_another_start():
    start = np.eye(4)
    start[:3, :3] = rotation_y(1.0) @ rotation_z(0.1)
    start[:3, 3] = [1.0, -1.6, 2.0]
    poses = walk("wd-20")
    moved = rebase(poses, start)
    np.testing.assert_allclose(moved[0], start, atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(moved[0]) @ moved, poses, atol=1e-12)
    assert rebase(moved, moved[0]) is moved


@settings(deadline=None)
@given(st.floats(-3.0, 3.0), st.floats(-1.5, 1.5), st.floats(-3.0, 3.0), st.integers(2, 9))
def test_resampling_stays_rigid(yaw: float, pitch: float, roll: float, num_frames: int):
    c2w = np.tile(np.eye(4), (2, 1, 1))
    c2w[1, :3, :3] = rotation_y(yaw) @ rotation_x(pitch) @ rotation_z(roll)
    rotation = resample(Track(c2w), num_frames).c2w[:, :3, :3]
    identity = np.tile(np.eye(3), (num_frames, 1, 1))
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), identity, atol=1e-9)
