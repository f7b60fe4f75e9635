"""Footsteps and ambience: loops without a seam, steps by the way walked, silence without a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest

from client.ui import sound
from client.ui.sound import AMBIENCE_VOLUME, RATE_HZ, STEP_M, WORDS, Sound, ambience, footstep, has_device
from tests.player import Player


@pytest.mark.parametrize("kind", [*WORDS, "breeze"])
def test_an_ambience_is_quiet_never_clips_and_repeats_without_a_seam(kind: str) -> None:
    loop = ambience(kind).astype(float) / 32768
    assert loop.shape == (round(sound.LOOP_S * RATE_HZ), 2)
    assert 0.005 < np.sqrt(np.square(loop).mean()) < 0.5
    assert (np.abs(loop) > 0.97).mean() < 1e-4
    steps = np.abs(np.diff(loop, axis=0))
    seam = np.abs(loop[0] - loop[-1])
    assert (seam <= steps.max(0)).all(), "the end goes over into the beginning as any sample into the next"
    assert not np.array_equal(loop[:, 0], loop[:, 1]), "it is around the listener"


def test_footsteps_die_away_differ_and_are_duller_on_soft_ground() -> None:
    hard, soft = (np.stack([footstep(muffled, seed) for seed in range(4)]) for muffled in (False, True))
    for steps in (hard.astype(float), soft.astype(float)):
        energy = np.square(steps).mean(0)
        assert energy[-500:].mean() < 0.02 * energy[:500].mean()
        assert len({step.tobytes() for step in steps}) == 4
    brightness = [
        np.abs(np.diff(s.astype(float))).sum() / np.abs(s.astype(float)).sum() for s in (hard, soft)
    ]
    assert brightness[0] > 1.2 * brightness[1]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("town", "A small town", ""), "town"),
        (("w1", "Somewhere", "a hall with paintings"), "room"),
        (("lantern-night", "", ""), "night"),
        (("w2", "Untitled", ""), "breeze"),
    ],
)
def test_the_place_chooses_its_ambience(texts: tuple[str, ...], kind: str) -> None:
    assert sound.kind_of(texts) == kind


def test_a_footstep_comes_with_every_step_of_the_way_and_none_in_flight_or_at_a_leap() -> None:
    heard = Sound()
    walked = [heard.follow(np.array([0.1 * n, -1.6, 0.0]), on_foot=True) for n in range(61)]
    assert sum(walked) == int(6.0 / STEP_M + 1e-6)
    assert not any(heard.follow(np.array([6.0, -1.6, 0.5 * n]), on_foot=False) for n in range(9))
    assert not heard.follow(np.array([60.0, -1.6, 0.0]), on_foot=True)
    assert not any(heard.follow(np.array([60.0, -1.6, 0.0]), on_foot=True) for _ in range(50))


def test_a_machine_without_an_audio_device_is_not_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound.sys, "platform", "linux")
    assert not has_device({}, tmp_path)
    (tmp_path / "dev/snd").mkdir(parents=True)
    (tmp_path / "dev/snd/pcmC0D0p").touch()
    assert has_device({}, tmp_path)
    assert has_device({"SDL_AUDIODRIVER": "dummy"}, Path("/nowhere"))
    assert has_device({"PULSE_SERVER": "tcp:host"}, Path("/nowhere"))


@pytest.fixture
def mixer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    yield
    pygame.mixer.quit()


def test_a_world_is_heard_until_it_is_left_and_off_is_silent(mixer: None) -> None:
    heard = Sound()
    heard.enter(("garden",))
    assert heard._coming is not None
    assert not pygame.mixer.get_busy(), "it is made beside the pictures"
    heard._coming.join()
    heard.follow(np.zeros(3), on_foot=True)
    assert pygame.mixer.get_busy()
    assert heard._ambience is not None
    assert heard._ambience.get_volume() == pytest.approx(AMBIENCE_VOLUME, abs=0.01)
    heard.switch(False)
    assert heard._ambience.get_volume() == 0
    heard.close()
    assert pygame.mixer.get_init() is None


def test_a_world_that_is_left_before_its_sound_is_made_is_never_heard(mixer: None) -> None:
    heard = Sound()
    heard.enter(("garden",))
    coming = heard._coming
    assert coming is not None
    heard.leave()
    coming.join()
    heard.follow(np.zeros(3), on_foot=True)
    assert not pygame.mixer.get_busy()
    heard.close()


def test_a_device_that_cannot_be_opened_leaves_the_walk_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise pygame.error("no such device")

    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    monkeypatch.setattr(pygame.mixer, "init", refuse)
    heard = Sound()
    heard.enter(("garden",))
    heard.follow(np.zeros(3), on_foot=True)
    heard.close()


def test_one_key_turns_the_sound_off_and_says_so(player: Player) -> None:
    player.frames_go_by(2)
    player.key(pygame.KSCAN_K)
    assert not player.context.settings.sound
    assert not player.context.sound.on
    player.key(pygame.KSCAN_K)
    assert player.context.sound.on
