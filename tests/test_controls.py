"""Devices become intents: keys by press order, mouse counts once, sticks with dead zones."""

import math

import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.input.actions import ACTIONS
from client.input.bindings import DEFAULT_BINDINGS
from client.input.controls import (
    AXIS_ACTIONS,
    MOVING,
    Axis,
    GamepadState,
    KeyboardState,
    MouseLook,
    apply_dead_zone,
    gamepad_axes,
    read_intent,
)

W, S, A, D = pygame.KSCAN_W, pygame.KSCAN_S, pygame.KSCAN_A, pygame.KSCAN_D
SCANCODES = st.sampled_from(sorted(DEFAULT_BINDINGS.scancodes(MOVING)))


def test_the_key_pressed_last_wins_over_its_opposite() -> None:
    keyboard = KeyboardState()
    keyboard.press(W)
    keyboard.press(S)
    assert keyboard.axis(Axis.FORWARD) == -1.0
    keyboard.forget_taps()
    keyboard.release(S)
    assert keyboard.axis(Axis.FORWARD) == 1.0


def test_key_repeat_does_not_change_the_order_of_pressing() -> None:
    keyboard = KeyboardState()
    keyboard.press(A)
    keyboard.press(D)
    keyboard.press(A)
    assert keyboard.axis(Axis.STRAFE) == 1.0


def test_two_keys_of_one_direction_hold_it_until_both_are_released() -> None:
    keyboard = KeyboardState()
    keyboard.press(pygame.KSCAN_SPACE)
    keyboard.press(pygame.KSCAN_E)
    keyboard.forget_taps()
    keyboard.release(pygame.KSCAN_SPACE)
    assert keyboard.axis(Axis.RISE) == 1.0
    keyboard.release(pygame.KSCAN_E)
    assert keyboard.axis(Axis.RISE) == 0.0


def test_losing_the_focus_releases_everything() -> None:
    keyboard = KeyboardState()
    for scancode in DEFAULT_BINDINGS.scancodes(MOVING):
        keyboard.press(scancode)
    keyboard.release_all()
    assert read_intent(keyboard, MouseLook(0.002)).is_idle


def test_a_key_that_moves_nothing_is_not_taken() -> None:
    keyboard = KeyboardState()
    assert not keyboard.press(pygame.KSCAN_F12)
    assert keyboard.held == ()


def test_no_key_has_two_meanings() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    buttons = [action.button for action in ACTIONS if action.button is not None]
    assert len(keys) == len(set(keys))
    assert len(buttons) == len(set(buttons))


def test_every_movement_is_an_action_of_the_table() -> None:
    assert {action.name for action in ACTIONS} >= MOVING


@given(st.lists(st.tuples(st.booleans(), SCANCODES)))
def test_without_taps_axes_depend_only_on_the_keys_held_now(events: list[tuple[bool, int]]) -> None:
    keyboard = KeyboardState()
    down: set[int] = set()
    for pressed, scancode in events:
        if pressed:
            keyboard.press(scancode)
            down.add(scancode)
        else:
            keyboard.release(scancode)
            down.discard(scancode)
    assert set(keyboard.held) == down
    keyboard.forget_taps()
    for axis, (positive, negative) in AXIS_ACTIONS.items():
        asked = {1.0} if down & DEFAULT_BINDINGS.scancodes([positive]) else set()
        asked |= {-1.0} if down & DEFAULT_BINDINGS.scancodes([negative]) else set()
        assert keyboard.axis(axis) in (asked or {0.0})


@given(st.lists(st.tuples(st.integers(-200, 200), st.integers(-200, 200), st.booleans())))
def test_every_mouse_count_is_taken_exactly_once(moves: list[tuple[int, int, bool]]) -> None:
    mouse = MouseLook(sensitivity_rad_px=0.002)
    taken = [0.0, 0.0]
    for dx_px, dy_px, take in moves:
        mouse.move(dx_px, dy_px)
        if take:
            look = mouse.take_rad()
            taken = [taken[0] + look[0], taken[1] + look[1]]
    rest = mouse.take_rad()
    assert taken[0] + rest[0] == pytest.approx(0.002 * sum(move[0] for move in moves))
    assert taken[1] + rest[1] == pytest.approx(-0.002 * sum(move[1] for move in moves))
    assert mouse.take_rad() == (0.0, 0.0)


def test_mouse_up_looks_up_unless_inverted() -> None:
    mouse, inverted = MouseLook(0.01), MouseLook(0.01, invert_y=True)
    for device in (mouse, inverted):
        device.move(0.0, -10.0)
    assert mouse.take_rad()[1] == pytest.approx(0.1)
    assert inverted.take_rad()[1] == pytest.approx(-0.1)


def test_a_mouse_that_reports_nonsense_is_ignored() -> None:
    mouse = MouseLook(0.01)
    mouse.move(math.nan, math.inf)
    assert mouse.take_rad() == (0.0, 0.0)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_stick_keeps_its_direction_and_stays_in_the_unit_disc(x: float, y: float) -> None:
    dead_zone = 0.15
    out_x, out_y = apply_dead_zone(x, y, dead_zone)
    assert math.hypot(out_x, out_y) <= 1.0 + 1e-9
    if math.hypot(x, y) <= dead_zone:
        assert (out_x, out_y) == (0.0, 0.0)
    else:
        assert out_x * y == pytest.approx(out_y * x, abs=1e-9)


def test_a_stick_leaves_its_dead_zone_without_a_step() -> None:
    assert apply_dead_zone(0.151, 0.0, 0.15)[0] == pytest.approx(0.0, abs=0.002)
    assert apply_dead_zone(1.0, 0.0, 0.15)[0] == pytest.approx(1.0)


def test_a_gamepad_reaches_all_six_axes() -> None:
    axes = gamepad_axes(GamepadState(1.0, -1.0, 1.0, -1.0, 0.0, 1.0, False, True))
    assert all(value > 0.5 for value in axes.values())


def test_keyboard_and_gamepad_together_never_exceed_one() -> None:
    keyboard = KeyboardState()
    keyboard.press(W)
    intent = read_intent(keyboard, MouseLook(0.002), [GamepadState(left_y=-1.0)])
    assert intent.forward == 1.0


def test_mouse_motion_is_read_once() -> None:
    mouse = MouseLook(0.01)
    mouse.move(5.0, 0.0)
    keyboard = KeyboardState()
    assert read_intent(keyboard, mouse).look_dx_rad == pytest.approx(0.05)
    assert read_intent(keyboard, mouse).look_dx_rad == 0.0


def test_a_key_that_went_down_and_up_between_two_readings_is_read_once() -> None:
    keyboard, mouse = KeyboardState(), MouseLook(0.002)
    keyboard.press(W)
    keyboard.release(W)
    assert read_intent(keyboard, mouse).forward == 1.0
    assert read_intent(keyboard, mouse).is_idle


def test_a_key_that_was_read_while_held_is_no_tap_when_it_comes_up() -> None:
    keyboard, mouse = KeyboardState(), MouseLook(0.002)
    keyboard.press(W)
    read_intent(keyboard, mouse)
    keyboard.release(W)
    assert read_intent(keyboard, mouse).is_idle


def test_a_tap_is_forgotten_with_the_held_keys() -> None:
    keyboard = KeyboardState()
    keyboard.press(W)
    keyboard.release(W)
    keyboard.release_all()
    assert read_intent(keyboard, MouseLook(0.002)).is_idle
