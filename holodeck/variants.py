"""Variants of a place: mirrored left to right and painted in other colours, geometry as sound as the original's."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import replace

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Color, Paint, Shape
from holodeck.sky import Sky

Recolour = Callable[[Color], Color]


def mirrored(place: Place) -> Place:
    """Exchange left and right: x becomes -x, for shapes, ground, sun, bounds and the first pose alike.

    Hills keep their outline.
    """
    low_x, low_z, high_x, high_z = place.bounds

    def paint(painter: GroundPainter) -> None:
        place.paint_ground(painter)
        painter.picture[:] = painter.picture[:, ::-1].copy()

    return replace(
        place,
        name=f"{place.name}-mirrored",
        shapes=[_mirrored_shape(shape) for shape in place.shapes],
        sky=replace(place.sky, sun_azimuth_deg=-place.sky.sun_azimuth_deg),
        paint_ground=paint,
        bounds=(-high_x, low_z, -low_x, high_z),
        spawn_xz=(-place.spawn_xz[0], place.spawn_xz[1]),
        spawn_yaw_deg=-place.spawn_yaw_deg,
    )


def recoloured(place: Place, degrees: float) -> Place:
    """Turn every hue by an angle on the colour wheel; brightness and saturation stay."""

    def turned(color: Color) -> Color:
        hue, lightness, saturation = colorsys.rgb_to_hls(*color)
        return colorsys.hls_to_rgb((hue + degrees / 360.0) % 1.0, lightness, saturation)

    def paint(painter: GroundPainter) -> None:
        place.paint_ground(_TurnedPainter(painter, turned))

    return replace(
        place,
        name=f"{place.name}-hue{degrees:g}",
        shapes=[replace(shape, paint=_recoloured_paint(shape.paint, turned)) for shape in place.shapes],
        sky=_recoloured_sky(place.sky, turned),
        ground_color=turned(place.ground_color),
        paint_ground=paint,
        edge_color=None if place.edge_color is None else turned(place.edge_color),
    )


def _mirrored_shape(shape: Shape) -> Shape:
    (x0, y0, z0), (x1, y1, z1) = shape.low, shape.high
    return replace(shape, low=(-x1, y0, z0), high=(-x0, y1, z1))


def _recoloured_paint(paint: Paint, turned: Recolour) -> Paint:
    return replace(
        paint,
        color=turned(paint.color),
        second=turned(paint.second),
        third=turned(paint.third),
        top=None if paint.top is None else turned(paint.top),
    )


def _recoloured_sky(sky: Sky, turned: Recolour) -> Sky:
    return replace(
        sky,
        zenith=turned(sky.zenith),
        horizon=turned(sky.horizon),
        sun_color=turned(sky.sun_color),
        hills=None if sky.hills is None else turned(sky.hills),
    )


class _TurnedPainter(GroundPainter):
    """Paints on another painter's picture in turned colours; every figure goes through `polygon`."""

    def __init__(self, painter: GroundPainter, turned: Recolour) -> None:
        self.picture = painter.picture
        self._turned = turned

    def polygon(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        super().polygon(points, self._turned(color))
