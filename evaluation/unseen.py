"""Places that no model was trained on, and worlds that begin with a picture of them.

They are known places mirrored and repainted: as rich as what was learned, and elsewhere. What is measured on them says whether a
model goes on from a picture, not whether it remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.world import World, sealed
from evaluation.ceiling import first_latent
from evaluation.rollouts import place_of
from holodeck import Place
from holodeck.variants import mirrored, recoloured
from model.autoencoder import Autoencoder

TURN_DEG = 140.0
"""On the colour wheel: far from every original."""


def unseen_place(place: Place) -> Place:
    """Return a place's unseen twin: mirrored, every hue turned."""
    return recoloured(mirrored(place), TURN_DEG)


def unseen_worlds(
    worlds: Sequence[World], known: Sequence[World], autoencoder: Autoencoder
) -> list[tuple[World, Place]]:
    """Make the unseen twins of worlds that were made from places.

    The first latent is the autoencoder's. Scene tokens belong to known places and none fits: each twin gets the mean of them all,
    which favours none.

    Args:
        known: All worlds of the same weights.
    """
    text = np.mean([world.text for world in known], axis=0)
    return [_twin(world, text, autoencoder) for world in worlds]


def _twin(world: World, text: np.ndarray, autoencoder: Autoencoder) -> tuple[World, Place]:
    place = unseen_place(place_of(world))
    frame = place.render(place.spawn, world.intrinsics, *world.frame_size)
    info = world.info.model_copy(
        update={"name": place.name[:64], "title": f"{world.title}, unseen", "place": None, "caption": ""}
    )
    twin = replace(
        world,
        info=info,
        first_frame=frame,
        first_latent=first_latent(autoencoder, frame),
        text=text.astype(np.float32),
        text_mask=np.ones(len(text), np.float32),
        c2w=place.spawn,
        origin=None,
        path=None,
    )
    return sealed(twin), place
