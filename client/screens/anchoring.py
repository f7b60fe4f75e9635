"""Answers the key that makes the picture on the screen the first frame of a new world, which is walked on at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from client.playback.walk import Walk
from client.screens.keeping import Keeping
from client.setup.folders import OWN_WORLDS, make_folder, told
from client.ui.app_context import AppContext
from engine.files.world import SUFFIX, World, world_from_walk, write_world


class Anchoring:
    """Begins new worlds in the middle of walks, and writes their files."""

    def __init__(self, app: AppContext, walk: Walk, keeping: Keeping) -> None:
        self._app = app
        self._walk = walk
        self._keeping = keeping

    def do_new_world(self, now_s: float) -> None:
        walk, toasts = self._walk, self._app.toasts
        if walk.planner.rig is None:
            toasts.add("A replay shows a walk that was; open its world to begin a new one.", now_s)
            return
        if walk.paused:
            return
        if (ending := walk.ending) is None:
            why = "No chunk was made yet, or none that a world could begin with: the holodeck has no latents."
            toasts.add(why, now_s)
            return
        frame, latent = ending
        world = world_from_walk(walk.session.world, latent, frame.pixels, frame.c2w)
        path = self._app.pictures_dir / OWN_WORLDS / f"{world.name}{SUFFIX}"
        world = replace(world, path=path)
        walk.enter(world, self._keeping.part_recording("the new world", now_s))
        self._app.window.set_title(world.title)
        self._app.chores.begin(
            "the new world",
            lambda: _write(path, world),
            lambda _: self._app.toasts.add(
                f"A new world begins here: {told(path, Path.home())}", self._app.clock()
            ),
            lambda error: self._keeping.warn(error, self._app.clock()),
        )


def _write(path: Path, world: World) -> None:
    make_folder(path.parent)
    write_world(path, world)
