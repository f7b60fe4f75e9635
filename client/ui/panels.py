"""Panels over a walk: the keys and axes held, the map of the walk, the film strip of a rewind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pygame

from client.input.bindings import Bindings
from client.input.controls import Intent
from client.playback.history import Rewind, WalkSnapshot
from client.playback.walk_map import WalkMap
from client.ui import theme
from client.ui.menu import frame_surface
from client.ui.picture import enlarge
from client.ui.theme import Theme

_SIZE = 12
AXES = (
    ("forward", "back", "ahead"),
    ("strafe", "left", "right"),
    ("rise", "sink", "rise"),
    ("yaw", "look left", "look right"),
    ("pitch", "look down", "look up"),
    ("roll", "lean left", "lean right"),
)
"""The six axes of an intent: name, its negative and its positive side."""
MAP = 26.0
"""Side of the map, grid units."""
THUMBNAIL_WIDTH = 13
"""Grid units."""


def draw_held(
    target: pygame.Surface,
    look: Theme,
    intent: Intent,
    held: Sequence[int],
    bindings: Bindings,
    bottom_px: int,
) -> list[pygame.Rect]:
    """Draw what is asked for at the lower left, the six axes and the keys that are held.

    Returns:
        Where it lies; nothing where there is no room for it.
    """
    pad, bar_px = look.px(1.5), look.px(12)
    row_px = max(look.px(2.25), look.font(_SIZE).get_height())
    side_px = max(look.font(_SIZE).size(side)[0] for _, *sides in AXES for side in sides) + look.px(0.75)
    width = 2 * pad + 2 * side_px + bar_px
    height = 2 * pad + (len(AXES) + 1) * row_px + look.px(1)
    if height > bottom_px or width + look.px(4) > target.get_width():
        return []
    left, top = look.px(2), bottom_px - height
    target.blit(look.panel(width, height), (left, top))
    y = top + pad
    for name, *sides in AXES:
        bar = pygame.Rect(left + pad + side_px, y, bar_px, row_px)
        _draw_axis(target, look, bar, getattr(intent, name), sides)
        y += row_px
    names = [bindings.label(scancode) for scancode in held]
    names += ["running"] * intent.run + ["levelling"] * intent.level
    text = look.clipped("  ".join(names) or "no key held", width - 2 * pad, 13)
    colour = theme.AMBER if names else theme.PAPER_DIM
    target.blit(look.text(text, 13, colour=colour), (left + pad, y + look.px(1)))
    return [pygame.Rect(left, top, width, height)]


def _draw_axis(
    target: pygame.Surface, look: Theme, area: pygame.Rect, value: float, sides: Sequence[str]
) -> None:
    """Draw one axis as a bar from the middle, with its two sides named beside it."""
    bar = pygame.Rect(area.left, area.centery - look.px(0.5), area.width, look.px(1))
    target.fill(theme.INK_RAISED, bar)
    length = round(abs(value) * bar.width / 2)
    start = bar.centerx if value > 0 else bar.centerx - length
    target.fill(theme.AMBER, (start, bar.top, length, bar.height))
    target.fill(theme.PAPER_DIM, (bar.centerx, bar.top, 1, bar.height))
    low = look.text(sides[0], _SIZE, colour=theme.PAPER if value < 0 else theme.PAPER_DIM)
    high = look.text(sides[1], _SIZE, colour=theme.PAPER if value > 0 else theme.PAPER_DIM)
    target.blit(low, (bar.left - look.px(0.75) - low.get_width(), area.top))
    target.blit(high, (bar.right + look.px(0.75), area.top))


def draw_map(target: pygame.Surface, look: Theme, walk_map: WalkMap, bottom_px: int) -> list[pygame.Rect]:
    """Draw the walk from above at the lower right; ahead is up. Return where it lies, nothing without room."""
    pad, text_px = look.px(1), look.px(2.5)
    side = min(look.px(MAP), target.get_width() // 3, bottom_px - look.px(4) - text_px)
    if side < look.px(8):
        return []
    left, top = target.get_width() - side - look.px(2), bottom_px - side - text_px
    place = pygame.Rect(left, top, side, side + text_px)
    target.blit(look.panel(*place.size), place)
    plot = pygame.Rect(left + pad, top + pad, side - 2 * pad, side - 2 * pad)
    view = walk_map.view()

    def pixels(points: np.ndarray) -> list[tuple[float, float]]:
        return [(plot.left + x * plot.width, plot.top + y * plot.height) for x, y in view.place(points)]

    for piece in walk_map.pieces:
        if len(piece) > 1:
            pygame.draw.aalines(target, theme.PAPER, False, pixels(piece))
    start = pixels(walk_map.pieces[0][:1])[0]
    pygame.draw.circle(target, theme.PAPER_DIM, start, max(2, look.px(0.5)))
    here = pixels(np.array([walk_map.here]))[0]
    _draw_walker(target, look, here, walk_map.heading_rad)
    bar_px = round(plot.width * view.bar_m / view.span_m)
    y = top + side
    target.fill(theme.PAPER_DIM, (plot.left, y + look.px(1), bar_px, max(1, look.px(0.25))))
    target.blit(
        look.text(f"{view.bar_m:g} m", 11, colour=theme.PAPER), (plot.left + bar_px + look.px(0.75), y)
    )
    walked = look.text(f"{walk_map.walked_m:.0f} m walked", 11, colour=theme.PAPER)
    if bar_px + look.px(7) + walked.get_width() <= plot.width:
        target.blit(walked, (plot.right - walked.get_width(), y))
    return [place]


def _draw_walker(target: pygame.Surface, look: Theme, place: tuple[float, float], heading_rad: float) -> None:
    """Draw an arrow head that points where the camera looks."""
    size = max(4, look.px(1.25))
    tip = [(0.0, 1.4), (0.8, -0.8), (0.0, -0.35), (-0.8, -0.8)]
    sine, cosine = math.sin(heading_rad), math.cos(heading_rad)
    corners = [
        (place[0] + size * (x * cosine + y * sine), place[1] - size * (y * cosine - x * sine)) for x, y in tip
    ]
    pygame.draw.polygon(target, theme.AMBER, corners)
    pygame.draw.aalines(target, theme.INK, True, corners)


class FilmStrip:
    """Draws a rewind; small pictures made once are kept for as long as the rewind is."""

    def __init__(self) -> None:
        self._thumbnails: dict[tuple[int, int], pygame.Surface] = {}
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""

    def clear(self) -> None:
        """Forget the small pictures."""
        self._thumbnails.clear()

    def draw(self, target: pygame.Surface, look: Theme, rewind: Rewind, title: str, hint: str) -> None:
        """Draw the snapshots around the one that is shown, which stands in the middle; `title` says when it was."""
        frame = rewind.snapshot.frame.pixels
        width = look.px(THUMBNAIL_WIDTH)
        height = max(1, round(width * frame.shape[0] / frame.shape[1]))
        gap, pad = look.px(1), look.px(2)
        room = target.get_width() - 2 * look.px(2)
        panel_height = height + look.px(8)
        top = target.get_height() - panel_height - look.px(2)
        self.place = pygame.Rect(look.px(2), top, room, panel_height)
        target.blit(look.panel(*self.place.size), self.place)
        middle = target.get_width() // 2
        clip = pygame.Rect(look.px(2) + pad, top, room - 2 * pad, panel_height)
        target.set_clip(clip)
        reach = room // (2 * (width + gap)) + 1
        for i in range(max(0, rewind.index - reach), min(len(rewind.snapshots), rewind.index + reach + 1)):
            left = middle - width // 2 + (i - rewind.index) * (width + gap)
            place = pygame.Rect(left, top + look.px(1.5), width, height)
            if i == rewind.index:
                rim = place.inflate(look.px(1), look.px(1))
                target.fill(theme.AMBER, rim)
            target.blit(self._thumbnail(rewind.snapshots[i], place.size), place)
        target.set_clip(None)
        y = top + height + look.px(3.5)
        target.blit(look.text(title, 16, bold=True, colour=theme.AMBER), (clip.left, y))
        hint = look.clipped(hint, max(1, clip.width - look.px(30)), 15)
        label = look.text(hint, 15)
        target.blit(label, (clip.right - label.get_width(), y))

    def _thumbnail(self, snapshot: WalkSnapshot, size: tuple[int, int]) -> pygame.Surface:
        key = (snapshot.frame.index, size[0])
        if key not in self._thumbnails:
            self._thumbnails[key] = frame_surface(enlarge(snapshot.frame.pixels, *size, "smooth"))
        return self._thumbnails[key]
