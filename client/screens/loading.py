"""The loading screen: what is happening, what is done, and how long each took."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pygame

from client.ui import theme
from client.ui.theme import Theme


@dataclass(frozen=True)
class Stage:
    """One step of opening a world."""

    label: str
    began_s: float
    ended_s: float | None = None


class LoadingStages:
    """The steps of opening a world, each with its clock; one is under way at a time."""

    def __init__(self) -> None:
        self._stages: list[Stage] = []

    def begin(self, label: str, now_s: float) -> None:
        """End the step under way and begin the next."""
        self.end(now_s)
        self._stages.append(Stage(label, now_s))

    def end(self, now_s: float) -> None:
        """End the step under way, if there is one."""
        if self._stages and self._stages[-1].ended_s is None:
            last = self._stages[-1]
            self._stages[-1] = Stage(last.label, last.began_s, now_s)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stages)

    def elapsed_s(self, now_s: float) -> float:
        """Return the time since the first step began."""
        return now_s - self._stages[0].began_s if self._stages else 0.0


def draw_loading(
    target: pygame.Surface,
    look: Theme,
    title: str,
    stages: LoadingStages,
    now_s: float,
    backdrop: Callable[[pygame.Surface], None] | None = None,
    expected_s: float | None = None,
) -> pygame.Rect:
    """Draw the steps at the lower left over the world's own picture, if it is known by now.

    Args:
        target: The window.
        look: Fonts and sizes.
        title: The world's.
        stages: The steps so far.
        now_s: Clock time.
        backdrop: Draws the world's picture.
        expected_s: How long all steps together took the last time; None where they were never taken.

    Returns:
        Where the card lies.
    """
    target.fill(theme.INK)
    if backdrop is not None:
        backdrop(target)
        look.shade(target, 96)
    pad, row_px = look.px(3), look.px(3.5)
    width = min(look.px(52), target.get_width() - look.px(4))
    rows = stages.stages
    height = 2 * pad + look.px(9) + row_px * max(4, len(rows))
    left, top = look.px(4), max(look.px(1), target.get_height() - height - look.px(4))
    place = pygame.Rect(left, top, width, height)
    target.blit(look.panel(*place.size, alpha=232, radius=1.5), place)
    heading = look.clipped(title, width - 2 * pad, 26, bold=True)
    target.blit(look.text(heading, 26, bold=True), (left + pad, top + pad - look.px(0.5)))
    y = top + pad + look.px(6)
    for stage in rows:
        _draw_stage(target, look, stage, now_s, pygame.Rect(left + pad, y, width - 2 * pad, row_px))
        y += row_px
    y = top + height - pad - look.px(2.5)
    note = f"{stages.elapsed_s(now_s):.1f} s so far"
    if expected_s is not None:
        note += f", {expected_s:.1f} s the last time"
    target.blit(look.text(note, 13, colour=theme.PAPER_DIM), (left + pad, y))
    leave = look.text("Esc or B goes back", 13, colour=theme.PAPER_DIM)
    if look.font(13).size(note)[0] + leave.get_width() + look.px(2) <= width - 2 * pad:
        target.blit(leave, (left + width - pad - leave.get_width(), y))
    area = pygame.Rect(left + pad, top + height - pad, width - 2 * pad, look.px(0.5))
    _draw_sweep(target, area, now_s)
    return place


def _draw_stage(target: pygame.Surface, look: Theme, stage: Stage, now_s: float, area: pygame.Rect) -> None:
    done = stage.ended_s is not None
    took_s = (now_s if stage.ended_s is None else stage.ended_s) - stage.began_s
    dot_px = look.px(1)
    dot = theme.rounded(dot_px, dot_px, theme.PAPER_DIM if done else theme.AMBER, 255, dot_px // 2)
    target.blit(dot, (area.left, area.top + look.px(0.75)))
    colour = theme.PAPER_DIM if done else theme.PAPER
    time = look.text(f"{took_s:.1f} s", 16, colour=colour)
    label = look.clipped(stage.label, area.width - time.get_width() - look.px(5), 16)
    target.blit(look.text(label, 16, colour=colour), (area.left + look.px(2.5), area.top))
    target.blit(time, (area.right - time.get_width(), area.top))


def _draw_sweep(target: pygame.Surface, area: pygame.Rect, now_s: float) -> None:
    """Draw a light going to and fro: how far it is cannot be known, that it lives can."""
    target.fill(theme.INK_RAISED, area)
    width = area.width // 4
    phase = 0.5 - 0.5 * math.cos(now_s * 2.2)
    target.fill(theme.AMBER, (area.left + round((area.width - width) * phase), area.top, width, area.height))
