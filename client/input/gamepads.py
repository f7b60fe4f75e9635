"""Gamepads as they are plugged in and pulled out: states for the controls, steps for the menus."""

from __future__ import annotations

import pygame
from pygame._sdl2 import controller

from client.input.actions import Step
from client.input.controls import GamepadState

_STICK_RANGE = 32767.0
_PUSHED, _RESTING = 0.6, 0.4
"""A stick steps through a menu when it is pushed so far, and again once it came back so far."""
STICK_STEP = pygame.event.custom_type()
"""Event of a stick pushed to a side; has its `step`."""
_STEPS = {
    pygame.CONTROLLER_BUTTON_DPAD_UP: Step.UP,
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: Step.DOWN,
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: Step.LEFT,
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: Step.RIGHT,
    pygame.CONTROLLER_BUTTON_A: Step.ACCEPT,
    pygame.CONTROLLER_BUTTON_B: Step.BACK,
    pygame.CONTROLLER_BUTTON_START: Step.MENU,
    pygame.CONTROLLER_BUTTON_X: Step.DELETE,
    pygame.CONTROLLER_BUTTON_Y: Step.RENAME,
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: Step.PAGE_UP,
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: Step.PAGE_DOWN,
}
_STICK_STEPS = {
    pygame.CONTROLLER_AXIS_LEFTX: (Step.LEFT, Step.RIGHT),
    pygame.CONTROLLER_AXIS_LEFTY: (Step.UP, Step.DOWN),
}


class Gamepads:
    """All gamepads that are connected now."""

    def __init__(self) -> None:
        # A window that was closed before took the joysticks with it, which the controllers do not notice.
        controller.quit()
        controller.init()
        self._pads: dict[int, controller.Controller] = {}
        self._pushed: set[tuple[int, int]] = set()

    def handle(self, event: pygame.event.Event) -> str:
        """Follow gamepads coming and going; return a sentence for the player if one did."""
        if event.type == pygame.CONTROLLERDEVICEADDED:
            return self._add(event.device_index)
        if event.type == pygame.JOYDEVICEADDED and not controller.is_controller(event.device_index):
            return "A game device was plugged in, but its layout is not known; SDL_GAMECONTROLLERCONFIG can name it."
        if event.type == pygame.CONTROLLERDEVICEREMOVED:
            pad = self._pads.pop(event.instance_id, None)
            self._pushed = {
                (instance, axis) for instance, axis in self._pushed if instance != event.instance_id
            }
            return "The gamepad is gone." if pad is not None else ""
        return ""

    def _add(self, device_index: int) -> str:
        try:
            pad = controller.Controller(device_index)
            instance = pad.as_joystick().get_instance_id()
        except pygame.error as error:
            return f"A gamepad was plugged in but cannot be read ({error})."
        known = instance in self._pads
        self._pads[instance] = pad
        return "" if known else f"{pad.name or 'A gamepad'} is ready."

    def states(self) -> list[GamepadState]:
        """Return what each gamepad does now."""
        return [_read(pad) for pad in self._pads.values() if pad.attached()]

    def stick_step(self, event: pygame.event.Event) -> Step | None:
        """Return the menu step of a left stick that was just pushed to a side."""
        if event.type != pygame.CONTROLLERAXISMOTION or event.axis not in _STICK_STEPS:
            return None
        stick, value = (event.instance_id, event.axis), event.value / _STICK_RANGE
        if abs(value) < _RESTING:
            self._pushed.discard(stick)
        elif abs(value) > _PUSHED and stick not in self._pushed:
            self._pushed.add(stick)
            return _STICK_STEPS[event.axis][value > 0]
        return None


def step_of_button(button: int) -> Step | None:
    """Return the menu step a gamepad button stands for."""
    return _STEPS.get(button)


def _read(pad: controller.Controller) -> GamepadState:
    def axis(number: int) -> float:
        return max(-1.0, pad.get_axis(number) / _STICK_RANGE)

    return GamepadState(
        axis(pygame.CONTROLLER_AXIS_LEFTX),
        axis(pygame.CONTROLLER_AXIS_LEFTY),
        axis(pygame.CONTROLLER_AXIS_RIGHTX),
        axis(pygame.CONTROLLER_AXIS_RIGHTY),
        axis(pygame.CONTROLLER_AXIS_TRIGGERLEFT),
        axis(pygame.CONTROLLER_AXIS_TRIGGERRIGHT),
        bool(pad.get_button(pygame.CONTROLLER_BUTTON_LEFTSHOULDER)),
        bool(pad.get_button(pygame.CONTROLLER_BUTTON_RIGHTSHOULDER)),
        bool(pad.get_button(pygame.CONTROLLER_BUTTON_A)),
        bool(pad.get_button(pygame.CONTROLLER_BUTTON_Y)),
    )
