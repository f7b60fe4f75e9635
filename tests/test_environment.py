"""Nothing leaves the machine or is left on it unasked, and what it lacks does not matter or is one sentence."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli.arguments import known_folders
from client.setup.folders import path_for_message, pictures_dir, settings_file
from client.setup.settings import Settings, load_settings
from engine.camera.formats.track_files import convert
from engine.files.bundle import Bundle
from engine.files.world import World, find_world, write_world
from engine.machine.assets import worlds_dir

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "client", "engine", "evaluation", "export", "holodeck", "model", "training")


def flaneur(*arguments: str, home: Path | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with nothing of this user's environment but the path to programs."""
    base = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if home is not None:
        base["HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-m", "cli.app", *arguments],
        env=base | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )


def test_a_walk_leaves_an_empty_home_empty(toy_bundle: Bundle, toy_world: World, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    world = tmp_path / "toy.world"
    write_world(world, toy_world)
    arguments = (
        "play",
        str(world),
        "--engine",
        str(toy_bundle.path),
        "--headless",
        "--chunks",
        "1",
        "--json",
    )
    # Even where the user asked for the opposite: nothing leaves this machine.
    played = flaneur(*arguments, home=home, ORT_DISABLE_TELEMETRY="0")
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["backend"] == "onnxruntime"
    assert list(home.rglob("*")) == []


def test_whatever_loads_onnxruntime_has_loaded_our_engine_before():
    # The engine's package turns telemetry off; scripts and rooms that load the library themselves must import it first.
    loads = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.MULTILINE)
    engine_first = re.compile(r"^\s*(import engine|from engine)", re.MULTILINE)
    sources = [path for folder in (*ROOMS, "scripts") for path in (ROOT / folder).rglob("*.py")]
    loading = {path: text for path in sources if loads.search(text := path.read_text(encoding="utf-8"))}
    assert any("engine" in path.parts for path in loading)
    for path, text in loading.items():
        if path.relative_to(ROOT).parts[0] != "engine":
            first = engine_first.search(text)
            assert first is not None, path
            assert first.start() < loads.search(text).start(), path  # type: ignore[union-attr]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home and without an entry in the user database, as in many containers."""

    def unknown(uid: int) -> object:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_PICTURES_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_has_the_shipped_worlds_and_none_of_his_own(tmp_path: Path):
    assert known_folders() == [worlds_dir()]
    assert path_for_message(tmp_path / "a.world").startswith("a.world in ")
    for folder in (settings_file, pictures_dir):
        with pytest.raises(ValueError, match="set HOME"):
            folder()


def test_a_home_that_is_no_absolute_path_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "relative")
    assert all(folder.is_absolute() for folder in known_folders())


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of a Linux desktop")
@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ('XDG_PICTURES_DIR="$HOME/"', ""),
        ('XDG_PICTURES_DIR="$HOME"', ""),
        ('XDG_PICTURES_DIR="$HOME/Bil\\"der\\$"', 'Bil"der$'),
        ("XDG_PICTURES_DIR=$HOME/Bilder", "Bilder"),
        ('XDG_PICTURES_DIR="Bilder"', "Pictures"),
        ('# XDG_PICTURES_DIR="$HOME/no"', "Pictures"),
    ],
)
def test_shell_escapes_of_the_desktops_folders_are_undone(home: Path, line: str, folder: str):
    (home / ".config").mkdir()
    (home / ".config" / "user-dirs.dirs").write_text(line + "\n")
    assert pictures_dir() == home / folder / "Flaneur"


@pytest.mark.parametrize("value", ["$HOME/.cfg", "~/.cfg", "cfg", ""])
def test_a_folder_that_the_desktop_left_unexpanded_is_not_taken_by_its_letters(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str
):
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    monkeypatch.setenv("XDG_PICTURES_DIR", value)
    assert settings_file() == home / ".config" / "flaneur" / "settings.json"
    assert pictures_dir() == home / "Pictures" / "Flaneur"


def test_a_file_system_without_permissions_is_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for function in ("chmod", "fchmod"):
        monkeypatch.setattr(os, function, refuse)
    convert("w-8", tmp_path / "x.npy")
    assert [file.name for file in tmp_path.iterdir()] == ["x.npy"]


def test_folders_that_may_not_be_entered_hide_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    # As root everything may be entered, so the system's refusal is made here.
    closed, stat = tmp_path / "closed", os.stat

    def refuse(path: object, *arguments: object, **named: object) -> object:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(ValueError, match="no world called 'nowhere'"):
        find_world("nowhere", [closed, tmp_path])


def test_settings_in_a_closed_folder_are_the_defaults_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def refuse(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    settings, complaint = load_settings(tmp_path / "settings.json")
    assert settings == Settings()
    assert "Permission denied" in complaint


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_titles_that_a_terminal_cannot_show_do_not_end_the_command(
    toy_world: World, tmp_path: Path, encoding: str
):
    title = "M\u00fcnchen \u2603"
    path = tmp_path / "toy.world"
    write_world(path, replace(toy_world, info=toy_world.info.model_copy(update={"title": title})))
    shown = flaneur("world", "show", str(path), home=tmp_path, PYTHONIOENCODING=encoding)
    assert shown.returncode == 0, shown.stderr
    assert "\\u2603" in shown.stdout
