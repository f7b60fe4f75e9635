"""Where stages take their batches of clips from: walks of the pocket world, or anything else that can give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from training.data.latents import LatentWalk, WindowBatch, draw_windows


class ClipBatches(Protocol):
    """What a stage asks of its data."""

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        """Draw clips of `num_latent_frames` latents, the conditioning one in front included."""
        ...

    def seek(self, number: int) -> None:
        """Go on with the clip of this number, counted over all epochs, where clips come in an order."""
        ...

    def position(self) -> dict[str, Any]:
        """Where the data stands, as JSON values; empty where random numbers alone decide what comes."""
        ...

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Go back to what `position` gave.

        Raises:
            ValueError: The data is not what it was.
        """
        ...


class WalkClips:
    """Clips of walks: a place's first frame, then a window from anywhere along a walk, in the place's own coordinates."""

    def __init__(self, walks: Sequence[LatentWalk]) -> None:
        if not walks:
            raise ValueError("there are no walks to draw clips from; make some with `flaneur train pocket`")
        self.walks = walks

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        shortest = min(len(walk.latents) for walk in self.walks)
        if num_latent_frames > shortest:
            raise ValueError(
                f"clips of {num_latent_frames} latent frames do not fit walks of {shortest}; make longer walks or shorter clips"
            )
        return draw_windows(self.walks, batch_size, num_latent_frames - 1, rng)

    def seek(self, number: int) -> None:
        """Do nothing: walks come in no order."""

    def position(self) -> dict[str, Any]:
        return {}

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Do nothing: walks come in no order."""
