"""Worlds of one's own are renamed and deleted by name; shipped ones and other files are left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli.world
from engine.files.own_worlds import (
    begun_stem,
    begun_title,
    delete_world,
    file_name,
    own_world_file,
    rename_world,
)
from engine.files.world import find_made_in, read_world
from engine.machine.assets import worlds_dir
from tests.player import make_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path, "town")


def test_a_renamed_world_is_the_same_under_another_name(world: Path, tmp_path: Path) -> None:
    before = read_world(world)
    renamed = rename_world(own_world_file("town", [tmp_path]), "My walk", [tmp_path])
    assert not world.exists()
    assert own_world_file(renamed.stem, [tmp_path]) == renamed
    after = read_world(renamed)
    assert after.sha256 == before.sha256, "what was saved in it still fits"
    assert after.title == "My walk"
    assert before.title != "My walk"
    assert find_made_in("town", before.sha256, [tmp_path]) == renamed, "recordings of it are found"


def test_a_name_that_is_taken_is_refused(world: Path, tmp_path: Path) -> None:
    other = make_world(tmp_path, "night")
    with pytest.raises(ValueError, match="Night"):
        rename_world(world, "Night", [tmp_path])
    with pytest.raises(ValueError, match="canyon"):
        rename_world(world, "canyon", [worlds_dir(), tmp_path])
    assert world.exists()
    assert other.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("B\u00e4ckerei am Morgen", "B\u00e4ckerei am Morgen"),
        ("a/b\\c: d?", "a b c d"),
        ("..hidden.world", "hidden"),
        ("--yes", "yes"),
        ("\U0001f600 " + "\u00e9" * 300, None),
    ],
)
def test_any_text_becomes_a_name_that_a_file_can_bear(text: str, name: str | None, world: Path) -> None:
    found = file_name(text)
    assert name in (None, found)
    renamed = rename_world(world, text, [])
    assert renamed.is_file()
    assert renamed.stem == found


@pytest.mark.parametrize("text", ["", " ", "...", "con", "LPT1.txt", "/"])
def test_what_no_file_can_be_called_is_refused(text: str, world: Path) -> None:
    with pytest.raises(ValueError, match=r"name of a file|Windows keeps"):
        rename_world(world, text, [])
    assert world.exists()


def test_a_world_begun_in_a_walk_is_named_by_place_and_time(world: Path) -> None:
    when = datetime(2026, 11, 29, 1, 45, 7, tzinfo=UTC)
    town = read_world(world)
    assert begun_stem(town) == "town"
    title = begun_title(town, when)
    assert title == f"{town.title}, 29 Nov, 01:45"
    begun = replace(
        town, info=town.info.model_copy(update={"name": "town-20261129-014507-2", "title": title})
    )
    again = replace(begun, path=None)
    assert begun_stem(again) == "town"
    assert begun_title(again, when) == title


def test_a_damaged_world_can_be_deleted_by_its_name(world: Path, tmp_path: Path) -> None:
    world.write_bytes(b"no world")
    delete_world(own_world_file("town", [tmp_path]))
    assert not world.exists()


@pytest.mark.parametrize("name", ["town", str(worlds_dir() / "town.world")])
def test_a_shipped_world_is_left_alone(name: str) -> None:
    with pytest.raises(ValueError, match="shipped"):
        own_world_file(name, [worlds_dir()])


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "nowhere.world"])
def test_what_is_no_world_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="there is no world"):
        own_world_file(name, [tmp_path])


def test_the_command_asks_before_it_deletes(world: Path) -> None:
    kept = CliRunner().invoke(cli.world.app, ["delete", str(world)], input="n\n")
    assert kept.exit_code != 0
    assert world.exists()
    deleted = CliRunner().invoke(cli.world.app, ["delete", str(world), "--yes", "--json"])
    assert deleted.exit_code == 0
    assert not world.exists()
