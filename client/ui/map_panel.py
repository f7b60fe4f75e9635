"""The map of a walk, drawn at the lower right."""

from __future__ import annotations

import math

import numpy as np
import pygame

from client.playback.walk_map import WalkMap
from client.ui import theme
from client.ui.theme import Theme

MAP = 26.0
"""Side of the map, grid units."""


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
