"""Sky, sun, far hills and the light they give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holodeck.shapes import Color

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Sky:
    """Everything at infinity, a function of the ray's direction alone."""

    zenith: Color
    horizon: Color
    sun_color: Color
    sun_azimuth_deg: float
    """Clockwise from +z (towards +x)."""
    sun_elevation_deg: float
    sun_radius_deg: float = 6.0
    halo: float = 0.35
    """Strength of the wide glow around the sun, 0 to 1."""
    hills: Color | None = None
    hill_height_deg: float = 6.0
    hill_seed: int = 0
    ambient: float = 0.55
    """Light on faces turned from the sun; faces turned to it get 1."""
    fog_m: float = 45.0
    """Distance at which a surface has lost 63 % of its colour to the horizon's."""
    stripes: int = 0
    """Number of flat bands in the sky's gradient; 0 = smooth."""

    def sun_direction(self) -> NDArray[np.float64]:
        """Unit vector towards the sun, [3], y down."""
        azimuth, elevation = np.radians(self.sun_azimuth_deg), np.radians(self.sun_elevation_deg)
        flat = np.cos(elevation)
        return np.array([np.sin(azimuth) * flat, -np.sin(elevation), np.cos(azimuth) * flat])

    def shade(self, direction: Array) -> Array:
        """Colour of rays that hit nothing.

        Args:
            direction: Unit world directions, [P, 3].

        Returns:
            RGB in [0, 1], [P, 3].
        """
        up = np.clip(-direction[:, 1], 0.0, 1.0)
        blend = np.sqrt(up)
        if self.stripes:
            blend = np.floor(blend * self.stripes) / self.stripes
        zenith, horizon = np.array(self.zenith, np.float32), np.array(self.horizon, np.float32)
        color = horizon + blend[:, None] * (zenith - horizon)
        cosine = direction @ self.sun_direction().astype(np.float32)
        sun = np.array(self.sun_color, np.float32)
        glow = self.halo * np.clip((cosine - 0.75) / 0.25, 0.0, 1.0) ** 2
        color += glow[:, None] * (sun - color)
        color[cosine > np.cos(np.radians(self.sun_radius_deg))] = sun
        if self.hills is not None:
            below = -direction[:, 1] < self._hill_profile(np.arctan2(direction[:, 0], direction[:, 2]))
            color[below] = np.array(self.hills, np.float32)
        return color.astype(np.float32, copy=False)

    def hill_phases(self) -> NDArray[np.float64]:
        """Phases of the hills' three waves, in turns, [3]."""
        return np.random.default_rng(self.hill_seed).uniform(0, 1, 3)

    def _hill_profile(self, azimuth: Array) -> Array:
        """Sine of the hills' elevation at each azimuth: three triangle waves of fixed random phase."""
        turn = azimuth / (2 * np.pi)
        height = np.zeros_like(azimuth)
        for count, share, phase in zip((5, 8, 13), (0.5, 0.3, 0.2), self.hill_phases(), strict=True):
            height += share * np.abs(2 * ((turn * count + phase) % 1.0) - 1.0)
        return np.asarray(np.sin(np.radians(self.hill_height_deg)) * height, np.float32)
