"""A world begun in the middle of a walk: its first frame is the picture that was on.

There is no encoder here, and none is needed: the latent frame behind the picture was made by the walk itself. Poses
keep the origin of the world it came from, so that a model which knows a place by its coordinates still knows where
it is; a model that counts from the first frame's pose alone sees a first frame elsewhere than at its origin.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from engine.files.world import World, sealed

MAX_STEM = 48
LATER = ", later"


def world_from_walk(
    world: World, latent: NDArray[np.float32], frame: NDArray[np.uint8], c2w: NDArray[np.float64]
) -> World:
    """Return a world that begins where a walk is.

    Args:
        world: The world that is walked through.
        latent: [C, h, w], the latent frame behind the picture.
        frame: [H, W, 3], the picture.
        c2w: [4, 4], its pose, in the world's own frame.
    """
    stem = world.name.rpartition("-from-")[0] or world.name
    mark = hashlib.sha256(latent.tobytes() + frame.tobytes() + c2w.tobytes()).hexdigest()[:8]
    title = world.title if world.title.endswith(LATER) else world.title[: 120 - len(LATER)] + LATER
    info = world.info.model_copy(update={"name": f"{stem[:MAX_STEM]}-from-{mark}", "title": title})
    begun = World(
        info,
        latent,
        frame,
        world.text,
        world.text_mask,
        world.intrinsics,
        c2w,
        origin=world.origin_c2w,
    )
    return sealed(begun)
