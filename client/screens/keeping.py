"""What a player keeps of a walk by key: recordings and photos, with what is said about them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from client.playback.past import WalkFrame
from client.playback.recorder import next_take
from client.playback.trace import TraceWriter
from client.playback.walk import Walk
from client.screens.photo import SUFFIX as PHOTO_SUFFIX
from client.screens.photo import describe, save_photo, unused_path
from client.setup.folders import make_folder, told
from client.ui.app_context import AppContext
from client.ui.picture import enlarge
from engine.errors import EngineError
from engine.files.recording import SUFFIX
from engine.files.recording_writer import RecordingStopped


class Keeping:
    """Answers the keys that write files; a disk that takes none is told about, and the walk goes on."""

    def __init__(
        self,
        app: AppContext,
        walk: Walk,
        picture_size: Callable[[], tuple[int, int]],
        past_frame: Callable[[], WalkFrame | None],
    ) -> None:
        """Write what `walk` shows.

        Args:
            app: Says where files go and takes the messages.
            walk: The walk under way.
            picture_size: Returns the size of the picture on the screen, pixels.
            past_frame: Returns the frame of the past that is looked at, None in the present.
        """
        self._app = app
        self._walk = walk
        self._picture_size = picture_size
        self._past_frame = past_frame

    def do_record(self, now_s: float) -> None:
        if self._walk.recorder.path is not None:
            self.stop_recording(now_s)
            return
        folder, name = self._app.pictures_dir, self._walk.session.world.name
        try:
            make_folder(folder)
        except ValueError as error:
            self.warn(error, now_s)
            return
        self.start_recording(unused_path(folder, name, SUFFIX, datetime.now().astimezone()), now_s)

    def start_recording(self, path: Path, now_s: float) -> None:
        """Record the walk, from its first chunk on, to a new file."""
        try:
            self._walk.start_recording(path)
        except (ValueError, EngineError) as error:
            self.warn(error, now_s)
        else:
            stop = self._app.key_of("record")
            self._app.toasts.add(
                f"Recording from the first step to {told(path, Path.home())}. {stop} stops.", now_s
            )

    def stop_recording(self, now_s: float) -> None:
        """End the recording, if there is one."""
        try:
            path = self._walk.recorder.stop()
        except RecordingStopped as error:
            self.warn(error, now_s)
            return
        if path is not None:
            self._app.toasts.add(f"Recorded to {told(path, Path.home())}", now_s)

    def part_recording(self, what: str, now_s: float) -> Callable[[], None] | None:
        """End the recording before the walk begins anew; return what begins the next one then, for `what` there is.

        None where none is to begin.
        """
        path = self._walk.recorder.path
        if path is None:
            return None
        try:
            ended = self._walk.recorder.stop()
        except RecordingStopped as error:
            self.warn(error, now_s)
            return None

        def begin() -> None:
            now_s, app = self._app.clock(), self._app
            # One that held nothing is gone, and its name free.
            take = path if ended is None else next_take(path)
            try:
                self._walk.start_recording(take)
            except (ValueError, EngineError) as error:
                self.warn(error, now_s)
            else:
                subject = what.capitalize() if ended is None else f"{ended.name} is whole; {what}"
                said = f"{subject} is recorded to {take.name}. {app.key_of('record')} stops."
                app.toasts.add(said, now_s)

        return begin

    def restart(self, now_s: float) -> None:
        """Begin the walk again; a recording that is on ends whole and goes on in a file of its own."""
        begin = self.part_recording("the walk from its beginning", now_s)
        self._walk.reset()
        if begin is not None:
            begin()

    def start_trace(self, path: Path, now_s: float) -> None:
        """Write the walk's timing to a new file; before the walk's first update."""
        try:
            self._walk.instruments.start_trace(TraceWriter(path))
        except ValueError as error:
            self.warn(error, now_s)

    def do_photo(self, now_s: float) -> None:
        frame, session, app = self._past_frame() or self._walk.frame, self._walk.session, self._app
        taken = datetime.now().astimezone()
        folder, size, style = app.pictures_dir, self._picture_size(), app.settings.picture
        description = describe(session, self._walk.seed, frame.index, frame.chunk_index, frame.c2w)
        name = session.world.name

        def write() -> Path:
            # Its name is chosen here: of two photos within a second the second must see the first one's file.
            path = unused_path(folder, name, PHOTO_SUFFIX, taken)
            save_photo(path, enlarge(frame.pixels, *size, style), description)
            return path

        app.chores.begin(
            "the photo",
            write,
            lambda path: app.toasts.add(f"Saved {told(path, Path.home())}", app.clock()),
            lambda error: self.warn(error, app.clock()),
        )

    def warn(self, error: Exception, now_s: float) -> None:
        """Tell the player what could not be kept, and why."""
        sentence = str(error)
        self._app.toasts.add(sentence[:1].upper() + sentence[1:] + ".", now_s, warning=True)
