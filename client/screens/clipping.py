"""Answers the key that keeps the last half minute: as a video, and as a recording that walks there again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from client.playback.clip import Clip, write_clip
from client.playback.walk import Walk
from client.screens.keeping import Keeping
from client.screens.photo import unused_path
from client.setup.folders import told
from client.ui.shell import Shell
from engine.files.video import SUFFIX


class Clipping:
    """Keeps clips of the walk in the window."""

    def __init__(self, shell: Shell, walk: Walk, keeping: Keeping) -> None:
        self._shell = shell
        self._walk = walk
        self._keeping = keeping
        self._writing = False

    def do_clip(self, now_s: float) -> None:
        shell, walk = self._shell, self._walk
        if self._writing:
            shell.toasts.add("The clip before is still being written.", now_s)
            return
        frames = walk.recent.until(walk.frame.index)
        num_chunks = -(-walk.frame.index // walk.session.frames_per_chunk)
        if not frames or not num_chunks:
            shell.toasts.add("Nothing was walked yet.", now_s)
            return
        stem = f"{walk.session.world.name}-clip"
        clip = Clip(
            unused_path(shell.pictures_dir, stem, SUFFIX, datetime.now().astimezone()),
            frames,
            walk.session.fps,
            shell.settings.picture,
            walk.header(),
            walk.recorder.walked(num_chunks),
        )
        shell.toasts.add(f"Keeping the last {clip.duration_s:.0f} s ...", now_s)
        self._writing = True
        shell.chores.begin("the clip", lambda: write_clip(clip), lambda _: self._kept(clip), self._failed)

    def _kept(self, clip: Clip) -> None:
        self._writing = False
        file = told(clip.path, Path.home())
        self._shell.toasts.add(f"Kept {file}, and its recording beside it", self._shell.clock())

    def _failed(self, error: Exception) -> None:
        self._writing = False
        self._keeping.warn(error, self._shell.clock())
