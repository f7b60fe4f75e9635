"""Answers the keys that go back in a walk: quick save and load, winding back, and the branch that was left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pygame

from client.playback.past import Moment, WalkFrame
from client.playback.reel import Reel
from client.playback.saves import describe_moment, load_walk, save_file
from client.playback.walk import Walk
from client.screens.keeping import Keeping
from client.setup.folders import SAVES, make_folder
from client.ui.app_context import AppContext
from client.ui.figures import Line, Section
from client.ui.film_strip import FilmStrip
from client.ui.theme import Theme
from engine.errors import EngineError
from engine.files.recording import RecordedChunk
from engine.files.saved_walk import home_of, write_saved_walk


class Remembering:
    """The past of the walk in the window."""

    def __init__(self, app: AppContext, walk: Walk, keeping: Keeping) -> None:
        self._app = app
        self._walk = walk
        self._keeping = keeping
        self._reel: Reel | None = None
        self._strip = FilmStrip()

    @property
    def frame(self) -> WalkFrame | None:
        """The frame of the past that is looked at; None in the present."""
        return self._reel.moment.frame if self._reel is not None else None

    def do_quick_save(self, now_s: float) -> None:
        moment = self._reel.moment if self._reel is not None else self.moment_on_screen(now_s)
        if moment is None:
            return
        saved = describe_moment(self._walk, moment)
        path = save_file(self._app.pictures_dir / SAVES, self._walk.session)
        at = self._seconds(moment.frame)

        def write() -> None:
            make_folder(path.parent)
            write_saved_walk(path, saved)

        said = f"Saved at {at}; {self._app.key_of('quick_load')} comes back here."
        self._say_if_waiting("Saving")
        self._app.chores.begin("the save", write, lambda _: self._say(said), self._warn)

    def do_quick_load(self, now_s: float) -> None:
        session = self._walk.session
        path = save_file(self._app.pictures_dir / SAVES, session)
        if not path.exists() and self._app.chores.in_hand is None:
            key = self._app.key_of("quick_save")
            self._app.toasts.add(f"Nothing is saved in this world yet; {key} saves.", now_s)
        elif self._walk.planner.rig is None:
            self._app.toasts.add("A replay cannot be left for a saved walk; open the world to walk.", now_s)
        else:
            self._say_if_waiting("Loading")
            read = partial(load_walk, path, home_of(session))
            self._app.chores.begin("what was saved", read, self._go_to_saved, self._warn)

    def _go_to_saved(self, loaded: tuple[Moment, tuple[RecordedChunk, ...]]) -> None:
        moment, chunks = loaded
        walk = self._walk
        if walk.closed:
            return
        if walk.entering or moment.snapshot.identity != walk.session.identity:
            self._say("Another world has begun meanwhile; load again for what was saved in this one.")
            return
        self.cancel()
        held = walk.paused
        self._leave_present(f"Back at {self._seconds(moment.frame)}, as saved:", moment, chunks)
        if held:
            walk.pause()

    def do_rewind(self, now_s: float) -> None:
        walk = self._walk
        if walk.paused or self._reel is not None or self.moment_on_screen(now_s) is None:
            return
        film = [moment for moment in walk.past.moments if moment.frame.index < walk.frame.index]
        if film:
            walk.pause()
            self._reel = Reel(film, now_s)

    def end_rewind(self, now_s: float) -> None:
        """Go on from the moment that is shown."""
        if self._reel is not None:
            moment = self._reel.moment
            self.forget()
            self._leave_present(f"From {self._seconds(moment.frame)} on:", moment, None)

    def cancel(self) -> bool:
        """Go back to the present, if the past is looked at; say whether it was."""
        if self._reel is None:
            return False
        self.forget()
        self._walk.resume()
        return True

    def forget(self) -> None:
        """Let go of the moments that are wound through."""
        self._reel = None
        self._strip.clear()

    def do_other_branch(self, now_s: float) -> None:
        walk = self._walk
        if self._reel is not None or walk.paused:
            return
        if not walk.past.branches:
            key = self._app.key_of("rewind")
            self._app.toasts.add(f"There is one branch only; hold {key} to go back and begin another.", now_s)
            return
        with self._warning():
            ended = walk.return_to_branch()
            self._say(f"Branch {walk.past.name} goes on at {self._seconds(walk.frame)}.{self._takes(ended)}")

    def update(self, now_s: float) -> bool:
        """Wind on while the key is held; say whether the picture changed."""
        return self._reel is not None and self._reel.update(now_s)

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        """Draw the film strip, while the past is looked at."""
        if (reel := self._reel) is not None:
            back = self._walk.frame.index - reel.moment.frame.index
            title = f"{self._seconds(reel.moment.frame)}, {back / self._walk.session.fps:.1f} s back"
            hint = f"Let {self._app.key_of('rewind')} go to walk on from here. Esc returns to the present."
            self._strip.draw(target, look, reel, title, hint)

    def taken(self) -> list[pygame.Rect]:
        """Return where the film strip lies, while it is seen."""
        return [self._strip.place] if self._reel is not None else []

    def lines(self) -> list[Line]:
        """Return what the figures say of the past."""
        past, session = self._walk.past, self._walk.session
        if not session.keep_snapshots:
            held = f"off: a state takes {session.snapshot_bytes / 2**20:.0f} MB"
        else:
            used, room = past.num_bytes / 2**20, past.budget_bytes / 2**20
            held = f"{len(past.moments)} moments, {used:.0f} of {room:.0f} MB"
        others = f", {len(past.branches)} left" if past.branches else ""
        return [(Section.PLACE, "the past", held), (Section.PLACE, "branch", f"{past.name}{others}")]

    def _leave_present(
        self, beginning: str, moment: Moment, chunks: tuple[RecordedChunk, ...] | None
    ) -> None:
        walk = self._walk
        before = walk.past.name
        self._app.mouse.forget()
        with self._warning():
            ended = walk.branch_off(moment, chunks)
            kept = any(branch.name == before for branch in walk.past.branches)
            back = f" {self._app.key_of('other_branch')} returns to branch {before}." if kept else ""
            self._say(f"{beginning} branch {walk.past.name}.{back}{self._takes(ended)}")

    def _takes(self, ended: Path | None) -> str:
        now = self._walk.recorder.path
        return "" if ended is None or now is None else f" {ended.name} is whole; recording to {now.name} now."

    def moment_on_screen(self, now_s: float) -> Moment | None:
        """Return the moment nearest to the frame that is on, or say why there is none."""
        walk = self._walk
        if not walk.session.keep_snapshots:
            size = walk.session.snapshot_bytes / 2**20
            self._app.toasts.add(
                f"A state of this engine takes {size:.0f} MB; allow more memory for the past in the settings file.",
                now_s,
            )
            return None
        frames = walk.session.frames_per_chunk
        moment = walk.past.at(-(-walk.frame.index // frames))
        if moment is None:
            self._app.toasts.add("Nothing to go back to yet; the first step is being made.", now_s)
        return moment

    def _seconds(self, frame: WalkFrame) -> str:
        return f"{frame.index / self._walk.session.fps:.1f} s"

    def _say_if_waiting(self, doing: str) -> None:
        if (what := self._app.chores.in_hand) is not None:
            self._say(f"{doing}, as soon as {what} is done ...")

    def _say(self, text: str) -> None:
        self._app.toasts.add(text, self._app.clock())

    def _warn(self, error: Exception) -> None:
        self._keeping.warn(error, self._app.clock())

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Tell the player of what cannot be done inside the block, and go on."""
        try:
            yield
        except (ValueError, EngineError) as error:
            self._warn(error)
