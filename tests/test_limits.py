"""The limits of a walk are felt, told and never passed; one tap levels the horizon."""

from __future__ import annotations

import math

import numpy as np
import pytest

from client.camera.limits import Leveler, Limit, limit_of
from client.camera.rig import CameraRig
from client.input.controls import IDLE, Intent
from engine.session.holodeck_session import PlaceBox
from engine.types import Intrinsics

FPS = 16
BOX = PlaceBox((-2.0, -2.0), (2.0, 2.0), 2.9)


def make_rig() -> CameraRig:
    start = np.eye(4)
    start[1, 3] = -1.6

    def slide(position: np.ndarray, delta: np.ndarray) -> np.ndarray:
        x, y, z = position + delta
        return np.array([np.clip(x, -2, 2), max(y, -2.9), np.clip(z, -2, 2)])

    return CameraRig(start, Intrinsics(100.0, 100.0, 80.0, 48.0, 160, 96), FPS, slide=slide)


@pytest.mark.parametrize(
    ("intent", "back", "limit"),
    [
        (Intent(forward=1.0), Intent(forward=-1.0), Limit.EDGE),
        (Intent(strafe=-1.0), Intent(forward=1.0), Limit.EDGE),
        (Intent(rise=1.0), Intent(rise=-1.0), Limit.HIGH),
        (Intent(rise=-1.0), Intent(rise=1.0), Limit.LOW),
        (Intent(pitch=1.0), Intent(pitch=-1.0), Limit.PITCH),
        (Intent(pitch=-1.0), Intent(look_dy_rad=0.1), Limit.PITCH),
        (Intent(roll=1.0), Intent(roll=-1.0), Limit.LEAN),
    ],
)
def test_a_limit_is_told_while_it_is_pushed_against(intent: Intent, back: Intent, limit: Limit) -> None:
    rig = make_rig()
    assert limit_of(rig, BOX, intent) is None
    rig.plan(intent, 4 * FPS)
    assert limit_of(rig, BOX, intent) is limit
    assert limit_of(rig, BOX, IDLE) is None
    assert limit_of(rig, BOX, back) is None


def test_a_walker_leans_to_thirty_degrees_and_a_flyer_rolls_on() -> None:
    rig = make_rig()
    rig.plan(Intent(roll=1.0), 2 * FPS)
    assert math.degrees(rig.roll_rad) == pytest.approx(30.0)
    rig.flying = True
    rig.plan(Intent(roll=1.0), FPS)
    assert math.degrees(rig.roll_rad) > 60.0
    leaning = rig.roll_rad
    rig.flying = False
    rig.plan(Intent(roll=1.0), FPS)
    assert rig.roll_rad <= leaning, "whoever lands with a greater lean leans no further"


def test_one_tap_levels_the_horizon_and_leaning_ends_it() -> None:
    rig, leveler = make_rig(), Leveler()
    rig.plan(Intent(roll=1.0), FPS // 2)
    assert leveler.apply(IDLE, rig.roll_rad) == IDLE
    intent = leveler.apply(Intent(level=True), rig.roll_rad)
    for _ in range(16):
        rig.plan(intent, 4)
        intent = leveler.apply(IDLE, rig.roll_rad)
    assert math.degrees(abs(rig.roll_rad)) < 0.5
    assert intent == IDLE
    leveler.apply(Intent(level=True), 0.4)
    assert leveler.apply(Intent(roll=1.0), 0.4) == Intent(roll=1.0)
    assert leveler.apply(IDLE, 0.4) == IDLE
