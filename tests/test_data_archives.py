"""Archives in SANA-WM's training format: written and read back equal; strangers' archives do no harm."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.archives.reader import ArchiveOptions, ClipArchives, sekai_game
from training.data.archives.sidecars import score_of
from training.data.archives.writer import write_archive
from training.data.clip import Clip, LeftOut, readable
from training.data.sets import open_set


def clip(name: str, seed: int = 0, stride: int = 4, num_latents: int = 3) -> Clip:
    rng = np.random.default_rng(seed)
    num_frames = 1 + stride * (num_latents - 1)
    c2w = np.tile(np.eye(4), (num_frames, 1, 1))
    c2w[:, :3, 3] = rng.standard_normal((num_frames, 3))
    return Clip(
        name=name,
        source="test",
        scene="square",
        caption=f"A square of {name}.",
        c2w=c2w,
        intrinsics=np.tile([100.0, 101.0, 80.0, 48.0], (num_frames, 1)),
        frame_size=(160, 96),
        fps=16.0,
        latents=rng.standard_normal((num_latents, 6, 3, 5)).astype(np.float16),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_archive(tmp_path / "set", "square", [clip("a", 1), clip("b", 2), clip("c", 3)])
    return tmp_path / "set"


def opened(folder: Path, **options) -> tuple[dict[str, Clip], list[LeftOut]]:
    left_out: list[LeftOut] = []
    source = open_set(folder, ArchiveOptions(**options))
    return {found.name: found for found in readable(source, left_out)}, left_out


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Unpack a zip, change its entries, pack it again."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


def test_what_is_written_is_read_back_equal(folder: Path):
    found, left_out = opened(folder)
    assert left_out == []
    for n, name in enumerate("abc", 1):
        written = clip(name, n)
        for what in ("c2w", "intrinsics", "latents"):
            np.testing.assert_array_equal(getattr(found[name], what), getattr(written, what))
        assert replace_arrays(found[name]) == replace_arrays(written)


def replace_arrays(clip: Clip) -> tuple:
    return clip.name, clip.scene, clip.caption, clip.frame_size, clip.fps, clip.temporal_stride


def test_equal_clips_make_equal_archives(folder: Path, tmp_path: Path):
    write_archive(tmp_path / "again", "square", [clip("a", 1), clip("b", 2), clip("c", 3)])
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(folder)).read_bytes()


def test_an_archive_that_fails_leaves_nothing_behind(tmp_path: Path):
    def clips():
        yield clip("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_archive(tmp_path, "square", clips())
    with pytest.raises(ValueError, match="two clips are called a"):
        write_archive(tmp_path, "square", [clip("a"), clip("a")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_public_layout_is_what_others_read(folder: Path):
    with np.load(folder / "raw" / "square_camera.npz", allow_pickle=False) as camera:
        assert camera["ids"].tolist() == ["a", "b", "c"]
        assert camera["ranges"].tolist() == [[0, 9], [9, 9], [18, 9]]
        assert camera["pose"].shape == (27, 4, 4)
        assert camera["intrinsics"].shape == (27, 4)
    with zipfile.ZipFile(folder / "latents" / "square.zip") as archive:
        z = np.load(io.BytesIO(archive.read("b.npz")))["z"]
    assert z.shape == (6, 3, 3, 5)
    with zipfile.ZipFile(folder / "raw" / "square.zip") as archive:
        info = json.loads(archive.read("b.json"))
    assert (info["width"], info["height"], info["prompt"]) == (160, 96, "A square of b.")


def test_lengths_are_multiplied_by_the_metric_scale(folder: Path):
    scales = {"a": {"median": 2.0, "count": 7}, "b": 0.5, "c": {"note": "none"}}
    (folder / "raw" / "square_metric_scale_stats.json").write_text(json.dumps(scales))
    found, _ = opened(folder)
    for name, n, scale in (("a", 1, 2.0), ("b", 2, 0.5), ("c", 3, 1.0)):
        np.testing.assert_allclose(found[name].c2w[:, :3, 3], scale * clip(name, n).c2w[:, :3, 3])


def test_scores_choose_clips_and_a_clip_without_a_score_is_rejected(folder: Path):
    lines = [{"key": "a", "score": 0.4}, {"key": "b", "score": 0.1}]
    (folder / "raw" / "square_dover.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found, left_out = opened(folder, filters={"_dover": (0.25, 1.0)})
    assert list(found) == ["a"]
    assert all(item.rejected for item in left_out)
    reasons = [item.reason for item in left_out]
    assert any("a score 0.1 of dover" in reason for reason in reasons)
    assert any("has no dover" in reason for reason in reasons)


def test_captions_are_drawn_by_their_weights_and_a_clip_keeps_its_own(folder: Path):
    long = {name: {"prompt": f"long {name}"} for name in "ab"}
    (folder / "raw" / "square_Long.json").write_text(json.dumps(long))
    found, _ = opened(folder, captions={"_Long": 1.0})
    assert [found[name].caption for name in "abc"] == ["long a", "long b", "A square of c."]
    mixed = [
        opened(folder, captions={"_Long": 0.5, "prompt": 0.5}, seed=s)[0]["a"].caption for s in range(12)
    ]
    assert set(mixed) == {"long a", "A square of a."}
    assert opened(folder, captions={"_Long": 0.5, "prompt": 0.5}, seed=3)[0]["a"].caption == mixed[3]


def test_a_clip_without_a_camera_is_rejected_or_stands_still(folder: Path):
    (folder / "raw" / "square_camera.npz").unlink()
    found, left_out = opened(folder)
    assert found == {}
    assert len(left_out) == 3
    found, left_out = opened(folder, needs_camera=False, temporal_stride=4)
    assert left_out == []
    np.testing.assert_array_equal(found["a"].c2w, np.tile(np.eye(4), (9, 1, 1)))
    np.testing.assert_array_equal(found["a"].intrinsics[0], [160, 96, 80, 48])


def test_latents_of_clips_cut_short_are_rejected_by_their_size(folder: Path):
    found, left_out = opened(folder, min_latent_bytes=10 << 20)
    assert found == {}
    assert [item.rejected for item in left_out] == [True] * 3
    assert sekai_game().min_latent_bytes == 10 << 20


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (3, 3.0),
        ([1.0, 2.0, None], 1.5),
        ({"count": 9, "dover_score": 0.5}, 0.5),
        ({"quality_pass": True}, 1.0),
        ({"words": "none"}, None),
        (float("nan"), None),
        ("7", None),
        (None, None),
    ],
)
def test_scores_are_found_as_the_public_data_writes_them(value, score):
    assert score_of(value) == score


def bad_latents(content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rewrite(folder / "latents" / "square.zip", lambda entries: entries.update({"b.npz": content}))

    return change


def bad_camera(**arrays: np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "raw" / "square_camera.npz"
        with np.load(path) as camera:
            kept = dict(camera)
        path.write_bytes(npz(**(kept | arrays)))

    return change


def nan_pose(folder: Path) -> None:
    path = folder / "raw" / "square_camera.npz"
    with np.load(path) as camera:
        arrays = dict(camera)
    arrays["pose"][12, 0, 3] = np.nan
    path.write_bytes(npz(**arrays))


def bad_description(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        rewrite(folder / "raw" / "square.zip", lambda entries: entries.update({"b.json": text.encode()}))

    return change


def bomb(folder: Path) -> None:
    """An entry of a few kilobytes that unpacks to 8 MB."""
    path = folder / "latents" / "square.zip"
    rewrite(path, lambda entries: entries.__delitem__("b.npz"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("b.npz", "w") as entry:
        for _ in range(8):
            entry.write(bytes(1 << 20))


def bomb_within(folder: Path) -> None:
    """A small .npz whose array claims and unpacks to far more."""
    file = io.BytesIO()
    np.savez_compressed(file, z=np.zeros((6, 3, 100, 1000), np.float16))
    bad_latents(file.getvalue())(folder)


def flipped(folder: Path) -> None:
    path = folder / "latents" / "square.zip"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("b.npz").header_offset
    content[offset + 300] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (bad_latents(b"no archive"), "not a readable .npz"),
        (bad_latents(npz(z=np.zeros((6, 3, 3, 5), np.int32))), "int32"),
        (bad_latents(npz(z=np.zeros((6, 3), np.float16))), "floats"),
        (bad_latents(npz(z=np.array([{}], object))), "never loaded"),
        (bad_latents(npz(z=np.full((6, 3, 3, 5), np.nan, np.float32))), "not finite"),
        (bad_latents(npz(z=np.full((6, 3, 3, 5), 1e9, np.float32))), "not finite"),
        (bad_latents(npz(z=np.zeros((6, 12, 3, 5), np.float16))), "9 poses for 12 latents"),
        (bomb, "claims 8 MB"),
        (bomb_within, "numbers are accepted"),
        (flipped, "cannot be read"),
        (nan_pose, "not finite"),
        (bad_description("{"), "cannot be read"),
        (bad_description("[" * 5000), "cannot be read"),
        (bad_description('{"width": -5, "height": 96}'), "number of pixels"),
        (bad_description('{"width": 1e99, "height": 96}'), "number of pixels"),
    ],
)
def test_a_broken_clip_is_named_skipped_and_counted(folder: Path, spoil: Callable[[Path], None], reason: str):
    spoil(folder)
    found, left_out = opened(folder, max_latent_bytes=1 << 20)
    assert sorted(found) == ["a", "c"]
    assert len(left_out) == 1
    assert not left_out[0].rejected
    assert reason in left_out[0].reason
    assert "b" in left_out[0].name


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_names_that_lead_out_of_an_archive_are_left_out(folder: Path, name: str):
    rewrite(folder / "raw" / "square.zip", lambda entries: entries.update({f"{name}.json": b"{}"}))
    rewrite(folder / "latents" / "square.zip", lambda entries: entries.update({f"{name}.npz": b""}))
    before = sorted(folder.parent.rglob("*"))
    found, left_out = opened(folder)
    assert sorted(found) == ["a", "b", "c"]
    assert ["leads out" in item.reason for item in left_out] == [True]
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "raw" / "square.zip").write_bytes(b"PK"), "not a readable archive"),
        (lambda f: (f / "latents" / "square.zip").write_bytes(b""), "not a readable archive"),
        (lambda f: (f / "latents" / "square.zip").unlink(), "has no latents"),
        (lambda f: (f / "raw" / "square_camera.npz").write_bytes(b"x"), "not a readable .npz"),
        (bad_camera(ranges=np.array([[0, -3], [0, 1], [0, 1]])), "cannot be"),
        (bad_camera(ids=np.array([{}, {}, {}], object)), "not words"),
        (lambda f: (f / "raw" / "square_metric_scale_stats.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_broken_archive_is_named_and_others_are_read(folder: Path, spoil, reason: str):
    write_archive(folder, "whole", [clip("d")])
    spoil(folder)
    found, left_out = opened(folder)
    assert list(found) == ["d"]
    assert len(left_out) == 1
    assert reason in left_out[0].reason
    assert "square" in left_out[0].reason


def test_poses_beyond_the_end_of_the_file_are_a_broken_clip(folder: Path):
    bad_camera(ranges=np.array([[0, 9], [1000, 9], [18, 9]]))(folder)
    found, left_out = opened(folder)
    assert sorted(found) == ["a", "c"]
    assert "has no rows" in left_out[0].reason


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no clips"):
        open_set(tmp_path)
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="holds no archives"):
        open_set(tmp_path)
    with pytest.raises(ValueError, match="holds no archives"):
        ClipArchives(tmp_path, tmp_path)
    assert replace(sekai_game(), seed=1).seed == 1
