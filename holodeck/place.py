"""A place: shapes, light, a painted ground, a spawn pose and the limits a walker keeps to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from holodeck.collision import slide
from holodeck.raycast import nearest_depth
from holodeck.renderer import Surface, render
from holodeck.shapes import Color, Kind, Shape, ShapeArrays, pack
from holodeck.sky import Sky

GROUND_SIZE_M = 64.0
GROUND_PIXELS = 1280
SHADOW = 0.62
"""Brightness of ground in shadow."""
EYE_HEIGHT_M = 1.6
EDGE_M = 0.3
"""Width of the line around the walkable ground."""


@dataclass(frozen=True, eq=False)
class Place:
    """Somewhere to walk, rendered exactly from any camera."""

    name: str
    title: str
    caption: str
    """What stands there, without a word about the camera."""
    shapes: Sequence[Shape]
    sky: Sky
    ground_color: Color
    paint_ground: Callable[[GroundPainter], None]
    bounds: tuple[float, float, float, float]
    """Walkable rectangle: low x, low z, high x, high z, metres."""
    spawn_xz: tuple[float, float]
    spawn_yaw_deg: float
    """Clockwise from +z (towards +x)."""
    edge_color: Color | None = None
    """Of the line painted where the walkable ground ends; None where walls stand there."""
    ceiling_m: float = 2.9
    """Greatest height of the camera above the ground."""

    @cached_property
    def arrays(self) -> ShapeArrays:
        return pack(self.shapes)

    @cached_property
    def surface(self) -> Surface:
        painter = GroundPainter(self.ground_color)
        self.paint_ground(painter)
        if self.edge_color is not None:
            painter.frame(self.bounds, self.edge_color)
        painter.cast_shadows(self.shapes, self.sky)
        return Surface(self.sky, painter.pyramid(), (-GROUND_SIZE_M / 2, -GROUND_SIZE_M / 2), GROUND_SIZE_M)

    @property
    def spawn(self) -> NDArray[np.float64]:
        """The pose a walk starts from: camera-to-world, upright, at eye height, [4, 4]."""
        yaw = np.radians(self.spawn_yaw_deg)
        c2w = np.eye(4)
        c2w[:3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
        c2w[:3, 3] = (self.spawn_xz[0], -EYE_HEIGHT_M, self.spawn_xz[1])
        return c2w

    def render(
        self, c2w: NDArray[np.float64], intrinsics: NDArray[np.float32], width: int, height: int
    ) -> NDArray[np.uint8]:
        """Render the place.

        Args:
            c2w: Camera-to-world, OpenCV axes, metres, [4, 4].
            intrinsics: fx, fy, cx, cy in pixels, pixel u spans [u, u + 1], [4].

        Returns:
            RGB, [height, width, 3].
        """
        return render(
            self.arrays, self.surface, np.asarray(c2w, np.float64), np.asarray(intrinsics), width, height
        )

    def depth(
        self, c2w: NDArray[np.float64], intrinsics: NDArray[np.float32], width: int, height: int
    ) -> NDArray[np.float32]:
        """Measure how far the nearest surface in each pixel is, along the optical axis; arguments as for `render`.

        Returns:
            Metres, [height, width]; more than any distance in a place where there is only sky.
        """
        return nearest_depth(self.arrays, np.asarray(c2w, np.float64), np.asarray(intrinsics), width, height)

    def slide(
        self, position: NDArray[np.float64], delta: NDArray[np.float64], radius_m: float = 0.35
    ) -> NDArray[np.float64]:
        """Move by `delta`, sliding along walls and staying inside the place; [3], metres."""
        return slide(self.arrays, self.bounds, self.ceiling_m, position, delta, radius_m)


class GroundPainter:
    """Paints the ground from above: x to the right, z downwards in the image, metres in, RGB out."""

    def __init__(self, color: Color) -> None:
        self.picture = np.empty((GROUND_PIXELS, GROUND_PIXELS, 3), np.float32)
        self.picture[:] = color

    def rectangle(self, x: float, z: float, width: float, depth: float, color: Color) -> None:
        """Fill a rectangle centred on (x, z)."""
        corners = [
            (x + sx * width / 2, z + sz * depth / 2) for sx, sz in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
        self.polygon(corners, color)

    def circle(self, x: float, z: float, radius: float, color: Color) -> None:
        """Fill a disc."""
        turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        self.polygon(list(zip(x + radius * np.sin(turn), z + radius * np.cos(turn), strict=True)), color)

    def checker(self, x: float, z: float, width: float, depth: float, tile: float, color: Color) -> None:
        """Paint every second tile of a rectangle."""
        columns, rows = round(width / tile), round(depth / tile)
        for i in range(columns):
            for j in range(rows):
                if (i + j) % 2 == 0:
                    self.rectangle(
                        x - width / 2 + (i + 0.5) * tile, z - depth / 2 + (j + 0.5) * tile, tile, tile, color
                    )

    def rays(self, x: float, z: float, radius: float, count: int, color: Color) -> None:
        """Paint every second sector of a disc that is cut into 2 * count."""
        for n in range(count):
            turns = np.linspace(2 * n, 2 * n + 1, 7) * np.pi / count
            rim = zip(x + radius * np.sin(turns), z + radius * np.cos(turns), strict=True)
            self.polygon([(x, z), *rim], color)

    def frame(self, bounds: tuple[float, float, float, float], color: Color) -> None:
        """Paint a line just inside a rectangle (low x, low z, high x, high z)."""
        low_x, low_z, high_x, high_z = bounds
        x, z, width, depth = (low_x + high_x) / 2, (low_z + high_z) / 2, high_x - low_x, high_z - low_z
        for side in (-1, 1):
            self.rectangle(x + side * (width - EDGE_M) / 2, z, EDGE_M, depth, color)
            self.rectangle(x, z + side * (depth - EDGE_M) / 2, width, EDGE_M, color)

    def polygon(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """Fill a convex polygon given in metres."""
        cv2.fillConvexPoly(self.picture, self._pixels(points), color, cv2.LINE_AA, shift=4)

    def cast_shadows(self, shapes: Sequence[Shape], sky: Sky) -> None:
        """Darken what the sun does not reach: each shape sweeps its outline along the sun's direction."""
        sun = sky.sun_direction()
        mask = np.zeros(self.picture.shape[:2], np.uint8)
        for shape in shapes:
            outline, tops = _outline(shape)
            reach = [np.array(p) - np.array([sun[0], sun[2]]) / max(-sun[1], 0.05) * h for p, h in tops]
            base = [
                np.array(p) - np.array([sun[0], sun[2]]) / max(-sun[1], 0.05) * max(-shape.high[1], 0.0)
                for p in outline
            ]
            hull = cv2.convexHull(np.array(base + reach, np.float32))[:, 0]
            cv2.fillConvexPoly(
                mask, self._pixels([(float(a), float(b)) for a, b in hull]), 255, cv2.LINE_AA, shift=4
            )
        share = mask.astype(np.float32)[..., None] / 255.0
        self.picture *= 1.0 - (1.0 - SHADOW) * share

    def pyramid(self) -> tuple[NDArray[np.float32], ...]:
        """The image at three resolutions, each a quarter of the one before."""
        levels = [self.picture]
        for _ in range(2):
            side = levels[-1].shape[0] // 4
            smaller = cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(smaller, np.float32))
        return tuple(levels)

    def _pixels(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        scale = GROUND_PIXELS / GROUND_SIZE_M
        pixels = (np.array(points) + GROUND_SIZE_M / 2) * scale - 0.5
        return np.round(pixels * 16).astype(np.int32)


def _outline(shape: Shape) -> tuple[list[tuple[float, float]], list[tuple[tuple[float, float], float]]]:
    """Footprint points (x, z), and the points with their heights that throw the far end of the shadow."""
    (x0, y0, z0), (x1, _, z1) = shape.low, shape.high
    height = -y0
    if shape.kind == Kind.BOX:
        corners = [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
        return corners, [(c, height) for c in corners]
    cx, cz, radius = (x0 + x1) / 2, (z0 + z1) / 2, (x1 - x0) / 2
    ring = [
        (cx + radius * np.sin(a), cz + radius * np.cos(a))
        for a in np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ]
    if shape.kind == Kind.CONE:
        return ring, [((cx, cz), height)]
    if shape.kind == Kind.SPHERE:
        return [(cx, cz)], [(p, height - radius) for p in ring]
    return ring, [(p, height) for p in ring]
