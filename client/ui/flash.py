"""Two squares in a corner for a camera or a photodiode: one flips with each input, one with each answer of the model.

They change in the very pictures that the meter counts, so that light on the screen can be held against its figures.
"""

from __future__ import annotations

import pygame

from client.playback.meter import InputMeter
from client.ui import theme
from client.ui.theme import Theme

SQUARE = 8.0
"""Side of a square, grid units."""
_DARK, _BRIGHT = (0, 0, 0), (255, 255, 255)


class Flash:
    """The squares of one walk, off at first."""

    def __init__(self, meter: InputMeter) -> None:
        self._meter = meter
        self._on = False

    def do_flash(self, now_s: float) -> None:
        self._on = not self._on

    def draw(self, target: pygame.Surface, look: Theme, frame_index: int) -> list[pygame.Rect]:
        """Draw them at the right edge, over a picture of the frame that has this number; return where they lie."""
        if not self._on:
            return []
        side, label_px, gap = look.px(SQUARE), look.px(2.5), look.px(1)
        # In the middle: the mark of a recording is above, the map below.
        left, top = target.get_width() - 2 * side - gap, (target.get_height() - side) // 2
        place = pygame.Rect(left - gap, top - label_px, 2 * (side + gap), side + label_px)
        target.fill(theme.INK, place)
        flips = ("input", self._meter.num_inputs), ("model", self._meter.answers_by(frame_index))
        for i, (name, count) in enumerate(flips):
            label = look.text(name, 11)
            x = left + i * (side + gap)
            target.blit(label, (x + (side - label.get_width()) // 2, top - label_px))
            target.fill(_BRIGHT if count % 2 else _DARK, (x, top, side, side))
        return [place]
