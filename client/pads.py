"""Gamepads as they are plugged in and pulled out: readings for the controls, steps for the menus."""

from __future__ import annotations

import pygame
from pygame._sdl2 import controller

from client.controls import PadReading
from client.navigation import Step

_STICK_RANGE = 32767.0
_STEPS = {
    pygame.CONTROLLER_BUTTON_DPAD_UP: Step.UP,
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: Step.DOWN,
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: Step.LEFT,
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: Step.RIGHT,
    pygame.CONTROLLER_BUTTON_A: Step.ACCEPT,
    pygame.CONTROLLER_BUTTON_B: Step.BACK,
    pygame.CONTROLLER_BUTTON_START: Step.MENU,
}


class Pads:
    """All gamepads that are connected now."""

    def __init__(self) -> None:
        controller.init()
        self._pads: dict[int, controller.Controller] = {}

    def handle(self, event: pygame.event.Event) -> str:
        """Follow gamepads coming and going; return a sentence for the player if one did."""
        if event.type == pygame.CONTROLLERDEVICEADDED:
            return self._add(event.device_index)
        if event.type == pygame.CONTROLLERDEVICEREMOVED:
            pad = self._pads.pop(event.instance_id, None)
            return "The gamepad is gone." if pad is not None else ""
        return ""

    def _add(self, device_index: int) -> str:
        try:
            pad = controller.Controller(device_index)
            self._pads[pad.as_joystick().get_instance_id()] = pad
        except pygame.error as error:
            return f"A gamepad was plugged in but cannot be read ({error})."
        return f"{pad.name or 'A gamepad'} is ready."

    def readings(self) -> list[PadReading]:
        """Return what each gamepad does now."""
        return [_read(pad) for pad in self._pads.values() if pad.attached()]


def step_of_button(button: int) -> Step | None:
    """Return the menu step a gamepad button stands for."""
    return _STEPS.get(button)


def _read(pad: controller.Controller) -> PadReading:
    def axis(number: int) -> float:
        return max(-1.0, pad.get_axis(number) / _STICK_RANGE)

    return PadReading(
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
