"""The walk in the window: devices in, frames and figures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pygame

from client.input.actions import Step
from client.input.answering import Answering
from client.input.bindings import action_of_button
from client.input.controls import MOVING
from client.input.gamepads import step_of_button
from client.playback.walk import Walk
from client.screens.anchoring import Anchoring
from client.screens.clipping import Clipping
from client.screens.help import HelpPanel
from client.screens.keeping import Keeping
from client.screens.menu_stack import PRESSED, MenuStack
from client.screens.menus import DO
from client.screens.pausing import Gate
from client.screens.photo_mode import PhotoMode
from client.screens.recovering import Recovering
from client.screens.remembering import Remembering
from client.screens.switching import Switching
from client.setup.catalog import index_of
from client.setup.opening import Opened
from client.setup.options import PlayOptions
from client.ui import theme
from client.ui.app_context import AppContext, Screen
from client.ui.flash import Flash
from client.ui.live_picture import LivePicture
from client.ui.menu import picture_surface
from client.ui.overlays import Overlays
from client.ui.picture import fit_rect
from engine.errors import RolloutDiverged
from engine.files.recording_writer import RecordingStopped


class WalkScreen(Screen):
    """A walk under way, with what lies over it."""

    def __init__(
        self,
        app: AppContext,
        options: PlayOptions,
        opened: Opened,
        open_world: Callable[[PlayOptions], Screen],
        choose: Callable[[str | None], Screen],
    ) -> None:
        """Begin to walk.

        Args:
            app: What all screens share.
            options: What was asked for; its recording is begun at once.
            opened: The session and what plans its cameras.
            open_world: Makes the screen that opens another world.
            choose: Makes the start screen, with a world chosen.
        """
        self._app = app
        self._options = options
        self._open_world = open_world
        self._choose = choose
        past_bytes = app.settings.past_mb << 20
        self.walk = Walk(
            opened.session,
            opened.planner,
            opened.seed,
            app.clock,
            past_bytes=past_bytes,
            record_latents=options.record_latents,
        )
        self._menus = MenuStack(app)
        self._flash = Flash(self.walk.instruments.meter)
        self._keeping = Keeping(
            app, self.walk, lambda: self._picture_rect()[2:], lambda: self.remembering.frame
        )
        self.remembering = Remembering(app, self.walk, self._keeping)
        self._recovering = Recovering(app, self.walk, self._keeping)
        anchoring = Anchoring(app, self.walk, self._keeping)
        clipping = Clipping(app, self.walk, self._keeping)
        self._photo_mode = PhotoMode(app, self.walk)
        keepers = [self._keeping, self.remembering, anchoring, clipping, self._photo_mode]
        self._answering = Answering([self, Switching(app, self.walk), *keepers, self._flash])
        self._gate = Gate(app, self.walk, self._answering, self.remembering, self._photo_mode)
        self._help = HelpPanel()
        self._changed = True
        self._overlays = Overlays(app, self.walk, self.remembering.lines)
        self._live_picture = LivePicture(opened.session.world.intrinsics)
        self._surface: tuple[object, pygame.Surface] | None = None
        self._turn_rad = np.zeros(3)
        self._flash_places: list[pygame.Rect] = []
        app.window.set_title(opened.session.world.title)
        app.release_controls()
        if options.replay is None:
            welcome = f"Click to look with the mouse. {app.key_of('help')} shows all keys."
            app.toasts.add(welcome, app.clock())
        if options.record is not None:
            self._keeping.start_recording(options.record, app.clock())
        if options.trace is not None:
            self._keeping.start_trace(options.trace, app.clock())

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        self._changed = True
        if event.type == pygame.WINDOWFOCUSLOST:
            self._answering.end_all(now_s)
            self.walk.let_go()
        elif self._menus.is_open and self._help.is_open:
            self._turn_help(event, now_s)
        elif self._menus.is_open:
            self._choose_line(self._menus.handle(event), now_s)
        elif event.type == pygame.KEYUP:
            self._app.keyboard.release(event.scancode)
            self._answering.end(event.scancode, now_s)
        elif event.type == pygame.KEYDOWN:
            self._press(event.scancode, now_s)
        elif event.type == pygame.MOUSEMOTION:
            if self._app.mouse_grabbed:
                self._app.mouse.move(*event.rel)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._help.close()
            self._app.grab_mouse(self.walk.planner.rig is not None)
        elif event.type == pygame.CONTROLLERBUTTONDOWN:
            self._press_button(event.button, now_s)
        elif event.type == pygame.CONTROLLERBUTTONUP:
            self._answering.end(_held_by(event.button), now_s)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._answering.end_all(now_s)

    def _press(self, scancode: int, now_s: float) -> None:
        if self._app.keyboard.press(scancode):
            return
        if scancode == pygame.KSCAN_ESCAPE:
            self._escape(now_s)
        elif (name := self._app.bindings.action(scancode)) is not None:
            self._gate.begin(name, now_s, scancode)

    def _press_button(self, button: int, now_s: float) -> None:
        name = action_of_button(button)
        if name is not None and name not in MOVING:
            self._gate.begin(name, now_s, _held_by(button))
        elif step_of_button(button) is Step.BACK:
            self._escape(now_s)

    def _escape(self, now_s: float) -> None:
        """Undo the innermost thing: the help, the mouse, the walk itself."""
        if self.remembering.cancel() or self._photo_mode.leave():
            return
        if self._help.is_open:
            self._help.close()
        elif self._app.mouse_grabbed:
            self._app.grab_mouse(False)
            self._app.toasts.add("The mouse is free. Esc again for the menu.", now_s)
        else:
            self.do_pause(now_s)

    def do_help(self, now_s: float) -> None:
        self._help.turn()
        self._app.toasts.clear()

    def _turn_help(self, event: pygame.event.Event, now_s: float) -> None:
        """Answer an event while the help lies over the pause: its key turns the page, every other one closes it."""
        pressed = event.type in (pygame.KEYDOWN, pygame.CONTROLLERBUTTONDOWN, pygame.MOUSEBUTTONDOWN)
        if pressed and self._menus.action_of(event) == "help":
            self.do_help(now_s)
        elif pressed:
            self._help.close()

    def do_pause(self, now_s: float) -> None:
        self._help.close()
        self._photo_mode.leave()
        self._answering.end_all(now_s)
        self._app.release_controls()
        self.walk.pause()
        self._menus.pause()

    def _choose_line(self, key: str | None, now_s: float) -> None:
        if key == "again" or (key == "resume" and self._menus.broken):
            self._begin_again()
        elif key == "reset":
            self._menus.close()
            self.do_restart(now_s)
        elif key == "resume":
            self._menus.close()
            self.walk.resume()
        elif key is not None and key.startswith(PRESSED):
            self._gate.begin_in_pause(key.removeprefix(PRESSED), now_s)
        elif key == f"{DO}help":
            self.do_help(now_s)
        elif key is not None and key.startswith(DO):
            self._menus.close()
            self.walk.resume()
            self._gate.begin(key.removeprefix(DO), now_s)
        elif key == "worlds":
            name = self._options.world
            self._app.show(lambda: self._choose(name))
        elif key == "quit":
            self._app.quit()

    def _begin_again(self) -> None:
        """Open the world anew, engine and all: what broke may have been the device or a file."""
        options = replace(self._options, record=None, record_latents=False)
        self._app.show(lambda: self._open_world(options))

    def do_restart(self, now_s: float) -> None:
        self.remembering.cancel()
        self._photo_mode.leave()
        self._app.keyboard.release_all()
        self._app.mouse.forget()
        self._keeping.restart(now_s)

    def do_next_world(self, now_s: float) -> None:
        self._go_to_neighbour(1)

    def do_previous_world(self, now_s: float) -> None:
        self._go_to_neighbour(-1)

    def _go_to_neighbour(self, direction: int) -> None:
        worlds = [world for world in self._app.worlds if not world.problem]
        if worlds:
            path = self.walk.session.world.path
            here = index_of(worlds, str(path) if path is not None else self._options.world)
            world = worlds[(here + direction) % len(worlds)]
            options = replace(self._options, world=world.name, replay=None, record=None, record_latents=False)
            self._app.show(lambda: self._open_world(options))

    def update(self, now_s: float) -> bool:
        if (rig := self.walk.planner.rig) is not None:
            rig.pace = self._app.settings.pace
        intent = self._app.read_intent()
        changed = self._changed
        self._changed = False
        try:
            changed |= not self._menus.broken and self.walk.update(intent, now_s)
        except RecordingStopped as error:
            self._keeping.warn(error, now_s)
        except RolloutDiverged as error:
            self.remembering.cancel()
            if not self._recovering.recover(now_s):
                self._break(error)
        except Exception as error:
            self._break(error)
        changed |= self.remembering.update(now_s)
        if (problem := self.walk.instruments.take_problem()) is not None:
            self._keeping.warn(problem, now_s)
        turn_rad = self.walk.live_turn_rad if self._app.settings.reproject else np.zeros(3)
        changed |= not np.array_equal(turn_rad, self._turn_rad)
        self._turn_rad = turn_rad
        return self._overlays.update(intent, now_s) or changed

    def _break(self, error: Exception) -> None:
        """Keep the window and say what happened: the engine's threads cannot go on by themselves."""
        self._changed = True
        self._help.close()
        self._app.release_controls()
        self._menus.explain("The walk cannot go on", error)

    def draw(self, target: pygame.Surface, now_s: float) -> None:
        look = self._app.look
        left, top, width, height = self._picture_rect()
        if (width, height) != target.get_size():
            target.fill(theme.INK)
        target.blit(self._enlarged(width, height), (left, top))
        self._flash_places = self._flash.draw(target, look, self.walk.frame.index)
        covered = self._help.is_open or self._menus.is_open or self.remembering.frame is not None
        if not self._photo_mode.is_on:
            self._overlays.draw(target, covered)
        self.remembering.draw(target, look)
        if self._help.is_open:
            self._help.draw(target, look, self._app.bindings)
        else:
            self._menus.draw(target, look)

    def taken(self) -> Sequence[pygame.Rect]:
        if self._help.is_open:
            return [self._help.place]
        overlays = [] if self._photo_mode.is_on else self._overlays.taken
        return self._menus.taken() or [*self._flash_places, *overlays, *self.remembering.taken()]

    def _picture_rect(self) -> tuple[int, int, int, int]:
        return fit_rect(*self.walk.session.frame_size, *self._app.window.size)

    def _enlarged(self, width: int, height: int) -> pygame.Surface:
        """Return the frame at its size on the screen, turned to the live view; made once for each."""
        past, style = self.remembering.frame, self._app.settings.picture
        frame = past or self.walk.frame
        rotations = self.walk.live_rotations if self._app.settings.reproject and past is None else None
        pixels = self._live_picture.show(frame.pixels, rotations, (width, height), style)
        if self._surface is None or self._surface[0] is not pixels:
            self._surface = pixels, picture_surface(pixels)
        return self._surface[1]

    def note_shown(self, now_s: float) -> None:
        self.walk.note_shown(now_s, self._app.settings.reproject)

    def leave(self) -> None:
        self._app.release_controls()
        self._keeping.stop_recording(self._app.clock())
        self.remembering.forget()
        self.walk.close()


def _held_by(button: int) -> int:
    """Return what stands for a gamepad's button among the scancodes of held keys."""
    return -1 - button
