"""Solid shapes and their paint, and the array form that the renderer and the collision test read.

World axes are OpenCV's: x right, y down, z forward, metres. Heights are therefore negative y; every constructor here takes
heights as positive metres above the ground and turns them round once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]


class Kind(IntEnum):
    """What a shape is."""

    BOX = 0
    CYLINDER = 1
    SPHERE = 2
    CONE = 3


class Pattern(IntEnum):
    """How the second colour lies over the first."""

    PLAIN = 0
    BANDS = 1
    """Horizontal bands; `period` is the height of a pair, `duty` the second colour's share."""
    STRIPES = 2
    """Vertical stripes (around the axis on round shapes)."""
    CHECKER = 3
    WINDOWS = 4
    """A grid of openings, one per cell of `period` x `period_v` metres."""
    LIT_WINDOWS = 5
    """Windows of which a fixed random half shines in the third colour."""
    TRIM = 6
    """The second colour on the lowest `duty` share of `period_v` metres: a plinth."""


@dataclass(frozen=True)
class Paint:
    """Colours in [0, 1] RGB and the pattern that arranges them."""

    color: Color
    second: Color = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    period: float = 1.0
    """Horizontal period, metres."""
    period_v: float = 1.0
    """Vertical period, metres."""
    duty: float = 0.5
    top: Color | None = None
    """Colour of upward faces; the first colour where absent."""
    third: Color = (1.0, 1.0, 1.0)
    glow: float = 0.0
    """0 = lit by the sun, 1 = shines by itself whatever the light."""


@dataclass(frozen=True)
class Shape:
    """One solid: centre of its base above the ground, and its extent."""

    kind: Kind
    low: tuple[float, float, float]
    """Corner of the bounding box with the smallest coordinates (y down: the shape's top)."""
    high: tuple[float, float, float]
    paint: Paint
    solid: bool = True
    """Whether a walker collides with it."""


def hex_color(code: str) -> Color:
    """Turn "e4572e" into RGB in [0, 1]."""
    value = int(code, 16)
    return ((value >> 16) / 255.0, (value >> 8 & 255) / 255.0, (value & 255) / 255.0)


def box(
    x: float,
    z: float,
    width: float,
    depth: float,
    height: float,
    paint: Paint,
    base: float = 0.0,
    solid: bool = True,
) -> Shape:
    """Make an upright box centred on (x, z), standing `base` metres above the ground."""
    low = (x - width / 2, -(base + height), z - depth / 2)
    return Shape(Kind.BOX, low, (x + width / 2, -base, z + depth / 2), paint, solid)


def round_shape(
    kind: Kind,
    x: float,
    z: float,
    radius: float,
    height: float,
    paint: Paint,
    base: float = 0.0,
    solid: bool = True,
) -> Shape:
    """Make a cylinder, cone or sphere inscribed in a box of side 2 * radius and the given height."""
    low = (x - radius, -(base + height), z - radius)
    return Shape(kind, low, (x + radius, -base, z + radius), paint, solid)


def cylinder(
    x: float, z: float, radius: float, height: float, paint: Paint, base: float = 0.0, solid: bool = True
) -> Shape:
    """Make an upright cylinder."""
    return round_shape(Kind.CYLINDER, x, z, radius, height, paint, base, solid)


def cone(
    x: float, z: float, radius: float, height: float, paint: Paint, base: float = 0.0, solid: bool = True
) -> Shape:
    """Make an upright cone, point up."""
    return round_shape(Kind.CONE, x, z, radius, height, paint, base, solid)


def sphere(x: float, z: float, radius: float, paint: Paint, base: float = 0.0, solid: bool = True) -> Shape:
    """Make a sphere whose lowest point is `base` metres above the ground."""
    return round_shape(Kind.SPHERE, x, z, radius, 2 * radius, paint, base, solid)


@dataclass(frozen=True)
class ShapeArrays:
    """The shapes of a place as arrays, N shapes."""

    kind: NDArray[np.int8]
    """[N]"""
    low: NDArray[np.float32]
    """[N, 3], metres."""
    high: NDArray[np.float32]
    """[N, 3], metres."""
    solid: NDArray[np.bool_]
    """[N]"""
    colors: NDArray[np.float32]
    """[N, 4, 3]: first, second, third, top; RGB in [0, 1]."""
    pattern: NDArray[np.int8]
    """[N]"""
    params: NDArray[np.float32]
    """[N, 4]: period, period_v, duty, glow."""
    corners: NDArray[np.float32] = field(repr=False)
    """[N, 8, 3], metres."""


def pack(shapes: Sequence[Shape]) -> ShapeArrays:
    """Turn shapes into arrays."""
    low = np.array([s.low for s in shapes], np.float32)
    high = np.array([s.high for s in shapes], np.float32)
    if not np.all(low < high):
        raise ValueError("a shape has no extent; give every side a positive length")
    picks = np.array([[(i >> a) & 1 for a in range(3)] for i in range(8)], bool)
    corners = np.where(picks[None], high[:, None], low[:, None])
    paints = [s.paint for s in shapes]
    colors = [(p.color, p.second, p.third, p.top if p.top is not None else p.color) for p in paints]
    return ShapeArrays(
        kind=np.array([s.kind for s in shapes], np.int8),
        low=low,
        high=high,
        solid=np.array([s.solid for s in shapes], bool),
        colors=np.array(colors, np.float32),
        pattern=np.array([p.pattern for p in paints], np.int8),
        params=np.array([(p.period, p.period_v, p.duty, p.glow) for p in paints], np.float32),
        corners=corners.astype(np.float32),
    )
