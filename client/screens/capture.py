"""What a player takes out of a walk by key: recordings, photos, clips, and a new world from the frame on the screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from client.playback.captures import PHOTO_SUFFIX, describe_photo, save_photo
from client.playback.history import WalkFrame
from client.playback.recorder import Clip, next_take, write_clip
from client.playback.trace import TraceWriter
from client.playback.walk import Walk
from client.setup.folders import OWN_WORLDS, make_folder, path_for_message, unused_path
from client.ui.app_context import AppContext
from client.ui.picture import enlarge
from engine.errors import EngineError
from engine.files.own_worlds import begun_stem, begun_title, world_from_walk
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording_writer import RecordingStopped
from engine.files.video import SUFFIX as VIDEO_SUFFIX
from engine.files.world import SUFFIX as WORLD_SUFFIX
from engine.files.world import World, write_world

MIN_CLIP_FRAMES = 2
"""One frame is a photo."""


class CaptureController:
    """Answers the keys that write files; a disk that takes none is reported, and the walk goes on."""

    def __init__(
        self,
        app: AppContext,
        walk: Walk,
        picture_size: Callable[[], tuple[int, int]],
        rewind_frame: Callable[[], WalkFrame | None],
    ) -> None:
        """Write what `walk` shows.

        Args:
            app: Says where files go and takes the messages.
            walk: The walk under way.
            picture_size: Returns the size of the picture on the screen, pixels.
            rewind_frame: Returns the frame that a rewind shows, None where none is under way.
        """
        self._app = app
        self._walk = walk
        self._picture_size = picture_size
        self._rewind_frame = rewind_frame
        self._writing_clip = False
        self._photo_mode = False

    def toggle_recording(self, now_s: float) -> None:
        """Record the walk to a file of the pictures folder, or end the recording that is on."""
        if self._walk.recorder.path is not None:
            self.stop_recording()
            return
        folder, name = self._app.pictures_dir, self._walk.session.world.name
        try:
            make_folder(folder)
        except ValueError as error:
            self._app.warn(error)
            return
        self.start_recording(unused_path(folder, name, RECORDING_SUFFIX, _now()))

    def start_recording(self, path: Path, overwrite: bool = False) -> None:
        """Record the walk, from its first chunk on, to a file; an older one is lost only with `overwrite`."""
        if self._record(path, overwrite):
            stop = self._app.key_of("record")
            self._app.say(f"Recording from the first step to {path_for_message(path)}. {stop} stops.")

    def stop_recording(self) -> None:
        """End the recording, if there is one."""
        _, path = self._end_recording()
        if path is not None:
            self._app.say(f"Recorded to {path_for_message(path)}")

    def split_recording(self, next_part: str) -> Callable[[], None] | None:
        """End the recording before the walk begins anew.

        Args:
            next_part: What the next recording holds, for the message.

        Returns:
            What begins the next recording once the walk has begun; None where none is to begin.
        """
        path = self._walk.recorder.path
        if path is None:
            return None
        ended_well, ended = self._end_recording()
        if not ended_well:
            return None

        def begin() -> None:
            # A recording without a chunk is deleted, and its name free.
            take = path if ended is None else next_take(path)
            if self._record(take):
                subject = next_part.capitalize() if ended is None else f"{ended.name} is whole; {next_part}"
                self._app.say(f"{subject} is recorded to {take.name}. {self._app.key_of('record')} stops.")

        return begin

    def _record(self, path: Path, overwrite: bool = False) -> bool:
        """Begin a recording; return whether it could be begun."""
        try:
            self._walk.start_recording(path, overwrite)
        except (ValueError, EngineError) as error:
            self._app.warn(error)
            return False
        return True

    def _end_recording(self) -> tuple[bool, Path | None]:
        """End the recording that is on; return whether it is whole, and its file, None where it held nothing."""
        try:
            return True, self._walk.recorder.stop()
        except RecordingStopped as error:
            self._app.warn(error)
            return False, None

    def restart(self) -> None:
        """Begin the walk again; a recording that is on ends whole and goes on in a file of its own."""
        begin = self.split_recording("the walk from its beginning")
        self._walk.reset()
        if begin is not None:
            begin()

    def start_trace(self, path: Path, overwrite: bool = False) -> None:
        """Write the walk's timing to a file; before the walk's first update."""
        try:
            self._walk.statistics.start_trace(TraceWriter(path, overwrite))
        except ValueError as error:
            self._app.warn(error)

    def take_photo(self, now_s: float) -> None:
        """Save the frame on the screen, at its size there."""
        frame, session, app = self._rewind_frame() or self._walk.frame, self._walk.session, self._app
        taken = _now()
        folder, size, style = app.pictures_dir, self._picture_size(), app.settings.picture
        description = describe_photo(session, self._walk.seed, frame)
        name = session.world.name

        def write() -> Path:
            # The name is chosen here: of two photos within a second the second must see the first one's file.
            path = unused_path(folder, name, PHOTO_SUFFIX, taken)
            save_photo(path, enlarge(frame.pixels, *size, style), description)
            return path

        app.jobs.start("the photo", write, lambda path: app.say(f"Saved {path_for_message(path)}"), app.warn)

    def save_clip(self, now_s: float) -> None:
        """Save the last half minute: as a video, and as a recording of the walk up to there."""
        app, walk = self._app, self._walk
        if self._writing_clip:
            app.say("The clip before is still being written.")
            return
        frames, run = walk.recent.seen, walk.recent.run
        num_chunks = -(-walk.frame.index // walk.session.frames_per_chunk)
        if len(frames) < MIN_CLIP_FRAMES or not num_chunks:
            app.say("Nothing was walked yet.")
            return
        clip = Clip(
            unused_path(app.pictures_dir, f"{walk.session.world.name}-clip", VIDEO_SUFFIX, _now()),
            frames,
            walk.session.fps,
            app.settings.picture,
            walk.header().model_copy(
                update={"first_frame": run[0].index, "last_frame": run[-1].index},
            ),
            walk.recorder.walked(num_chunks),
        )
        app.say(f"Keeping the last {clip.duration_s:.0f} s ...")
        self._writing_clip = True

        def done(_: None) -> None:
            self._writing_clip = False
            app.say(f"Kept {path_for_message(clip.path)}, and its recording beside it")

        def failed(error: Exception) -> None:
            self._writing_clip = False
            app.warn(error)

        app.jobs.start("the clip", lambda: write_clip(clip, app.jobs.report), done, failed)

    def reseed(self, now_s: float) -> None:
        """Make the frame on the screen the first frame of a new world, go on in it, and save it."""
        walk, app = self._walk, self._app
        if walk.planner.rig is None:
            app.say("A replay shows a walk that was; open its world to begin a new one.")
            return
        if walk.paused:
            return
        if (ending := walk.chunk_end) is None:
            app.say(
                "No chunk was made yet, or none that a world could begin with: the holodeck has no latents."
            )
            return
        frame, latent = ending
        here, now = walk.session.world, _now()
        path = unused_path(app.pictures_dir / OWN_WORLDS, begun_stem(here), WORLD_SUFFIX, now)
        made = {"name": path.stem, "title": begun_title(here, now)}
        world = world_from_walk(here, latent, frame.pixels, frame.c2w, walk.session.keyframes, **made)
        world = replace(world, path=path)
        walk.enter(world, self.split_recording("the new world"))
        app.window.set_title(world.title)

        def done(_: None) -> None:
            app.worlds_changed = True
            app.say(
                f"{world.title} begins here and is among your own worlds: {path_for_message(path)}. "
                f"{app.key_of('restart')} comes back to its beginning."
            )

        app.jobs.start("the new world", lambda: _write_world(path, world), done, app.warn)

    @property
    def photo_mode(self) -> bool:
        """Whether the walk is held and the picture is shown alone."""
        return self._photo_mode and self._walk.paused

    def toggle_photo_mode(self, now_s: float) -> None:
        """Hold the walk and show the picture alone, or go on."""
        if self.leave_photo_mode() or self._walk.paused:
            return
        self._walk.pause()
        self._photo_mode = True
        self._app.toasts.clear()
        self._app.say(
            f"{self._app.key_of('photo')} takes the photo, {self._app.key_of('photo_mode')} goes on."
        )

    def leave_photo_mode(self) -> bool:
        """Let the walk go on; return whether it was held."""
        was_on, self._photo_mode = self.photo_mode, False
        if was_on:
            self._walk.resume()
        return was_on


def _now() -> datetime:
    return datetime.now().astimezone()


def _write_world(path: Path, world: World) -> None:
    make_folder(path.parent)
    write_world(path, world)
