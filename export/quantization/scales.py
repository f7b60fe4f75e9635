"""What calibration finds out about layers, as an engine needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
NOMINAL_LARGEST = 8.0
"""Magnitude said to reach a layer of random weights; it changes no size and no speed."""


@dataclass(frozen=True)
class LayerScales:
    """One layer of 8 or 4 bits."""

    largest: float
    """Magnitude that reaches it at most, after smoothing and rotation; beyond it inputs saturate."""
    weight_largest: Array | None = None
    """The same of its weight, [] or by output channel [N]; None takes that of the weight."""
    smoothing: Array | None = None
    """What inputs are multiplied by and weights divided by, [K]; AWQ and SVDQuant choose it."""
    low_rank: tuple[Array, Array] | None = None
    """Product that SVDQuant takes out of the weight and that stays in bf16, [R, K] and [N, R]."""
    weight: Array | None = None
    """Weight of a distilled student in the place of the graph's, [N, K]."""


@dataclass(frozen=True)
class Calibration:
    """Scales of the layers of 8 or 4 bits."""

    layers: Mapping[str, LayerScales]
    """By name; none in bf16."""
    origin: str
    """Where they come from, in a few words for the bundle's description."""


def nominal_calibration(layers: list[str]) -> Calibration:
    """Take one magnitude for every layer; for random weights, in which there is nothing to measure."""
    origin = f"nominal, {NOMINAL_LARGEST:g} at most in every layer: random weights were not calibrated"
    return Calibration(dict.fromkeys(layers, LayerScales(NOMINAL_LARGEST)), origin if layers else "")
