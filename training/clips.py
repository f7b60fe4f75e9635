"""Where stages take their batches of clips from: walks of the pocket world, or anything else that can give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from training.data.latents import LatentWalk, WindowBatch, draw_windows, pack_windows


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


def stored_walks(
    directory: Path,
    places: Sequence[str],
    intrinsics: tuple[float, float, float, float],
    stride: int,
    tag: str = "",
) -> dict[str, LatentWalk]:
    """Read the walks whose latents lie in a folder, by name; the place's name comes before the first dash.

    Args:
        stride: Video frames per latent frame.
        tag: Of the autoencoder that the latents must come from; any where empty.

    Raises:
        ValueError: There are none, or latents and poses disagree.
    """
    walks: dict[str, LatentWalk] = {}
    for path in sorted(directory.glob("*.c2w.npy")):
        name = path.name.removesuffix(".c2w.npy")
        place = name.split("-")[0]
        files = sorted(directory.glob(f"{name}.{tag}*lat*.npy"))
        if not files or place not in places:
            continue
        latents = torch.from_numpy(np.load(files[-1], allow_pickle=False))
        windows = torch.from_numpy(pack_windows(np.load(path, allow_pickle=False), stride))
        if len(latents) != len(windows):
            raise ValueError(
                f"{files[-1]} holds {len(latents)} latent frames and {path.name} poses for {len(windows)}; delete both"
            )
        walks[name] = LatentWalk(places.index(place), latents, windows, torch.tensor(intrinsics))
    if not walks:
        raise ValueError(f"no latents of walks lie in {directory}; make some with `flaneur train pocket`")
    return walks
