"""The walk in the window: devices in, frames and metrics out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pygame
from numpy.typing import NDArray

from client.camera.limits import Leveler
from client.camera.rig import ON_THE_GROUND_M
from client.input.actions import Handler, Step
from client.input.bindings import action_of_button
from client.input.controls import MOVING
from client.input.gamepads import step_of_button
from client.playback.history import WalkFrame
from client.playback.saves import SavedEntry
from client.playback.walk import Walk
from client.screens.capture import CaptureController
from client.screens.help import HelpPanel
from client.screens.menu_stack import PRESSED, MenuStack
from client.screens.menus import DO
from client.screens.replay_controls import ReplayControls
from client.screens.rewind import RewindController
from client.screens.saved_walks import SAVED, SavedWalks
from client.screens.truth_view import TruthMode, TruthView
from client.screens.walk_actions import SettingKeys, WalkActions, wants_refiner
from client.setup.catalog import index_of
from client.setup.opening import Opened
from client.setup.options import PlayOptions
from client.ui import theme
from client.ui.app_context import AppContext, Screen
from client.ui.hud import Hud, LatencyMarker
from client.ui.limit_notice import LimitNotice
from client.ui.menu import Menu, picture_surface
from client.ui.picture import LivePicture, fit_rect
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
        self.walk = Walk(
            opened.session,
            opened.planner,
            opened.seed,
            app.clock,
            history_bytes=app.settings.past_mb << 20,
            record_latents=options.record_latents,
            refiner=options.refiner == "on" or wants_refiner(app.settings, opened.session),
            keep_refiner=options.refiner == "on",
            span=opened.span,
        )
        self._refiner_setting = app.settings.refiner
        self._menus = MenuStack(app)
        self._marker = LatencyMarker(self.walk.statistics.latency)
        self._capture = CaptureController(
            app, self.walk, lambda: self._picture_rect()[2:], lambda: self.rewind.frame
        )
        self.rewind = RewindController(app, self.walk, self._capture)
        self._saved = SavedWalks(app, self._menus, self._go_to_saved)
        self._actions = WalkActions(app, self.walk, self._capture, self.rewind, self._handlers())
        self._help = HelpPanel()
        self._changed = True
        self._hud = Hud(app, self.walk, self.rewind.metric_lines)
        self._replay = ReplayControls(app, self.walk, self._hud.replay_bar)
        self._limits, self._leveler = LimitNotice(app, self.walk), Leveler()
        self._live_picture = LivePicture(opened.session.world.intrinsics)
        self._truth = TruthView(opened.session.world)
        self._surface: tuple[object, pygame.Surface] | None = None
        self._live_offset = np.zeros(6)
        self._marker_places: list[pygame.Rect] = []
        self._begin(options)

    def _begin(self, options: PlayOptions) -> None:
        """Greet the player, and start what was asked for with the walk."""
        app, world = self._app, self.walk.session.world
        app.window.set_title(world.title)
        app.release_controls()
        app.sound.enter((world.name, world.title, world.info.caption))
        if options.replay is None:
            app.say(f"Click to look with the mouse. {app.key_of('help')} shows all keys.")
        else:
            leave = app.key_of("walk_on")
            app.say(f"A replay in {world.title}: Space holds it, arrows seek. {leave} walks on from here.")
        if options.record is not None:
            self._capture.start_recording(options.record, options.overwrite)
        if options.saved is not None:
            self.rewind.load(options.saved)
        if options.trace is not None:
            self._capture.start_trace(options.trace, options.overwrite)

    @property
    def menu(self) -> Menu | None:
        """The menu over the walk; None where there is none."""
        return self._menus.top

    def _handlers(self) -> dict[str, Handler | Callable[[float], None]]:
        """Return who answers each action; those that move the camera are read from the keyboard's state instead."""
        capture, rewind, settings = self._capture, self.rewind, SettingKeys(self._app, self.walk)
        return {
            "fly": lambda _: settings.toggle_flying(),
            "faster": lambda _: settings.change_pace(1),
            "slower": lambda _: settings.change_pace(-1),
            "instant_look": lambda _: settings.switch_reprojection(),
            "refiner": lambda _: settings.switch_refiner(),
            "restart": self.restart,
            "next_world": lambda _: self._go_to_neighbour(1),
            "previous_world": lambda _: self._go_to_neighbour(-1),
            "pause": self._pause,
            "new_world": capture.reseed,
            "quick_save": rewind.quick_save,
            "quick_load": rewind.quick_load,
            "rewind": Handler(rewind.begin_rewind, rewind.end_rewind),
            "other_branch": rewind.other_branch,
            "walk_on": rewind.walk_on,
            "record": capture.toggle_recording,
            "clip": capture.save_clip,
            "photo_mode": capture.toggle_photo_mode,
            "photo": capture.take_photo,
            "help": self._turn_help,
            "map": lambda _: settings.switch("show_map"),
            "held_keys": lambda _: settings.switch("show_held"),
            "figures": lambda _: settings.switch("hud"),
            "flash": self._marker.toggle,
            "truth": self._turn_truth,
            "sound": lambda _: settings.switch_sound(),
        }

    def handle(self, event: pygame.event.Event, now_s: float) -> None:
        self._changed = True
        if event.type == pygame.WINDOWFOCUSLOST:
            self._actions.end_all(now_s)
            self.walk.drop_taps()
        elif self._menus.is_open and self._help.is_open:
            self._help_event(event, now_s)
        elif self._menus.is_open:
            self._choose_line(self._menus.handle(event), now_s)
        elif self.rewind.frame is None and self._replay.handle(event):
            return
        elif event.type == pygame.KEYUP:
            self._app.keyboard.release(event.scancode)
            self._actions.end(event.scancode, now_s)
        elif event.type == pygame.KEYDOWN:
            self._press(event.scancode, now_s)
        elif event.type == pygame.MOUSEMOTION:
            if self._app.mouse_grabbed:
                self._app.mouse.move(*self._app.pointer.motion(*event.rel))
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._help.close()
            self._app.grab_mouse(self.walk.planner.rig is not None)
        elif event.type == pygame.CONTROLLERBUTTONDOWN:
            self._press_button(event.button, now_s)
        elif event.type == pygame.CONTROLLERBUTTONUP:
            self._actions.end(_held_by(event.button), now_s)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._actions.end_all(now_s)

    def _press(self, scancode: int, now_s: float) -> None:
        if self._app.keyboard.press(scancode):
            return
        if scancode == pygame.KSCAN_ESCAPE:
            self._escape(now_s)
        elif (name := self._app.bindings.action(scancode)) is not None:
            self._actions.begin(name, now_s, scancode)

    def _press_button(self, button: int, now_s: float) -> None:
        name = action_of_button(button)
        if name is not None and name not in MOVING:
            self._actions.begin(name, now_s, _held_by(button))
        elif step_of_button(button) is Step.BACK:
            self._escape(now_s)

    def _escape(self, now_s: float) -> None:
        """Undo the innermost thing: the help, the mouse, the walk itself."""
        if self.rewind.cancel() or self._capture.leave_photo_mode():
            return
        if self._help.is_open:
            self._help.close()
        elif self._app.mouse_grabbed:
            self._app.grab_mouse(False)
            self._app.say("The mouse is free. Esc again for the menu.")
        else:
            self._pause(now_s)

    def _turn_help(self, now_s: float) -> None:
        self._help.turn()
        self._app.toasts.clear()

    def _help_event(self, event: pygame.event.Event, now_s: float) -> None:
        """Answer an event while the help lies over the pause: its key turns the page, every other one closes it."""
        pressed = event.type in (pygame.KEYDOWN, pygame.CONTROLLERBUTTONDOWN, pygame.MOUSEBUTTONDOWN)
        if pressed and self._menus.action_of(event) == "help":
            self._turn_help(now_s)
        elif pressed:
            self._help.close()

    def _pause(self, now_s: float) -> None:
        self._help.close()
        self._capture.leave_photo_mode()
        self._actions.end_all(now_s)
        self._app.release_controls()
        self.walk.pause()
        self._menus.pause()

    def _choose_line(self, key: str | None, now_s: float) -> None:
        if key == "again" or (key == "resume" and self._menus.broken):
            self._begin_again()
        elif key == "reset":
            self._menus.close()
            self.restart(now_s)
        elif key == "resume":
            self._menus.close()
            self.walk.resume()
        elif key is not None and self._saved.take(key):
            return
        elif key is not None and key.startswith(PRESSED):
            self._actions.begin_in_pause(key.removeprefix(PRESSED), now_s)
        elif key == f"{DO}help":
            self._turn_help(now_s)
        elif key is not None and key.startswith(DO):
            self._menus.close()
            self.walk.resume()
            self._actions.begin(key.removeprefix(DO), now_s)
        elif key == "worlds":
            name = self._world_path
            self._app.show(lambda: self._choose(name))
        elif key == SAVED:
            self._saved.open(self.walk.session.identity)
        elif key == "quit":
            self._app.quit()

    @property
    def _world_path(self) -> str | None:
        """Path of the world that is walked through, which may have been begun in this walk."""
        path = self.walk.session.world.path
        return str(path) if path is not None else self._options.world

    def _go_to_saved(self, entry: SavedEntry) -> None:
        """Leave the pause for a saved walk of this world."""
        self._menus.close()
        self.walk.resume()
        self.rewind.load(entry.path)

    def _begin_again(self) -> None:
        """Open the world anew, engine and all: what broke may have been the device or a file."""
        options = replace(self._options, record=None, record_latents=False)
        self._app.show(lambda: self._open_world(options))

    def restart(self, now_s: float) -> None:
        self.rewind.cancel()
        self._capture.leave_photo_mode()
        self._app.keyboard.release_all()
        self._app.mouse.forget()
        if self.walk.replay is not None:
            self._replay.restart()
        else:
            self._capture.restart()

    def _go_to_neighbour(self, direction: int) -> None:
        listed = self._app.list_worlds() if self._app.worlds_changed else self._app.worlds
        worlds = [world for world in listed if not world.problem]
        if worlds:
            here = index_of(worlds, self._world_path)
            world = worlds[(here + direction) % len(worlds)]
            options = replace(
                self._options, world=world.name, replay=None, saved=None, record=None, record_latents=False
            )
            self._app.show(lambda: self._open_world(options))

    def update(self, now_s: float) -> bool:
        if (rig := self.walk.planner.rig) is not None:
            rig.pace = self._app.settings.pace
        self._follow_refiner()
        intent = self._leveler.apply(self._app.read_intent(), rig.roll_rad if rig is not None else 0.0)
        changed = self._changed
        self._changed = False
        try:
            changed |= not self._menus.broken and self.walk.update(intent, now_s)
        except RecordingStopped as error:
            self._app.warn(error)
        except RolloutDiverged as error:
            self.rewind.cancel()
            if not self.rewind.recover():
                self._break(error)
        except Exception as error:
            self._break(error)
        changed |= self.rewind.update(now_s)
        if (problem := self.walk.statistics.take_problem()) is not None:
            self._app.warn(problem)
        offset = np.zeros(6)
        if self._app.settings.reproject:
            offset = np.concatenate([self.walk.live_turn_rad, self.walk.live_move_m])
        changed |= not np.array_equal(offset, self._live_offset)
        self._live_offset = offset
        changed |= self._limits.update(intent, now_s)
        changed |= self._update_truth()
        frame = self.rewind.frame or self.walk.frame
        self._app.sound.follow(frame.c2w[:3, 3], self._is_on_foot(frame))
        return self._hud.update(intent, now_s) or changed

    def _is_on_foot(self, frame: WalkFrame) -> bool:
        """Whether somebody walks; of a replay only the height of the eyes tells."""
        if (rig := self.walk.planner.rig) is not None:
            return not rig.flying
        eye_y_m = self.walk.session.world.origin_c2w[1, 3]
        return abs(frame.c2w[1, 3] - eye_y_m) <= ON_THE_GROUND_M

    def _follow_refiner(self) -> None:
        """Take over the setting once it changes; what the command line asked for holds until then."""
        if self._app.settings.refiner != self._refiner_setting:
            self._refiner_setting = self._app.settings.refiner
            self.walk.refiner_wanted = wants_refiner(self._app.settings, self.walk.session)

    def _turn_truth(self, _now_s: float) -> None:
        """Show the truth beside the picture, then alone, then not."""
        if not self._truth.is_offered:
            self._app.say("This world was made from no place of the holodeck, so there is no truth to show.")
            return
        mode = self._truth.turn()
        self._app.toasts.replace("Truth: ", f"{mode.value}.", self._app.clock())

    def _update_truth(self) -> bool:
        """Keep the truth at the frame that is on, and the line under a pointer that is free."""
        if self._truth.mode is TruthMode.OFF:
            return False
        line = 0.5
        if not self._app.mouse_grabbed and pygame.mouse.get_focused():
            left, _, width, _ = self._picture_rect()
            line = min(1.0, max(0.0, (pygame.mouse.get_pos()[0] - left) / width))
        moved, self._truth.line = line != self._truth.line, line
        return self._truth.update(self.rewind.frame or self.walk.frame) or moved

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
        if not self._capture.photo_mode:
            self._limits.draw(target, pygame.Rect(left, top, width, height))
        self._marker_places = self._marker.draw(target, look, self.walk.frame.index)
        covered = self._help.is_open or self._menus.is_open or self.rewind.frame is not None
        if not self._capture.photo_mode:
            self._hud.draw(target, covered)
        self.rewind.draw(target, look)
        if self._help.is_open:
            self._help.draw(target, look, self._app.bindings)
        else:
            self._menus.draw(target, look)

    def taken(self) -> Sequence[pygame.Rect]:
        if self._help.is_open:
            return [self._help.place]
        overlays = [] if self._capture.photo_mode else self._hud.taken
        return self._menus.taken() or [*self._marker_places, *overlays, *self.rewind.taken()]

    def _picture_rect(self) -> tuple[int, int, int, int]:
        return fit_rect(*self.walk.session.frame_size, *self._app.window.size)

    def _enlarged(self, width: int, height: int) -> pygame.Surface:
        """Return the frame at its size on the screen, warped to the live view; made once for each."""
        past, style = self.rewind.frame, self._app.settings.picture
        frame = past or self.walk.frame
        if (compared := self._truth.picture()) is not None:
            return self._surface_of(self._live_picture.show(compared, None, (width, height), style))
        poses = self.walk.live_poses if self._app.settings.reproject and past is None else None
        pixels = self._live_picture.show(
            frame.pixels, poses, (width, height), style, frame.inverse_depth, self.walk.surroundings
        )
        return self._surface_of(pixels)

    def _surface_of(self, pixels: NDArray[np.uint8]) -> pygame.Surface:
        if self._surface is None or self._surface[0] is not pixels:
            self._surface = pixels, picture_surface(pixels)
        return self._surface[1]

    def note_shown(self, now_s: float) -> None:
        self.walk.note_shown(now_s, self._app.settings.reproject)

    def leave(self) -> None:
        self._app.release_controls()
        self._capture.stop_recording()
        self.rewind.forget()
        self._truth.close()
        self._app.sound.leave()
        self.walk.close()


def _held_by(button: int) -> int:
    """Return what stands for a gamepad's button among the scancodes of held keys."""
    return -1 - button
