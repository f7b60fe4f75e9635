"""Worlds by name, of generated places too: `generated-SEED` is a world that no file holds, for the holodeck backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import holodeck
from engine.files.world import World, WorldInfo, find_world, list_worlds, sealed
from engine.machine.assets import worlds_dir
from holodeck.generator import generated_seed

FRAME_SIZE = (240, 144)
"""Width and height in pixels: what two cores render at the frame rate of a walk."""
FOCAL_PX = 156.0
NO_WEIGHTS = "0" * 64
"""Stands where a world names the weights it was made for: no bundle has this hash."""


def find_any_world(name_or_path: str, folders: Sequence[str | Path]) -> World:
    """Find a world to walk in: of that name in `folders`, at that path, or made here where the name is `generated-SEED`.

    Pictures of its spatial memory are decoded when the walk comes near them.
    """
    if generated_seed(name_or_path) is None:
        return find_world(name_or_path, folders, checked=False)
    return generated_world(name_or_path)


def default_world() -> Path:
    """Return the file of the world that is walked in where none is named: the first of the shipped.

    Raises:
        ValueError: None is shipped.
    """
    folder = worlds_dir()
    entries = list_worlds([folder])
    if not entries:
        raise ValueError(f"there are no worlds in {folder}; name a .world file")
    return entries[0].path


def generated_world(name: str) -> World:
    """Make a world that begins at the start of a generated place; it has no latents, so only the holodeck plays it."""
    place = holodeck.get_place(name)
    width, height = FRAME_SIZE
    intrinsics = np.array([FOCAL_PX, FOCAL_PX, width / 2, height / 2], np.float32)
    info = WorldInfo(
        name=name,
        title=place.title,
        licence="Apache-2.0",
        model=NO_WEIGHTS,
        place=name,
        caption=place.caption,
    )
    world = World(
        info=info,
        first_latent=np.zeros((1, 1, 1), np.float32),
        first_frame=place.render(place.spawn, intrinsics, width, height),
        text=np.zeros((1, 1), np.float32),
        text_mask=np.ones(1, np.float32),
        intrinsics=intrinsics,
        c2w=place.spawn,
    )
    return sealed(world)
