"""Worlds of one's own are renamed and deleted by name; shipped ones and other files are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli.world
from engine.files.own_worlds import delete_world, own_world_file, rename_world
from engine.files.world import read_world
from engine.machine.assets import worlds_dir
from tests.player import make_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path, "town")


def test_a_renamed_world_is_the_same_under_another_name(world: Path, tmp_path: Path) -> None:
    before = read_world(world)
    renamed = rename_world(own_world_file("town", [tmp_path]), "My walk")
    assert not world.exists()
    assert own_world_file(renamed.stem, [tmp_path]) == renamed
    assert read_world(renamed).sha256 == before.sha256, "what was saved in it still fits"


def test_a_name_that_is_taken_is_refused(world: Path, tmp_path: Path) -> None:
    other = make_world(tmp_path, "night")
    with pytest.raises(ValueError, match="night"):
        rename_world(world, "night")
    assert world.exists()
    assert other.exists()


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
