"""Bundle folders appear whole or not at all, however the process ends that fills them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.files.bundle import SPEC_FILE
from export.folders import making_bundle, partial_folder

ROOT = Path(__file__).resolve().parent.parent
FILL = """
import os, signal, sys
from pathlib import Path
from export.folders import making_bundle
# As from a terminal: what a shell begins in the background would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
with making_bundle(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def filled_until(number: signal.Signals, destination: Path) -> list[Path]:
    """Fill a bundle in a process that gets a signal; returns what lies there afterwards."""
    command = [sys.executable, "-c", FILL, str(destination), str(int(number))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode != 0, ended.stderr
    return sorted(destination.parent.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_asked_to_end_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    assert filled_until(number, tmp_path / "bundle") == []


def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path: Path) -> None:
    (left,) = filled_until(signal.SIGKILL, tmp_path / "bundle")
    assert (left / "half").exists()
    (tmp_path / ".other.abcdefgh.partial").mkdir()
    with making_bundle(tmp_path / "bundle") as folder:
        assert not left.exists()
        (folder / SPEC_FILE).write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abcdefgh.partial", "bundle"]


def test_folders_in_use_are_left_to_their_owner(tmp_path: Path) -> None:
    with partial_folder(tmp_path / "bundle") as first, partial_folder(tmp_path / "bundle") as second:
        assert first.is_dir()
        assert second.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_set_aside_without_a_successor_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".bundle.abcdefgh.old"
    aside.mkdir()
    (aside / SPEC_FILE).write_text("the only one")
    with pytest.raises(RuntimeError, match="failed"), making_bundle(tmp_path / "bundle"):
        raise RuntimeError("failed")
    assert (tmp_path / "bundle" / SPEC_FILE).read_text() == "the only one"
    with making_bundle(tmp_path / "bundle") as folder:
        (folder / SPEC_FILE).write_text("its successor")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / SPEC_FILE).read_text() == "its successor"


def test_only_a_bundle_s_own_remains_are_touched(tmp_path: Path) -> None:
    foreign, own = tmp_path / ".bundle.v2.abcdefgh.old", tmp_path / ".bundle.abcdefgh.old"
    for folder in (foreign, own, tmp_path / "bundle"):
        folder.mkdir()
        (folder / SPEC_FILE).write_text(folder.name)
    with partial_folder(tmp_path / "bundle"):
        assert not own.exists()
    assert (tmp_path / "bundle" / SPEC_FILE).read_text() == "bundle"
    assert sorted(path.name for path in tmp_path.iterdir()) == [foreign.name, "bundle"]


def test_sigterm_means_what_it_meant_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with partial_folder(tmp_path / "bundle"):
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before
