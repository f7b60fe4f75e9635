"""Answers the key that keeps the last half minute: as a video, and as a recording that walks there again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from client.playback.clip import Clip, write_clip
from client.playback.walk import Walk
from client.screens.keeping import Keeping
from client.screens.photo import unused_path
from client.setup.folders import told
from client.ui.app_context import AppContext
from engine.files.video import SUFFIX


class Clipping:
    """Keeps clips of the walk in the window."""

    def __init__(self, app: AppContext, walk: Walk, keeping: Keeping) -> None:
        self._app = app
        self._walk = walk
        self._keeping = keeping
        self._writing = False

    def do_clip(self, now_s: float) -> None:
        app, walk = self._app, self._walk
        if self._writing:
            app.toasts.add("The clip before is still being written.", now_s)
            return
        frames = walk.recent.until(walk.frame.index)
        num_chunks = -(-walk.frame.index // walk.session.frames_per_chunk)
        if not frames or not num_chunks:
            app.toasts.add("Nothing was walked yet.", now_s)
            return
        stem = f"{walk.session.world.name}-clip"
        clip = Clip(
            unused_path(app.pictures_dir, stem, SUFFIX, datetime.now().astimezone()),
            frames,
            walk.session.fps,
            app.settings.picture,
            walk.header(),
            walk.recorder.walked(num_chunks),
        )
        app.toasts.add(f"Keeping the last {clip.duration_s:.0f} s ...", now_s)
        self._writing = True
        app.chores.begin("the clip", lambda: write_clip(clip), lambda _: self._kept(clip), self._failed)

    def _kept(self, clip: Clip) -> None:
        self._writing = False
        file = told(clip.path, Path.home())
        self._app.toasts.add(f"Kept {file}, and its recording beside it", self._app.clock())

    def _failed(self, error: Exception) -> None:
        self._writing = False
        self._keeping.warn(error, self._app.clock())
