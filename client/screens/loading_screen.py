"""The screen of a world that is being opened: what is done, how long each step took, and why it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import pygame

from client.input.actions import Step
from client.screens.menu_stack import MenuStack
from client.setup.opening import LoadingStages, Opened, Opening, Stage, open_walk
from client.setup.options import PlayOptions
from client.ui import theme
from client.ui.app_context import AppContext, Screen, step_of
from client.ui.menu import Menu, frame_surface
from client.ui.picture import crop_to, enlarge
from client.ui.theme import Theme
from engine.files.world import World


class LoadingScreen(Screen):
    """A world that is being opened; says why if it cannot be."""

    def __init__(
        self,
        app: AppContext,
        options: PlayOptions,
        ready: Callable[[PlayOptions, Opened], Screen],
        back: Callable[[], Screen],
    ) -> None:
        """Begin to open.

        Args:
            app: What all screens share.
            options: What to open.
            ready: Makes the screen that follows.
            back: Makes the screen to return to.
        """
        self._app = app
        self._options = options
        self._ready = ready
        self._back = back
        self._menus = MenuStack(app)
        self._backdrop: pygame.Surface | None = None
        self._place = pygame.Rect(0, 0, 0, 0)
        app.release_controls()
        self._opening = Opening(partial(open_walk, options, list(app.folders)), app.clock)

    @property
    def world(self) -> World | None:
        """The world being opened, as soon as it is read."""
        return self._opening.world

    @property
    def problem(self) -> Menu | None:
        """What went wrong, once something has."""
        return self._menus.top

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        if not self._menus.is_open:
            if step_of(event) is Step.BACK:
                self._app.show(self._back)
            return
        key = self._menus.handle(event)
        if key == "again":
            options, ready, back, app = self._options, self._ready, self._back, self._app
            app.show(lambda: LoadingScreen(app, options, ready, back))
        elif key in ("worlds", "resume"):
            self._app.show(self._back)
        elif key == "quit":
            self._app.quit()

    def update(self, now_s: float) -> bool:
        if self._menus.is_open:
            return False
        try:
            opened = self._opening.poll()
        except Exception as error:
            self._menus.explain("This world cannot be opened", error)
            return True
        if opened is not None:
            options = self._options
            self._app.opened_s[options.backend] = self._opening.stages.elapsed_s(now_s)
            self._app.show(lambda: self._ready(options, opened))
        return True

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        world, look = self._opening.world, self._app.look
        target.fill(theme.INK)
        self._draw_backdrop(target)
        if self._menus.is_open:
            self._menus.draw(target, look)
            return
        if world is not None:
            look.shade(target, 96)
        title = world.title if world is not None else "Opening"
        expected_s = self._app.opened_s.get(self._options.backend)
        self._place = draw_loading(target, look, title, self._opening.stages, now_s, expected_s)

    def taken(self) -> Sequence[pygame.Rect]:
        return self._menus.taken() or [self._place]

    def _draw_backdrop(self, target: pygame.Surface) -> None:
        world = self._opening.world
        if world is None:
            return
        width, height = target.get_size()
        if self._backdrop is None or self._backdrop.get_size() != (width, height):
            picture = enlarge(crop_to(world.first_frame, width / height), width, height)
            self._backdrop = frame_surface(picture).convert()
        target.blit(self._backdrop, (0, 0))

    def leave(self) -> None:
        self._opening.abandon()


def draw_loading(
    target: pygame.Surface,
    look: Theme,
    title: str,
    stages: LoadingStages,
    now_s: float,
    expected_s: float | None = None,
) -> pygame.Rect:
    """Draw the steps of opening a world at the lower left, and return where they lie.

    Args:
        target: The window.
        look: Fonts and sizes.
        title: The world's.
        stages: The steps so far.
        now_s: Clock time.
        expected_s: How long all steps together took the last time; None where they were never taken.
    """
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
