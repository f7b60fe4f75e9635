"""Worlds that begin with a picture no model was trained on: twins of known places, or any picture at all.

A twin is a known place mirrored and repainted: as rich as what was learned, and elsewhere. What is measured there says whether a
model goes on from a picture, not whether it remembers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.files.world import World, sealed
from evaluation.ceiling import first_latent
from evaluation.rollouts import Frames, Poses, place_of
from holodeck import Place
from holodeck.variants import mirrored, recoloured
from model.vae.pocket import Autoencoder

TURN_DEG = 140.0
"""On the colour wheel: far from every original."""


def unseen_place(place: Place) -> Place:
    """Return a place's unseen twin: mirrored, every hue turned."""
    return recoloured(mirrored(place), TURN_DEG)


def unseen_worlds(
    worlds: Sequence[World], known: Sequence[World], autoencoder: Autoencoder
) -> list[tuple[World, Place]]:
    """Begin worlds in the unseen twins of places.

    Args:
        worlds: Made from the places whose twins are wanted.
        known: All worlds of the same weights.
    """
    pairs = []
    for world in worlds:
        place = unseen_place(place_of(world))
        frame = place.render(place.spawn, world.intrinsics, *world.frame_size)
        pairs.append(
            (begin_world(place.name, frame, place.spawn, world.intrinsics, known, autoencoder), place)
        )
    return pairs


def begin_world(
    name: str,
    frame: Frames,
    c2w: Poses,
    intrinsics: NDArray[np.float32],
    known: Sequence[World],
    autoencoder: Autoencoder,
) -> World:
    """Begin a world with a picture.

    Its first latent is the autoencoder's. Scene tokens belong to known places and none fits: it gets the mean of them all, which
    favours none.

    Args:
        frame: [H, W, 3], of the model's size.
        c2w: Where it was taken from, [4, 4].
        intrinsics: fx, fy, cx, cy in its pixels, [4].
        known: Worlds of the model's weights; one at least.
    """
    text = np.asarray(np.stack([world.text for world in known]).mean(0), np.float32)
    info = known[0].info.model_copy(
        update={"name": name[:64], "title": name[:64], "place": None, "caption": "", "speed_scale": 1.0}
    )
    world = World(
        info=info,
        first_latent=first_latent(autoencoder, frame),
        first_frame=frame,
        text=text,
        text_mask=np.ones(len(text), np.float32),
        intrinsics=np.asarray(intrinsics, np.float32),
        c2w=np.asarray(c2w, np.float64),
    )
    return sealed(world)
