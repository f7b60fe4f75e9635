"""Where in a place a ball has room: the one rule that camera families, tracks and their tests ask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holodeck import Place
from holodeck.collision import FLOOR_M, is_free


def clear_points(place: Place, positions: NDArray[np.float64], radius_m: float) -> NDArray[np.bool_]:
    """Whether a ball is inside a place's bounds and outside its solids at each position [N, 3], metres."""
    low_x, low_z, high_x, high_z = place.bounds
    x, y, z = positions.T
    inside = (
        (x >= low_x + radius_m)
        & (x <= high_x - radius_m)
        & (z >= low_z + radius_m)
        & (z <= high_z - radius_m)
        & (-y >= FLOOR_M)
        & (-y <= place.ceiling_m)
    )
    # Solids are asked one point at a time, so only where bounds have said nothing yet.
    inside[inside] = [is_free(place.arrays, point, radius_m) for point in positions[inside]]
    return inside
