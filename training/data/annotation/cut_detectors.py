"""Which detector looks for cuts."""

from __future__ import annotations

from typing import Literal

from training.data.annotation.shots import FindCuts, adaptive_cuts

CutDetector = Literal["adaptive", "transnetv2"]


def cut_finder(detector: CutDetector) -> FindCuts:
    """Return a detector by its name.

    Raises:
        ValueError: Its package is not installed.
    """
    if detector == "adaptive":
        return adaptive_cuts
    from training.data.annotation.transnet import open_network, transnet_cuts

    open_network()
    return transnet_cuts
