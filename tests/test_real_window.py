"""The program is started as a player would, in a real window on a virtual display."""

import ctypes
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.playback.captures import read_photo_description
from engine.files.recording import read_recording

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 240.0
"""Bound on every wait: a program is started and drawn beside whatever else the machine has to do."""


def play_command(world: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "cli.app", "play", str(world), "--backend", "holodeck", *extra]


def plain_environ(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment with no display and a home of its own."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XDG_CONFIG_HOME")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    return environ | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)} | extra


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_without_a_display_play_says_so_in_one_sentence(worlds: Path, tmp_path: Path) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    result = subprocess.run(
        play_command(world),
        cwd=ROOT,
        env=plain_environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert result.returncode == 2
    assert "--headless" in result.stderr
    assert "Traceback" not in result.stderr
    assert "there is no display" in result.stderr


class ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, filled up to the size of its XEvent."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 12),
    )


class Desktop:
    """A virtual X display with a player's hands on it."""

    def __init__(self, folder: Path) -> None:
        read_end, write_end = os.pipe()
        self._server = subprocess.Popen(
            [
                "Xvfb",
                "-noreset",
                "-displayfd",
                str(write_end),
                "-screen",
                "0",
                "800x600x24",
                "-fbdir",
                str(folder),
            ],
            pass_fds=[write_end],
            stderr=subprocess.DEVNULL,
        )
        os.close(write_end)
        with os.fdopen(read_end) as numbers:
            self.display = f":{numbers.readline().strip()}"
        self._screen = folder / "Xvfb_screen0"

    def picture(self) -> str:
        """Return a hash of all pixels on the screen."""
        return hashlib.sha256(self._screen.read_bytes()).hexdigest()

    def is_still(self) -> bool:
        """Say whether something is on the screen and does not change."""
        before = self._screen.read_bytes()
        time.sleep(0.3)
        is_picture = len(set(before)) > 100
        return is_picture and self._screen.read_bytes() == before

    def do(self, *words: str) -> str:
        environ = os.environ | {"DISPLAY": self.display}
        done = subprocess.run(
            ["xdotool", *words], env=environ, capture_output=True, text=True, timeout=PATIENCE_S
        )
        return done.stdout.strip()

    def focused_window(self) -> int:
        """Return the window that has the keyboard; searching by name needs a window manager."""
        found = self.do("getwindowfocus")
        return int(found) if found.isdigit() else 0

    def close_window(self, window: int) -> None:
        """Press the window's close button, as a window manager passes it on."""
        x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        display = ctypes.c_void_p(x11.XOpenDisplay(self.display.encode()))
        atoms = [x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")]
        message = ClientMessage(type=33, window=window, message_type=atoms[0], format=32)
        message.data[0] = atoms[1]
        x11.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(message))
        x11.XCloseDisplay(display)

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(timeout=PATIENCE_S)


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline_s = time.perf_counter() + PATIENCE_S
    while not done():
        assert time.perf_counter() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Desktop]:
    if missing := [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed: no real window to test")
    (tmp_path / "screen").mkdir()
    desktop = Desktop(tmp_path / "screen")
    yield desktop
    desktop.close()


def test_a_real_window_walks_records_and_closes(desktop: Desktop, worlds: Path, tmp_path: Path) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    record = tmp_path / "walk.flaneur"
    environ = plain_environ(tmp_path, DISPLAY=desktop.display)
    program = subprocess.Popen(
        play_command(world, "--record", str(record)), cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: record.exists(), "the walk to begin")
        wait_until(lambda: desktop.focused_window() > 1, "the window to have the keyboard")
        # A picture changes by passing messages too, and a recording without a chunk is removed.
        desktop.do("keydown", "w")
        wait_until(lambda: record.stat().st_size > 12_000, "some chunks")
        desktop.do("keyup", "w")
        for key in ("Right", "space"):
            before = desktop.picture()
            desktop.do("keydown", key)
            wait_until(lambda before=before: desktop.picture() != before, f"the picture to answer {key}")
            desktop.do("keyup", key)
        desktop.do("key", "F12")
        pictures = tmp_path / "Pictures" / "Flaneur"
        wait_until(lambda: any(pictures.glob("[!.]*.png")), "the screenshot")
        desktop.close_window(desktop.focused_window())
        assert program.wait(timeout=PATIENCE_S) == 0
    finally:
        program.kill()
        _, complaints = program.communicate()
    assert "Traceback" not in complaints
    recording = read_recording(record)
    assert recording.complete
    moved = recording.chunks[-1].track.c2w[-1, :3, 3] - recording.track().c2w[0, :3, 3]
    assert np.linalg.norm(moved) > 0.2


def test_a_keyboard_alone_starts_walks_changes_settings_and_quits(desktop: Desktop, tmp_path: Path) -> None:
    environ = plain_environ(tmp_path, DISPLAY=desktop.display)
    command = [sys.executable, "-m", "cli.app", "play", "--backend", "holodeck"]
    program = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)
    pictures, settings = tmp_path / "Pictures" / "Flaneur", tmp_path / ".config" / "flaneur" / "settings.json"
    try:
        wait_until(lambda: desktop.focused_window() > 1, "the window to have the keyboard")
        # A key that comes before the first screen is drawn has nothing to choose from.
        wait_until(desktop.is_still, "the start screen")
        desktop.do("key", "Right", "Return")
        wait_until(lambda: photograph(desktop, pictures), "the walk to begin")
        start = read_photo_description(min(pictures.glob("[!.]*.png")))
        desktop.do("keydown", "w")
        wait_until(lambda: distance_m(start, photograph_again(desktop, pictures)) > 0.1, "steps ahead")
        desktop.do("keyup", "w", "key", "p", "Down", "Return", "Right", "Escape", "Escape")
        wait_until(settings.exists, "the settings to be kept")
        assert '"pace": 1.25' in settings.read_text()
        desktop.do("key", "p", "Up", "Return")
        assert program.wait(timeout=PATIENCE_S) == 0
    finally:
        program.kill()
        _, complaints = program.communicate()
    assert "Traceback" not in complaints


def distance_m(start: dict[str, Any], photo: Path) -> float:
    """Return how far from where one photo was taken another was, of the same world."""
    walked = read_photo_description(photo)
    assert walked["world"] == start["world"]
    return float(np.linalg.norm(np.array(walked["c2w"])[:3, 3] - np.array(start["c2w"])[:3, 3]))


def photograph(desktop: Desktop, pictures: Path) -> bool:
    """Press the key for a photo; say whether one is there by now."""
    desktop.do("key", "F12")
    time.sleep(0.2)
    return any(pictures.glob("[!.]*.png"))


def photograph_again(desktop: Desktop, pictures: Path) -> Path:
    """Take one more photo and return it."""
    before = set(pictures.glob("[!.]*.png"))
    wait_until(lambda: photograph(desktop, pictures) and set(pictures.glob("[!.]*.png")) != before, "a photo")
    return max(set(pictures.glob("[!.]*.png")) - before)


def test_a_real_window_goes_back_and_on_another_way_and_keeps_it(
    desktop: Desktop, worlds: Path, tmp_path: Path
) -> None:
    world, record = sorted(worlds.glob("*.world"))[0], tmp_path / "walk.flaneur"
    environ = plain_environ(tmp_path, DISPLAY=desktop.display)
    program = subprocess.Popen(
        play_command(world, "--record", str(record)), cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    )
    kept = tmp_path / "Pictures" / "Flaneur"
    try:
        wait_until(lambda: desktop.focused_window() > 1, "the window to have the keyboard")
        desktop.do("keydown", "w")
        wait_until(lambda: record.exists() and record.stat().st_size > 12_000, "some chunks")
        desktop.do("keyup", "w")
        desktop.do("keydown", "r")
        wait_until(desktop.is_still, "the film to be wound back to its beginning")
        desktop.do("keyup", "r")
        wait_until(lambda: (tmp_path / "walk-2.flaneur").exists(), "the branch")
        desktop.do("keydown", "d")
        begun = (tmp_path / "walk-2.flaneur").stat().st_size
        wait_until(lambda: (tmp_path / "walk-2.flaneur").stat().st_size > begun + 4000, "more chunks")
        for key, pattern in (("F5", "saves/*.state"), ("F8", "*.mp4")):
            desktop.do("key", key)
            wait_until(lambda pattern=pattern: any(kept.glob(pattern)), pattern)
        desktop.do("keyup", "d")
        desktop.close_window(desktop.focused_window())
        assert program.wait(timeout=PATIENCE_S) == 0
    finally:
        program.kill()
        _, complaints = program.communicate()
    assert "Traceback" not in complaints
    first, second = read_recording(record), read_recording(tmp_path / "walk-2.flaneur")
    assert first.complete
    assert second.complete
    shared = 0
    for one, other in zip(first.chunks, second.chunks, strict=False):
        if not np.array_equal(one.track.c2w, other.track.c2w):
            break
        shared += 1
    assert 0 < shared < len(first.chunks)
    assert shared < len(second.chunks)
