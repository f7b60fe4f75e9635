"""The frame of one side of a floor: along it, and out from it."""

from __future__ import annotations

from dataclasses import dataclass

from holodeck.shapes import Paint, Shape, box


@dataclass(frozen=True)
class Side:
    """One of the four sides; `along` runs from -length to length, `out` is the distance from the floor, metres."""

    index: int
    """0 towards +z, 1 towards +x, 2 towards -z, 3 towards -x."""
    half_x: float
    half_z: float

    @property
    def length(self) -> float:
        """Half the length of the side."""
        return self.half_z if self.index % 2 else self.half_x

    @property
    def distance(self) -> float:
        """From the floor's centre to the side."""
        return self.half_x if self.index % 2 else self.half_z

    def point(self, along: float, out: float) -> tuple[float, float]:
        """World (x, z)."""
        away = (self.distance + out) * (1 if self.index < 2 else -1)
        return (away, along) if self.index % 2 else (along, away)

    def box(
        self,
        along: float,
        near: float,
        length: float,
        depth: float,
        height: float,
        paint: Paint,
        base: float = 0.0,
        solid: bool = True,
    ) -> Shape:
        """Make a box whose face towards the floor is `near` metres out; length along the side, depth away from it."""
        x, z = self.point(along, near + depth / 2)
        width, deep = (depth, length) if self.index % 2 else (length, depth)
        return box(x, z, width, deep, height, paint, base, solid)
