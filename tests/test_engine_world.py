from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.world import World, WorldInfo, find_world, list_worlds, read_world, write_world
from engine.machine.assets import assets_dir, find_bundle


@pytest.fixture
def file(toy_world: World, tmp_path: Path) -> Path:
    path = tmp_path / "toy.world"
    write_world(path, toy_world)
    return path


def rewrite_header(file: Path, change: Any) -> None:
    """Let `change` edit the parsed safetensors header, and put it back before the same data."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def rewrite_info(file: Path, **changes: Any) -> None:
    def change(header: dict[str, Any]) -> None:
        info = json.loads(header["__metadata__"]["world"]) | changes
        header["__metadata__"]["world"] = json.dumps(info)

    rewrite_header(file, change)


def test_a_world_comes_back_as_it_was_written(toy_world: World, file: Path) -> None:
    world = read_world(file)
    assert world.info == toy_world.info
    for field in fields(World):
        value = getattr(toy_world, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(world, field.name), value)
            assert getattr(world, field.name).dtype == value.dtype
    assert world.path == file
    assert len(world.sha256) == 64
    assert world.frame_size == (24, 16)


def test_every_shortened_world_is_refused(file: Path) -> None:
    raw = file.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, *range(0, len(raw), 97), len(raw) - 1}:
        file.write_bytes(raw[:length])
        with pytest.raises(SpecMismatch):
            read_world(file)


def test_a_tail_behind_the_tensors_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SpecMismatch, match="tail"):
        read_world(file)


@pytest.mark.parametrize("length", [0, 1, (1 << 20) + 1, (1 << 63) - 1, (1 << 64) - 1])
def test_a_hostile_header_length_allocates_nothing(file: Path, length: int) -> None:
    file.write_bytes(length.to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    try:
        with pytest.raises(SpecMismatch, match="not a world file"):
            read_world(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shape",
    [[1 << 40, 1 << 40], [1 << 39, 8], [-1, 6], [10**400, 1], [1.5, 6], [True, 6], ["5", 6], "56", None],
)
def test_a_hostile_shape_allocates_nothing(file: Path, shape: Any) -> None:
    rewrite_header(file, lambda header: header["text"].update(shape=shape))
    tracemalloc.start()
    try:
        with pytest.raises(SpecMismatch):
            read_world(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_tensors_that_overlap_are_refused(file: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        header["first_frame"]["data_offsets"] = [0, 16 * 24 * 3]

    rewrite_header(file, change)
    with pytest.raises(SpecMismatch, match="damaged"):
        read_world(file)


@pytest.mark.parametrize("junk", [b"[" * 1000, b"null", b'{"a":', b"\xff\xfe"])
def test_a_header_of_junk_is_refused(file: Path, junk: bytes) -> None:
    file.write_bytes(len(junk).to_bytes(8, "little") + junk)
    with pytest.raises(SpecMismatch, match="damaged"):
        read_world(file)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 3}, "format_version"),
        ({"surprise": 1}, "surprise"),
        ({"title": "\x1b[31mred"}, "title"),
        ({"title": ""}, "title"),
        ({"caption": "a" * 3000}, "caption"),
        ({"name": "../../up"}, "name"),
        ({"place": "../../up"}, "place"),
        ({"speed_scale": 0}, "speed_scale"),
        ({"model": "unknown"}, "model"),
    ],
)
def test_a_description_that_breaks_a_rule_is_refused_by_name(file: Path, changes: Any, reason: str) -> None:
    rewrite_info(file, **changes)
    with pytest.raises(SpecMismatch, match=reason) as caught:
        read_world(file)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first_latent", np.full((4, 2, 3), np.nan, np.float32)),
        ("text", np.full((5, 6), np.inf, np.float32)),
        ("text_mask", np.ones(4, np.float32)),
        ("intrinsics", np.array([0, 12, 12, 8], np.float32)),
        ("intrinsics", np.array([12, 12, 1200, 8], np.float32)),
        ("intrinsics", np.ones(3, np.float32)),
        ("first_frame", np.zeros((16, 24, 1), np.uint8)),
        ("c2w", np.zeros((4, 4))),
        ("c2w", np.diag([1.0, 1.0, -1.0, 1.0])),
        ("c2w", np.diag([2.0, 2.0, 2.0, 1.0])),
    ],
)
def test_bad_values_are_never_written(toy_world: World, tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(SpecMismatch, match=f"({name}|pose)"):
        write_world(tmp_path / "bad.world", replace(toy_world, **{name: value}))
    assert list(tmp_path.iterdir()) == []


def test_bad_values_are_refused_on_reading(toy_world: World, file: Path) -> None:
    raw = file.read_bytes()
    latent = toy_world.first_latent.tobytes()
    file.write_bytes(raw.replace(latent, np.full_like(toy_world.first_latent, np.nan).tobytes()))
    with pytest.raises(SpecMismatch, match=r"first_latent .* NaN"):
        read_world(file)


def test_an_interrupted_write_leaves_the_old_world(
    toy_world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_world(file, replace(toy_world, text=toy_world.text + 1))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    toy_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fill(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(ValueError, match="No space left on device"):
        write_world(tmp_path / "new.world", toy_world)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_a_giant_is_no_world(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.world")
    with pytest.raises(SpecMismatch, match="no world file"):
        read_world(tmp_path / "pipe.world")
    with (tmp_path / "giant.world").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(SpecMismatch, match="MB"):
        read_world(tmp_path / "giant.world")


def test_the_list_shows_broken_worlds_with_their_problem(toy_world: World, file: Path) -> None:
    (file.parent / "broken.world").write_bytes(b"junk")
    broken, toy = list_worlds([file.parent, file.parent / "absent"])
    assert (toy.name, toy.title, toy.path, toy.problem) == ("toy", "A toy", file, "")
    assert "not a world file" in broken.problem


def test_a_world_is_found_by_name_and_by_path(file: Path) -> None:
    assert find_world("toy", [file.parent]).name == "toy"
    assert find_world(str(file), []).name == "toy"


def test_an_unknown_world_lists_the_known_ones(file: Path) -> None:
    with pytest.raises(ValueError, match="no world called 'nowhere'; the worlds here: toy"):
        find_world("nowhere", [file.parent])
    with pytest.raises(ValueError, match="none are installed"):
        find_world("nowhere", [])


def test_a_world_written_under_another_suffix_is_refused(toy_world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.world"):
        write_world(tmp_path / "toy.zip", toy_world)


def test_info_keeps_to_its_own_keys() -> None:
    with pytest.raises(ValueError, match="extra"):
        WorldInfo.model_validate({"name": "a", "title": "b", "licence": "c", "model": "0" * 64, "extra": 1})


def test_a_bundle_is_found_by_folder_and_an_unknown_one_is_explained(toy_bundle: Bundle) -> None:
    assert find_bundle(str(toy_bundle.path)) == toy_bundle
    with pytest.raises(ValueError, match="no bundle called 'nothing'"):
        find_bundle("nothing")
    assert assets_dir().name == "assets"
