"""What differs between Linux, Windows and macOS, on faked platforms."""

from __future__ import annotations

import configparser
import ctypes
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pygame
import pytest

from client.playback import resource_usage
from client.setup import folders
from client.ui.window import make_icon
from engine.files import atomic
from engine.machine import doctor, hardware
from export import folders as bundle_folders
from scripts import check_wheels


def test_windows_says_how_much_memory_there_is_and_is_free():
    def answer(pointer: Any) -> int:
        status = pointer._obj
        assert status.length == ctypes.sizeof(hardware.MemoryStatus) == 64
        status.total, status.available = 16 << 30, 6 << 30
        return 1

    status = hardware.windows_memory(SimpleNamespace(GlobalMemoryStatusEx=answer))
    assert status is not None
    assert (status.total, status.available) == (16 << 30, 6 << 30)


@pytest.mark.parametrize("kernel32", [lambda pointer: 0, lambda pointer: 1])
def test_on_windows_its_kernel_library_is_asked(
    monkeypatch: pytest.MonkeyPatch, kernel32: Callable[[Any], int]
):
    kernel = SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=kernel32))
    monkeypatch.setattr(ctypes, "windll", kernel, raising=False)
    monkeypatch.setattr(hardware.sys, "platform", "win32")
    expected = 0.0 if kernel32(None) else None
    assert hardware.available_memory_gb() == expected
    assert hardware.machine_bytes() == expected


def test_macos_says_how_much_memory_there_is_but_not_how_much_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(hardware.sys, "platform", "darwin")
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 16384}.__getitem__)
    assert hardware.machine_bytes() == 16 << 30
    assert hardware.available_memory_gb(tmp_path / "absent") is None
    assert doctor.check_memory(None).status == "ok"


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_cores_are_counted_where_no_affinity_is_known(monkeypatch: pytest.MonkeyPatch, system: str):
    monkeypatch.setattr(hardware.sys, "platform", system)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert hardware.num_cores() == 12


def test_on_windows_the_peak_is_unknown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory_bytes() is None
    assert resource_usage.memory_bytes() == 0


def test_macos_counts_the_peak_in_bytes(monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip("resource")
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(hardware.sys, "platform", "darwin")
    peak = hardware.peak_memory_bytes()
    assert peak is not None
    assert kilobytes <= peak < 2 * kilobytes


def test_memory_in_use_is_the_peak_where_there_is_no_proc(tmp_path: Path):
    assert resource_usage.memory_bytes(tmp_path / "absent") > 10 << 20


def test_windows_makes_bundles_without_file_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Windows locks no folders, so what another process may still be filling is left alone."""
    monkeypatch.setattr(bundle_folders.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    other = tmp_path / f".made.abcdefgh{bundle_folders.PARTIAL}"
    other.mkdir()
    with bundle_folders.making_bundle(tmp_path / "made") as partial:
        (partial / bundle_folders.SPEC_FILE).write_text("{}")
    assert (tmp_path / "made" / bundle_folders.SPEC_FILE).is_file()
    assert other.is_dir()


def test_files_are_copied_where_they_cannot_be_linked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links on this disk")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "weights.bin").write_bytes(b"weights")
    (tmp_path / "made").mkdir()
    bundle_folders.link_or_copy(tmp_path / "weights.bin", tmp_path / "made")
    assert (tmp_path / "made" / "weights.bin").read_bytes() == b"weights"


def test_a_file_system_without_permissions_is_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(path: Path, mode: int) -> None:
        raise OSError("no permissions here")

    monkeypatch.setattr(Path, "chmod", refuse)
    with atomic.replacing(tmp_path / "walk.npz") as file:
        file.write_bytes(b"walk")
    assert (tmp_path / "walk.npz").read_bytes() == b"walk"


@pytest.mark.parametrize(
    ("system", "name"), [("win32", "Flaneur"), ("darwin", "Flaneur"), ("linux", "flaneur")]
)
def test_settings_lie_under_the_name_that_the_system_expects(
    monkeypatch: pytest.MonkeyPatch, home: Path, system: str, name: str
):
    monkeypatch.setattr(folders.sys, "platform", system)
    assert folders.settings_file().parent.name == name


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_only_linux_is_asked_for_a_display(system: str):
    assert doctor.check_display({}, system).status == "ok"
    assert doctor.check_display({}, "linux").status == "missing"


def test_the_desktop_entry_starts_the_program_and_shows_its_icon():
    project = tomllib.loads((check_wheels.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    placed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    folder = check_wheels.ROOT / "desktop"
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(folder / "flaneur.desktop", encoding="utf-8")
    entry = parser["Desktop Entry"]
    assert entry["Type"] == "Application"
    assert entry["Exec"].split()[0] in project["project"]["scripts"]
    assert all(entry[name].endswith(";") for name in ("Categories", "Keywords"))
    assert placed["desktop/flaneur.desktop"] == "share/applications/flaneur.desktop"
    icon = f"{entry['Icon']}.png"
    assert placed[f"desktop/{icon}"] == f"share/icons/hicolor/256x256/apps/{icon}"
    shown = pygame.surfarray.array3d(pygame.image.load(folder / icon))
    np.testing.assert_array_equal(shown, pygame.surfarray.array3d(make_icon(256)))


def test_wheels_are_asked_for_by_every_base_dependency():
    project = tomllib.loads((check_wheels.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    call = check_wheels.command(("win_amd64",), "3.12", "nowhere", check_wheels.dependencies())
    assert set(project["dependencies"]) <= set(call)
    assert {"--dry-run", "--only-binary=:all:"} <= set(call)
