"""The clock as a player sees it: turned pictures while the engine does nothing, squares for a camera, a trace on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from numpy.typing import NDArray

from cli.app import run
from client.playback.pacing_replay import replay_pacing
from client.playback.trace import InputLine, StartLine, TickLine, read_trace
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from client.ui.metrics import metric_lines, read_metrics
from engine.session.holodeck_session import HolodeckSession
from engine.types import CameraTrack, LatentChunk
from tests.player import PATIENCE_S, Player


class Stall:
    """Holds the engine up between two chunks while it is asked to."""

    def __init__(self) -> None:
        self.goes_on, self.holds = threading.Event(), threading.Event()
        self.goes_on.set()

    def wait(self) -> None:
        """Wait on the engine's thread."""
        if not self.goes_on.is_set():
            self.holds.set()
        self.goes_on.wait(PATIENCE_S)


@pytest.fixture
def stall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stall]:
    stall = Stall()
    denoise = HolodeckSession.denoise

    def stalling(session: HolodeckSession, track: CameraTrack) -> LatentChunk:
        stall.wait()
        return denoise(session, track)

    monkeypatch.setattr(HolodeckSession, "denoise", stalling)
    yield stall
    stall.goes_on.set()


def picture(player: Player) -> NDArray[np.uint8]:
    return pygame.surfarray.array3d(player.window.surface).swapaxes(0, 1)


def freeze(player: Player, stall: Stall) -> None:
    """Stop the engine and wait until the last frame it made is on, and nothing changes any more."""
    player.context.toasts.clear()
    stall.goes_on.clear()
    player.key(pygame.KSCAN_W, down=True)
    player.wait(stall.holds.is_set, "the engine to be held up")
    player.key(pygame.KSCAN_W, down=False)
    still = 0
    while still < 50:
        index = player.walk.walk.frame.index
        player.app.turn()
        time.sleep(0.005)
        still = still + 1 if player.walk.walk.frame.index == index else 0


def test_arrows_and_mouse_turn_the_picture_while_the_engine_makes_nothing(
    player: Player, stall: Stall
) -> None:
    player.frames_go_by(2)
    freeze(player, stall)
    # By its depth the picture already follows the steps that the engine has not answered.
    player.key(pygame.KSCAN_F2)
    player.context.toasts.clear()
    player.app.turn()
    as_made = picture(player)
    player.key(pygame.KSCAN_F2)
    player.context.toasts.clear()
    player.app.turn()
    before, index = picture(player), player.walk.walk.frame.index
    player.context.grab_mouse(True)
    player.post(pygame.MOUSEMOTION, rel=(60, 0), pos=(9, 9), buttons=(0, 0, 0))
    by_mouse = picture(player)
    assert (by_mouse != before).mean() > 0.2, "in the very next picture"
    player.key(pygame.KSCAN_UP, down=True)
    player.app.turn()
    assert (picture(player) != by_mouse).mean() > 0.2
    player.key(pygame.KSCAN_UP, down=False)
    assert player.walk.walk.frame.index == index
    assert player.walk.walk.statistics.latency.warped.count >= 2
    shown = metric_lines(read_metrics(player.walk.walk, 1.0, True))
    lines = {label: value for _, label, value in shown}
    assert lines["view answers"].endswith(" ms")
    player.key(pygame.KSCAN_F2)
    player.context.toasts.clear()
    player.app.turn()
    np.testing.assert_array_equal(picture(player), as_made)


def test_the_squares_flip_with_an_input_and_with_the_models_answer(player: Player, stall: Stall) -> None:
    player.frames_go_by(2)
    freeze(player, stall)
    meter = player.walk.walk.statistics.latency

    def squares() -> tuple[int, int]:
        shown = picture(player)
        side, middle = player.context.look.px(8), len(shown) // 2
        return int(shown[middle, -3 * side // 2].mean()), int(shown[middle, -side // 2].mean())

    player.key(pygame.KSCAN_F4)
    first = squares()
    assert set(first) <= {0, 255}
    player.key(pygame.KSCAN_D, down=True)
    assert squares() == (255 * (meter.num_inputs % 2), first[1])
    assert squares()[0] != first[0]
    answered = meter.num_answers
    stall.goes_on.set()
    player.wait(lambda: meter.num_answers > answered, "the model's answer")
    assert squares()[1] == 255 * (meter.num_answers % 2)
    player.key(pygame.KSCAN_D, down=False)
    player.key(pygame.KSCAN_F4)
    assert not {0, 255}.issuperset(squares()) or squares() != first


def test_a_walk_leaves_a_trace_that_can_be_paced_again(
    play: Callable[..., Player], worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = sorted(worlds.glob("*.world"))[0]
    trace = tmp_path / "walk.jsonl"
    player = play(PlayOptions(world=str(world), backend="holodeck", trace=trace), [worlds])
    player.wait_for(WalkScreen)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(10)
    player.key(pygame.KSCAN_RIGHT, down=True)
    player.frames_go_by(10)
    player.key(pygame.KSCAN_P)
    player.app.turn()
    player.key(pygame.KSCAN_P)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(6)
    player.key(pygame.KSCAN_BACKSPACE)
    player.key(pygame.KSCAN_W, down=True)
    player.frames_go_by(6)
    player.app.open(PlayOptions(world=str(world), backend="holodeck"))
    player.app.turn()
    lines = list(read_trace(trace))
    assert isinstance(lines[0], StartLine)
    assert sum(isinstance(line, TickLine) for line in lines) > 30
    inputs = [line for line in lines if isinstance(line, InputLine)]
    assert {line.looks for line in inputs} == {True, False}
    assert all(line.warped_ms is None or line.warped_ms <= line.model_ms for line in inputs)
    rollouts = replay_pacing(lines)
    assert len(rollouts) == 2
    assert all(rollout.counts == rollout.traced for rollout in rollouts)
    assert run(["bench", "--pacing", str(trace)]) == 0
    assert "rollout" in capsys.readouterr().out


def test_a_trace_needs_a_window_and_a_new_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["play", "town", "--headless", "--chunks", "1", "--trace", str(tmp_path / "a.jsonl")]) == 2
    assert "--trace follows a player's input" in capsys.readouterr().err
