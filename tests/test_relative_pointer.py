"""A pointer turns the view by how far it moved, whether its device reports motion or positions."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.input.relative_pointer import RelativePointer

AT = (400.0, 300.0)
PATIENCE_S = 60.0
"""Bound on the wait for a server that starts beside whatever else the machine has to do."""


def moved(pointer: RelativePointer, reports: list[tuple[float, float]]) -> tuple[float, float]:
    motions = [pointer.motion(*report) for report in reports]
    return sum(x for x, _ in motions), sum(y for _, y in motions)


def there_and_back() -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Positions of fifteen small motions to the right, three pixels each, and of as many back."""
    there = [(AT[0] + 3 * n, AT[1]) for n in range(1, 16)]
    return there, [*there[-2::-1], AT]


# The first report tells nothing yet; where the pointer was grabbed says how far that was.
@pytest.mark.parametrize(("at", "seen_px"), [(AT, 45.0), (None, 42.0)])
def test_positions_become_their_differences(at: tuple[float, float] | None, seen_px: float):
    pointer = RelativePointer()
    pointer.grab(at)
    there, back = there_and_back()
    assert moved(pointer, there) == (seen_px, 0.0)
    assert moved(pointer, back) == (-45.0, 0.0)


def test_what_was_learnt_of_a_pointer_lasts_for_the_next_grab():
    pointer = RelativePointer()
    for _ in range(2):
        pointer.grab(AT)
        there, back = there_and_back()
        moved(pointer, there + back)
    pointer.grab((20.0, 20.0))
    assert moved(pointer, [(20.0, 20.0), (22.0, 21.0)]) == (2.0, 1.0)


@pytest.mark.parametrize(
    "reports",
    [
        [(3, 0)] * 15 + [(-3, 0)] * 15,
        [(1, 2), (30, 40), (90, 110), (100, 120), (60, 70), (5, 5)],
        [(-400, -300), (400, 300)],
        [(0, 0), (200, 200), (210, 205), (190, 190)],
        [(35, 0), (36, 0), (36, 0)],
    ],
)
def test_a_mouse_is_taken_at_its_word(reports: list[tuple[float, float]]):
    pointer = RelativePointer()
    pointer.grab(AT)
    assert moved(pointer, reports) == (sum(x for x, _ in reports), sum(y for _, y in reports))


def test_a_mouse_that_was_mistaken_is_known_by_its_first_way_back():
    pointer = RelativePointer()
    pointer.grab(AT)
    moved(pointer, [(400, 300), (401, 300), (402, 300)])
    assert pointer.motion(-7, 2) == (-7, 2)
    assert pointer.motion(300, 200) == (300, 200)


READ_MOTION = """
import sys, time, pygame
from client.input.relative_pointer import RelativePointer
from client.ui.window import Window
window, pointer, total, ended = Window(600, 400), RelativePointer(), [0.0, 0.0], time.time() + 60
print("open", *pygame.display.get_window_position(), flush=True)
while time.time() < ended:
    for event in pygame.event.get():
        if event.type == pygame.MOUSEBUTTONDOWN:
            pointer.grab(window.pointer_position())
            window.grab_mouse(True)
        elif event.type == pygame.MOUSEMOTION and pygame.event.get_grab():
            total = [a + b for a, b in zip(total, pointer.motion(*event.rel))]
        elif event.type == pygame.KEYDOWN:
            print("moved", *total, flush=True)
            sys.exit()
    window.show()
    time.sleep(0.005)
"""


class Viewer:
    """A VNC viewer's end of the line: a pointer and a key."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self._socket.recv(12)
        self._socket.sendall(b"RFB 003.008\n")
        self._socket.recv(self._socket.recv(1)[0])
        self._socket.sendall(b"\1")
        self._socket.recv(4)
        self._socket.sendall(b"\1")
        name_length = struct.unpack(">I", self._socket.recv(24)[20:])[0]
        self._socket.recv(name_length)

    def close(self) -> None:
        self._socket.close()

    def point(self, x: int, y: int, button: int = 0) -> None:
        self._socket.sendall(struct.pack(">BBHH", 5, button, x, y))
        time.sleep(0.05)

    def key(self, code: int) -> None:
        for down in (1, 0):
            self._socket.sendall(struct.pack(">BBHI", 4, down, 0, code))
            time.sleep(0.05)


@pytest.mark.skipif(shutil.which("Xtigervnc") is None, reason="needs TigerVNC's server")
def test_a_viewer_of_a_real_vnc_server_turns_the_view_there_and_back(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    display = f":{port % 1000 + 200}"
    command = ["Xtigervnc", display, "-SecurityTypes", "None", "-rfbport", str(port), "-localhost"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    viewer = program = None
    try:
        viewer = Viewer(port)
        environ = {"DISPLAY": display, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
        program = subprocess.Popen(
            [sys.executable, "-c", READ_MOTION], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        line = next(line for line in program.stdout if line.startswith("open"))
        left, top = (int(number) for number in line.split()[1:])
        x, y = left + 200, top + 150
        for button in (0, 1, 0):
            viewer.point(x, y, button)
            time.sleep(0.5)
        for step in (*range(1, 16), *range(14, -1, -1)):
            viewer.point(x + 3 * step, y)
        time.sleep(0.5)
        viewer.key(0x20)
        line = next(line for line in program.stdout if line.startswith("moved"))
        right, down = (float(number) for number in line.split()[1:])
        assert abs(right) <= 3.0
        assert down == 0.0
    finally:
        if viewer is not None:
            viewer.close()
        if program is not None:
            program.kill()
            program.communicate()
        server.kill()
        server.wait()
