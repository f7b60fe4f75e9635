"""Held-out walks through the shipped worlds, with the truth beside them."""

from __future__ import annotations

import torch

from engine.assets import worlds_dir
from engine.world import World, list_worlds, read_world
from export.rollouts import Scene
from training.data.walks import walk
from training.evaluate import HELD_OUT_SEED, place_of


def held_out_scenes(weights_sha256: str, num_frames: int, fps: float) -> list[Scene]:
    """Draw one walk through every shipped world of a model.

    Raises:
        ValueError: There is no such world.
    """
    fitting = fitting_worlds(weights_sha256)
    if not fitting:
        raise ValueError(
            "no world here was made for the bundle's weights; quality can be measured for the pocket bundle"
        )
    return [held_out_scene(world, num_frames, fps) for world in fitting]


def fitting_worlds(weights_sha256: str) -> list[World]:
    """Return the shipped worlds that were made for some weights."""
    entries = list_worlds([worlds_dir()])
    worlds = [read_world(entry.path) for entry in entries if not entry.problem]
    return [world for world in worlds if world.info.model == weights_sha256]


def held_out_scene(world: World, num_frames: int, fps: float, seed: int = HELD_OUT_SEED) -> Scene:
    """Draw a walk that nothing was trained on.

    Raises:
        ValueError: The world was not made from a holodeck place.
    """
    place = place_of(world)
    height, width = world.first_frame.shape[:2]
    return Scene(
        name=world.name,
        first_latent=torch.from_numpy(world.first_latent)[None, :, None],
        text=torch.from_numpy(world.text)[None],
        text_mask=torch.from_numpy(world.text_mask)[None],
        intrinsics=world.intrinsics,
        c2w=walk(place, num_frames, round(fps), seed),
        render=lambda c2w: place.render(c2w, world.intrinsics, width, height),
    )
