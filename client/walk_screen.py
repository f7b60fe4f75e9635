"""The walk in the window: devices in, frames and figures out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pygame

from client import hud, theme
from client.catalog import index_of
from client.controls import read_intent
from client.help import draw_help
from client.live_picture import LivePicture
from client.menu import CardMenu, frame_surface
from client.navigation import Step
from client.opening import Opened
from client.options import PlayOptions
from client.pause_card import adjust, pause_card
from client.photo import describe, make_folder, save_photo, unused_path
from client.picture import enlarge, fit_rect
from client.shell import Screen, Shell, step_of
from client.start_screen import problem_card
from client.walk import Walk
from engine.errors import EngineError
from engine.recording import SUFFIX, RecordingStopped

FIGURES_EVERY_S = 0.25
_WELCOME = "Click to look with the mouse. F1 shows all keys."


class WalkScreen(Screen):
    """A walk under way, with what lies over it."""

    def __init__(
        self,
        shell: Shell,
        options: PlayOptions,
        opened: Opened,
        open_world: Callable[[PlayOptions], Screen],
        choose: Callable[[str | None], Screen],
    ) -> None:
        """Begin to walk.

        Args:
            shell: What all screens share.
            options: What was asked for; its recording is begun at once.
            opened: The session and what plans its cameras.
            open_world: Makes the screen that opens another world.
            choose: Makes the start screen, with a world chosen.
        """
        self._shell = shell
        self._options = options
        self._open_world = open_world
        self._choose = choose
        self.walk = Walk(opened.session, opened.planner, opened.seed, shell.clock)
        self._card: CardMenu | None = None
        self._broken = False
        self._help = False
        self._changed = True
        self._figures: hud.Figures | None = None
        self._figures_s = 0.0
        self._live_picture = LivePicture(opened.session.world.intrinsics)
        self._surface: tuple[object, pygame.Surface] | None = None
        self._turn_rad = (0.0, 0.0)
        shell.window.set_title(opened.session.world.title)
        shell.release_controls()
        if options.replay is None:
            shell.toasts.add(_WELCOME, shell.clock())
        if options.record is not None:
            self._start_recording(options.record, shell.clock())

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        self._changed = True
        if self._card is not None:
            self._handle_card(event, self._card, now_s)
        elif event.type == pygame.KEYUP:
            self._shell.keyboard.release(event.scancode)
        elif event.type == pygame.KEYDOWN:
            self._press(event, now_s)
        elif event.type == pygame.MOUSEMOTION:
            if self._shell.mouse_grabbed:
                self._shell.mouse.move(*event.rel)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._help = False
            self._shell.grab_mouse(self.walk.planner.rig is not None)
        elif step_of(event) in (Step.MENU, Step.BACK):
            self._open_pause()

    def _press(self, event: pygame.event.Event, now_s: float) -> None:
        if self._shell.keyboard.press(event.scancode):
            return
        actions: dict[int, Callable[[float], None]] = {
            pygame.KSCAN_F1: self._toggle_help,
            pygame.KSCAN_F2: self._toggle_reprojection,
            pygame.KSCAN_F3: self._toggle_figures,
            pygame.KSCAN_F10: self._toggle_recording,
            pygame.KSCAN_F12: self._take_photo,
            pygame.KSCAN_F: self._toggle_flying,
            pygame.KSCAN_P: lambda _: self._open_pause(),
            pygame.KSCAN_BACKSPACE: self._reset,
            pygame.KSCAN_N: lambda _: self._go_to_neighbour(1),
            pygame.KSCAN_PAGEDOWN: lambda _: self._go_to_neighbour(1),
            pygame.KSCAN_PAGEUP: lambda _: self._go_to_neighbour(-1),
            pygame.KSCAN_ESCAPE: self._escape,
        }
        if (action := actions.get(event.scancode)) is not None:
            action(now_s)

    def _escape(self, now_s: float) -> None:
        """Undo the innermost thing: the help, the mouse, the walk itself."""
        if self._help:
            self._help = False
        elif self._shell.mouse_grabbed:
            self._shell.grab_mouse(False)
            self._shell.toasts.add("The mouse is free. Esc again for the menu.", now_s)
        else:
            self._open_pause()

    def _toggle_help(self, now_s: float) -> None:
        self._help = not self._help
        self._shell.toasts.clear()

    def _toggle_figures(self, now_s: float) -> None:
        shell = self._shell
        shell.apply_settings(shell.settings.model_copy(update={"hud": not shell.settings.hud}))
        self._figures = None

    def _toggle_reprojection(self, now_s: float) -> None:
        shell = self._shell
        on = not shell.settings.reproject
        shell.apply_settings(shell.settings.model_copy(update={"reproject": on}))
        shell.toasts.add("Instant look on." if on else "Instant look off: the model alone answers.", now_s)

    def _toggle_flying(self, now_s: float) -> None:
        rig = self.walk.planner.rig
        if rig is not None:
            rig.flying = not rig.flying
            self._shell.toasts.add("Flying: Space rises, C sinks." if rig.flying else "Walking.", now_s)

    def _open_pause(self) -> None:
        self._shell.release_controls()
        self.walk.pause()
        self._card = pause_card(self._shell.settings)

    def _handle_card(self, event: pygame.event.Event, card: CardMenu, now_s: float) -> None:
        step = step_of(event)
        if event.type == pygame.KEYDOWN and event.scancode == pygame.KSCAN_P and not self._broken:
            step = Step.MENU
        if event.type == pygame.MOUSEMOTION and (index := card.at(event.pos)) is not None:
            card.chosen = index
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            step = Step.ACCEPT if card.at(event.pos) is not None else None
        if step in (Step.UP, Step.DOWN):
            card.move(1 if step is Step.DOWN else -1)
        elif step in (Step.LEFT, Step.RIGHT):
            self._adjust(card, 1 if step is Step.RIGHT else -1)
        elif step in (Step.BACK, Step.MENU):
            self._choose_line("resume", now_s)
        elif step is Step.ACCEPT:
            self._choose_line(card.key, now_s)

    def _adjust(self, card: CardMenu, direction: int) -> None:
        settings = adjust(self._shell.settings, card.key, direction)
        if settings != self._shell.settings:
            self._shell.apply_settings(settings)
            self._card = pause_card(settings, card.chosen)

    def _choose_line(self, key: str, now_s: float) -> None:
        if key in ("again", "reset") or (key == "resume" and self._broken):
            self._card, self._broken = None, False
            self._reset(now_s)
        elif key == "resume":
            self._card = None
            self.walk.resume()
        elif key == "worlds":
            name = self._options.world
            self._shell.show(lambda: self._choose(name))
        elif key == "quit":
            self._shell.quit()
        elif self._card is not None:
            self._adjust(self._card, 1)

    def _reset(self, now_s: float) -> None:
        self._stop_recording(now_s)
        self._shell.keyboard.release_all()
        self._shell.mouse.forget()
        self.walk.reset()

    def _go_to_neighbour(self, direction: int) -> None:
        cards = [card for card in self._shell.cards if not card.problem]
        if cards:
            path = self.walk.session.world.path
            here = index_of(cards, str(path) if path is not None else self._options.world)
            card = cards[(here + direction) % len(cards)]
            options = replace(self._options, world=card.name, replay=None, record=None)
            self._shell.show(lambda: self._open_world(options))

    def _toggle_recording(self, now_s: float) -> None:
        if self.walk.recorder.path is not None:
            self._stop_recording(now_s)
            return
        folder, name = self._shell.pictures_dir, self.walk.session.world.name
        try:
            make_folder(folder)
        except ValueError as error:
            self._warn(error, now_s)
            return
        self._start_recording(unused_path(folder, name, SUFFIX, datetime.now().astimezone()), now_s)

    def _start_recording(self, path: Path, now_s: float) -> None:
        try:
            self.walk.start_recording(path)
        except (ValueError, EngineError) as error:
            self._warn(error, now_s)
        else:
            self._shell.toasts.add(f"Recording from the first step to {path}. F10 stops.", now_s)

    def _stop_recording(self, now_s: float) -> None:
        try:
            path = self.walk.recorder.stop()
        except RecordingStopped as error:
            self._warn(error, now_s)
            return
        if path is not None:
            self._shell.toasts.add(f"Recorded to {path}", now_s)

    def _take_photo(self, now_s: float) -> None:
        frame, session = self.walk.frame, self.walk.session
        _, _, width, height = self._picture_rect()
        path = unused_path(self._shell.pictures_dir, session.world.name, ".png", datetime.now().astimezone())
        try:
            picture = enlarge(frame.pixels, width, height, self._shell.settings.picture)
            save_photo(
                path, picture, describe(session, self.walk.seed, frame.index, frame.chunk_index, frame.c2w)
            )
        except ValueError as error:
            self._warn(error, now_s)
        else:
            self._shell.toasts.add(f"Saved {path}", now_s)

    def _warn(self, error: Exception, now_s: float) -> None:
        sentence = str(error)
        self._shell.toasts.add(sentence[:1].upper() + sentence[1:] + ".", now_s, warning=True)

    def update(self, now_s: float) -> bool:
        intent = read_intent(self._shell.keyboard, self._shell.mouse, self._shell.pads.readings())
        changed = self._changed
        self._changed = False
        try:
            changed |= not self._broken and self.walk.update(intent, now_s)
        except RecordingStopped as error:
            self._warn(error, now_s)
        except Exception as error:
            self._break(error)
        turn_rad = self.walk.live_turn_rad if self._shell.settings.reproject else (0.0, 0.0)
        changed |= turn_rad != self._turn_rad
        self._turn_rad = turn_rad
        if self._shell.settings.hud and now_s - self._figures_s >= FIGURES_EVERY_S:
            shell = self._shell
            figures = self.walk.figures(shell.client_ms, shell.settings.reproject)
            self._figures, self._figures_s = figures, now_s
            changed = True
        return changed

    def _break(self, error: Exception) -> None:
        """Keep the window and say what happened: the engine's threads cannot go on by themselves."""
        self._broken = True
        self._changed = True
        self._shell.release_controls()
        self._card = problem_card("The walk cannot go on", error)

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        look = self._shell.look
        target.fill(theme.INK)
        left, top, width, height = self._picture_rect()
        target.blit(self._enlarged(width, height), (left, top))
        covered = self._help or self._card is not None
        if self._shell.settings.hud and self._figures is not None and not covered:
            hud.draw_figures(target, look, self._figures)
        if self.walk.recorder.path is not None:
            hud.draw_recording(target, look, self.walk.walked_s)
        if (progress := self.walk.progress) is not None:
            hud.draw_progress(target, look, _replay_label(progress, self.walk), progress)
        if self._card is not None:
            self._card.draw(target, look)
        elif self._help:
            draw_help(target, look)

    def _picture_rect(self) -> tuple[int, int, int, int]:
        return fit_rect(*self.walk.session.frame_size, *self._shell.window.size)

    def _enlarged(self, width: int, height: int) -> pygame.Surface:
        """Return the frame at its size on the screen, turned to the live view; made once for each."""
        frame, style = self.walk.frame, self._shell.settings.picture
        pixels = self._live_picture.show(frame.pixels, frame.c2w, self._turn_rad, (width, height), style)
        if self._surface is None or self._surface[0] is not pixels:
            self._surface = pixels, frame_surface(pixels)
        return self._surface[1]

    def leave(self) -> None:
        self._shell.release_controls()
        self._stop_recording(self._shell.clock())
        self.walk.close()


def _replay_label(progress: float, walk: Walk) -> str:
    if progress >= 1.0:
        return "End of the recorded walk. Backspace starts it again, Esc leaves."
    return f"Replay, {walk.frame.index / walk.session.fps:.1f} s"
