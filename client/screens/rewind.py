"""Going back in a walk: quick save and load, rewind, branches, and recovery from a rollout that diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import pygame

from client.playback.history import Rewind, WalkFrame, WalkSnapshot
from client.playback.saves import load_walk, new_save_file, newest_save, save_stem, saved_walk
from client.playback.walk import Walk
from client.screens.capture import CaptureController
from client.setup.folders import SAVES, make_folder
from client.ui.app_context import AppContext
from client.ui.metrics import Line, Section
from client.ui.panels import FilmStrip
from client.ui.theme import Theme
from engine.errors import EngineError
from engine.files.recording import RecordedChunk
from engine.files.saved_walk import session_spec, write_saved_walk

STEADY_CHUNKS = 8
"""A walk that comes so far after a recovery has recovered."""
FURTHER = 4
"""How many times further back each recovery in a row goes."""
Loaded = tuple[WalkSnapshot, tuple[RecordedChunk, ...]]
"""A saved walk: where it goes on, and its chunks up to there."""


class RewindController:
    """Answers the keys that go back, and the rollout that diverged."""

    def __init__(self, app: AppContext, walk: Walk, capture: CaptureController) -> None:
        self._app = app
        self._walk = walk
        self._capture = capture
        self._rewind: Rewind | None = None
        self._strip = FilmStrip()
        self._recovery_chunks = 1
        """How far the last recovery went back."""
        self._leave_at: int | None = None
        """Chunks of a replay behind which it is to be left; None where it is not."""
        self._recovered_at: int | None = None
        """Chunks walked where the last recovery went back to; None where there was none."""

    @property
    def frame(self) -> WalkFrame | None:
        """The frame that a rewind shows; None where none is under way."""
        return self._rewind.snapshot.frame if self._rewind is not None else None

    def quick_save(self, now_s: float) -> None:
        """Write the snapshot on the screen, and the walk up to it."""
        snapshot = self._rewind.snapshot if self._rewind is not None else self.snapshot_on_screen()
        if snapshot is None:
            return
        saved = saved_walk(self._walk, snapshot)
        folder, stem = self._app.pictures_dir / SAVES, save_stem(self._walk.session)
        now = datetime.now().astimezone()

        def write() -> None:
            make_folder(folder)
            # The name is chosen here: of two saves within a second the second must see the first one's file.
            write_saved_walk(new_save_file(folder, stem, now), saved)

        message = (
            f"Saved at {self._seconds(snapshot.frame)}; {self._app.key_of('quick_load')} comes back here."
        )
        self._say_if_busy("Saving")
        self._app.jobs.start("the save", write, lambda _: self._app.say(message), self._app.warn)

    def quick_load(self, now_s: float) -> None:
        """Read the saved snapshot of this world, and go on from there."""
        folder, stem = self._app.pictures_dir / SAVES, save_stem(self._walk.session)
        spec = session_spec(self._walk.session)
        if self._walk.planner.rig is None:
            self._app.say("A replay cannot be left for a saved walk; open the world to walk.")
            return
        if newest_save(folder, stem) is None and self._app.jobs.current is None:
            self._app.say(f"Nothing is saved in this world yet; {self._app.key_of('quick_save')} saves.")
            return

        def read() -> Loaded:
            # Looked for here, behind a save that may be under way.
            path = newest_save(folder, stem)
            if path is None:
                raise ValueError("nothing is saved in this world yet; save first")
            return load_walk(path, spec)

        self._load(read)

    def load(self, path: Path) -> None:
        """Read a saved walk of this world, and go on from there."""
        self._load(partial(load_walk, path, session_spec(self._walk.session)))

    def _load(self, read: Callable[[], Loaded]) -> None:
        self._say_if_busy("Loading")
        self._app.jobs.start("what was saved", read, self._go_to_saved, self._app.warn)

    def _go_to_saved(self, loaded: Loaded) -> None:
        snapshot, chunks = loaded
        walk = self._walk
        if walk.closed:
            return
        if walk.entering or snapshot.state.identity != walk.session.identity:
            self._app.say("Another world has begun meanwhile; load again for what was saved in this one.")
            return
        self.cancel()
        paused = walk.paused
        self._branch_off(f"Back at {self._seconds(snapshot.frame)}, as saved:", snapshot, chunks)
        if paused:
            walk.pause()

    def walk_on(self, now_s: float) -> None:
        """Leave a replay at what it shows, and walk on from there."""
        walk, app = self._walk, self._app
        if walk.planner.rig is not None:
            app.say("You are walking already; this leaves a replay.")
            return
        frame = self.frame or walk.frame
        if not walk.session.keep_snapshots:
            self.snapshot_on_screen()
            return
        self.forget()
        self._leave_at = max(1, -(-frame.index // walk.session.frames_per_chunk))
        if not self._leave():
            walk.seek(self._leave_at * walk.session.frames_per_chunk, anew=True)

    def _leave(self) -> bool:
        """Leave a replay where that was asked for, once the walk is there; return whether it is."""
        walk, app, number = self._walk, self._app, self._leave_at
        if number is None or walk.replay is None:
            self._leave_at = None
            return True
        snapshot = walk.history.at(number)
        if snapshot is None or snapshot.number != number:
            return False
        self._leave_at = None
        with self._warning():
            walk.take_over(snapshot)
            app.window.set_title(walk.session.world.title)
            app.say(f"The replay is left at {self._seconds(snapshot.frame)}; walk on.")
        return True

    def begin_rewind(self, now_s: float) -> None:
        """Show earlier snapshots, ever further back while the key is held."""
        walk = self._walk
        if walk.paused or self._rewind is not None or self.snapshot_on_screen() is None:
            return
        snapshots = [
            snapshot for snapshot in walk.history.snapshots if snapshot.frame.index < walk.frame.index
        ]
        if snapshots:
            walk.pause()
            self._rewind = Rewind(snapshots, now_s)

    def end_rewind(self, now_s: float) -> None:
        """Go on from the snapshot that is shown."""
        if self._rewind is not None:
            snapshot = self._rewind.snapshot
            self.forget()
            if self._walk.replay is not None:
                self._walk.seek(snapshot.frame.index)
                return
            self._branch_off(f"From {self._seconds(snapshot.frame)} on:", snapshot, None)

    def cancel(self) -> bool:
        """Go back to the present; return whether a rewind was under way."""
        if self._rewind is None:
            return False
        self.forget()
        self._walk.resume()
        return True

    def forget(self) -> None:
        """Release the snapshots of the rewind."""
        self._rewind = None
        self._strip.clear()

    def other_branch(self, now_s: float) -> None:
        """Go on where the branch that was left last ended."""
        walk, app = self._walk, self._app
        if self._rewind is not None or walk.paused:
            return
        if not walk.history.branches:
            app.say(f"There is one branch only; hold {app.key_of('rewind')} to go back and begin another.")
            return
        with self._warning():
            ended = walk.return_to_branch()
            app.say(
                f"Branch {walk.history.name} goes on at {self._seconds(walk.frame)}.{self._next_take(ended)}"
            )

    def update(self, now_s: float) -> bool:
        """Go further back while the key is held; return whether the picture changed."""
        if self._leave_at is not None:
            self._leave()
        return self._rewind is not None and self._rewind.update(now_s)

    def draw(self, target: pygame.Surface, look: Theme) -> None:
        """Draw the film strip during a rewind."""
        if (rewind := self._rewind) is not None:
            back = self._walk.frame.index - rewind.snapshot.frame.index
            title = f"{self._seconds(rewind.snapshot.frame)}, {back / self._walk.session.fps:.1f} s back"
            hint = f"Let {self._app.key_of('rewind')} go to walk on from here. Esc returns to the present."
            self._strip.draw(target, look, rewind, title, hint)

    def taken(self) -> list[pygame.Rect]:
        """Return where the film strip lies, during a rewind."""
        return [self._strip.place] if self._rewind is not None else []

    def metric_lines(self) -> list[Line]:
        """Return the metrics of the history."""
        history, session = self._walk.history, self._walk.session
        if not session.keep_snapshots:
            held = f"off: a state takes {session.snapshot_bytes / 2**20:.0f} MB"
        else:
            used, budget = history.num_bytes / 2**20, history.budget_bytes / 2**20
            held = f"{len(history.snapshots)} snapshots, {used:.0f} of {budget:.0f} MB"
        others = f", {len(history.branches)} left" if history.branches else ""
        return [(Section.PLACE, "the past", held), (Section.PLACE, "branch", f"{history.name}{others}")]

    def recover(self) -> bool:
        """Go back behind what diverged, and say so; return False where going back does not help.

        What was left can have gone wrong some chunks before it showed, and the same input at the same place would
        only make it again: each recovery in a row goes back further, at last to the beginning.
        """
        walk = self._walk
        if walk.planner.rig is None:
            return False
        reached, paused = walk.recorder.num_chunks, walk.paused
        in_a_row = self._recovered_at is not None and reached - self._recovered_at < STEADY_CHUNKS
        if in_a_row and self._recovered_at == 0:
            return False
        self._recovery_chunks = self._recovery_chunks * FURTHER if in_a_row else 1
        snapshot = walk.history.at(reached + 1 - self._recovery_chunks)
        self._recovered_at = 0 if snapshot is None else snapshot.number
        if snapshot is None:
            self._capture.restart()
        else:
            with self._warning():
                walk.branch_off(snapshot)
        if paused:
            walk.pause()
        chunk_s = walk.session.frames_per_chunk / walk.session.fps
        goes_on = (
            f"goes on from {self._recovered_at * chunk_s:.1f} s" if snapshot is not None else "begins again"
        )
        self._app.say(
            f"The model diverged (NaN) at {reached * chunk_s:.1f} s; the walk {goes_on}.", warning=True
        )
        return True

    def _branch_off(
        self, beginning: str, snapshot: WalkSnapshot, chunks: tuple[RecordedChunk, ...] | None
    ) -> None:
        walk = self._walk
        before = walk.history.name
        self._app.mouse.forget()
        with self._warning():
            ended = walk.branch_off(snapshot, chunks)
            kept = any(branch.name == before for branch in walk.history.branches)
            back = f" {self._app.key_of('other_branch')} returns to branch {before}." if kept else ""
            self._app.say(f"{beginning} branch {walk.history.name}.{back}{self._next_take(ended)}")

    def _next_take(self, ended: Path | None) -> str:
        now = self._walk.recorder.path
        return "" if ended is None or now is None else f" {ended.name} is whole; recording to {now.name} now."

    def snapshot_on_screen(self) -> WalkSnapshot | None:
        """Return the snapshot nearest to the frame that is on, or say why there is none."""
        walk = self._walk
        if not walk.session.keep_snapshots:
            size = walk.session.snapshot_bytes / 2**20
            self._app.say(
                f"A state of this engine takes {size:.0f} MB; allow more memory for the past in the settings file."
            )
            return None
        snapshot = walk.history.at(-(-walk.frame.index // walk.session.frames_per_chunk))
        if snapshot is None:
            self._app.say("Nothing to go back to yet; the first step is being made.")
        return snapshot

    def _seconds(self, frame: WalkFrame) -> str:
        return f"{frame.index / self._walk.session.fps:.1f} s"

    def _say_if_busy(self, doing: str) -> None:
        if (job := self._app.jobs.current) is not None:
            self._app.say(f"{doing}, as soon as {job} is done ...")

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Report what cannot be done inside the block, and go on."""
        try:
            yield
        except (ValueError, EngineError) as error:
            self._app.warn(error)
