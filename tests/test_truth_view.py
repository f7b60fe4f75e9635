"""The truth beside the generated picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pygame

from client.playback.history import WalkFrame
from client.screens.truth_view import TruthMode, TruthView
from engine.files.world import read_world
from tests.player import HEIGHT, WIDTH, Player


def test_the_line_parts_the_generated_picture_from_the_truth(player: Player) -> None:
    world = player.walk.walk.session.world
    view = TruthView(world)
    grey = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    frame = WalkFrame(3, grey, world.c2w, 0)
    assert view.turn() is TruthMode.BESIDE
    player.wait(lambda: view.update(frame), "the truth")
    picture = view.picture()
    assert picture is not None
    middle = WIDTH // 2
    assert (picture[:, : middle - 1] == 7).all()
    np.testing.assert_array_equal(picture[:, middle + 1 :], world.first_frame[:, middle + 1 :])
    assert view.picture() is picture, "nothing is done twice"
    view.line = 0.25
    moved = view.picture()
    assert moved is not None
    assert (moved[:, WIDTH // 4 + 1 :] == world.first_frame[:, WIDTH // 4 + 1 :]).all()
    assert view.turn() is TruthMode.OVER
    player.wait(lambda: view.update(replace(frame, index=4)), "the truth again")
    np.testing.assert_array_equal(view.picture(), world.first_frame)
    assert view.turn() is TruthMode.OFF
    assert view.picture() is None
    view.close()


def test_a_key_lays_the_truth_beside_over_and_away(player: Player) -> None:
    modes = []
    for _ in range(3):
        player.key(pygame.KSCAN_T)
        modes.append(player.walk._truth.mode)
        player.frames_go_by(4)
    assert modes == [TruthMode.BESIDE, TruthMode.OVER, TruthMode.OFF]


def test_a_world_of_no_place_says_that_it_has_no_truth(player: Player) -> None:
    world = player.walk.walk.session.world
    assert world.path is not None
    strange = read_world(world.path)
    strange = replace(strange, info=strange.info.model_copy(update={"place": None}))
    assert not TruthView(strange).is_offered
    player.walk._truth = TruthView(strange)
    player.key(pygame.KSCAN_T)
    assert player.walk._truth.mode is TruthMode.OFF
    assert any("no truth" in text for text in player.context.toasts.texts(player.context.clock()))
