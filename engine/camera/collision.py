"""Where a walker can go: the collision of the place a world was made from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

import holodeck
from engine.files.world import World

Slide = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(position [3], wished displacement [3]) -> position [3], metres in the world's own frame."""

WALKER_RADIUS_M = 0.6
"""Nearest a walker comes to a wall, wider than shoulders: nearer, a wall of one colour is all there is to see,
and no world model was trained there."""


def place_slide(world: World) -> Slide | None:
    """Return the collision of a world's place; None where it has none that is known here."""
    if world.place is None or world.place not in holodeck.place_names():
        return None
    return partial(holodeck.get_place(world.place).slide, radius_m=WALKER_RADIUS_M)
