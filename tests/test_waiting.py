"""A picture that waits for the model says so, and one that rests or is held does not."""

import time

import pygame
import pytest

from client.ui.hud import STALL_AGAIN_S, STALL_S, StallNotice
from engine.session.holodeck_session import HolodeckSession
from engine.types import CameraTrack, LatentChunk
from tests.player import Player


def texts(player: Player, now_s: float) -> str:
    return " ".join(player.context.toasts.texts(now_s))


def test_a_picture_that_waits_for_a_slow_model_says_so_once_in_a_while(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, denoise = player.walk.walk, HolodeckSession.denoise
    player.frames_go_by(4)

    def slowly(session: HolodeckSession, track: CameraTrack) -> LatentChunk:
        time.sleep(STALL_S + 1.0)
        return denoise(session, track)

    monkeypatch.setattr(HolodeckSession, "denoise", slowly)
    player.key(pygame.KSCAN_W, down=True)
    player.wait(lambda: "waits for the model" in texts(player, time.perf_counter()), "the message")
    assert walk.playback.pacer.in_flight
    player.key(pygame.KSCAN_W, down=False)


def test_nothing_is_said_of_a_picture_that_is_held_or_waits_for_nothing(player: Player) -> None:
    walk, waiting = player.walk.walk, StallNotice(player.context, player.walk.walk)
    player.frames_go_by(4)
    walk.pause()
    for second in range(int(2 * STALL_AGAIN_S)):
        waiting.update(1e6 + second)
        assert "waits" not in texts(player, 1e6 + second)
    walk.resume()
