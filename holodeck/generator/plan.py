"""A place while it is being laid out: what stands where, what is painted on the ground, what a caption will name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holodeck.generator.dice import Dice
from holodeck.generator.palette import Palette, luminance
from holodeck.generator.skies import Mood
from holodeck.place import GroundPainter
from holodeck.shapes import Color, Paint, Pattern, Shape

Rectangle = tuple[float, float, float, float]
"""Low x, low z, high x, high z, metres."""


@dataclass(frozen=True)
class Group:
    """Shapes that stand together as one thing."""

    shapes: tuple[Shape, ...]
    footprint: Rectangle
    phrase: str
    """What a caption calls it; empty for what needs no mention."""


@dataclass
class Plan:
    """Shapes and ground of a place under construction; the floor is centred on the origin."""

    dice: Dice
    palette: Palette
    mood: Mood
    half_x: float
    """Half the side of the floor along x, metres; likewise z."""
    half_z: float
    surroundings: list[Group] = field(default_factory=list)
    """What stands around the floor or belongs to its walls."""
    features: list[Group] = field(default_factory=list)
    """What stands on the floor; the last can be taken away again."""
    brushes: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """Calls of GroundPainter's methods, in order."""
    _facades: list[Color] = field(default_factory=list)

    @property
    def groups(self) -> list[Group]:
        return self.surroundings + self.features

    @property
    def shapes(self) -> list[Shape]:
        return [shape for group in self.groups for shape in group.shapes]

    def surround(self, shapes: Sequence[Shape], phrase: str = "", gap_m: float = -0.01) -> bool:
        """Stand something outside the floor or at its walls, unless it would overlap something else."""
        return self._put(self.surroundings, shapes, phrase, gap_m)

    def stand(self, shapes: Sequence[Shape], phrase: str = "", gap_m: float = 1.5) -> bool:
        """Stand something on the floor, unless less than `gap_m` would be left to what is there."""
        return self._put(self.features, shapes, phrase, gap_m)

    def _put(self, groups: list[Group], shapes: Sequence[Shape], phrase: str, gap_m: float) -> bool:
        footprint = outline(shapes)
        if any(overlap(footprint, group.footprint, gap_m) for group in self.groups):
            return False
        groups.append(Group(tuple(shapes), footprint, phrase))
        return True

    def paint(self, method: str, *arguments: Any) -> None:
        """Call a method of GroundPainter when the ground is painted."""
        self.brushes.append((method, arguments))

    def wall_color(self) -> Color:
        return self.dice.pick(self.palette.walls)

    def facade_color(self) -> Color:
        """Pick a colour for a house, each of the palette's in turn, so that neighbours differ."""
        self._facades = self._facades or self.dice.shuffled([*self.palette.walls, self.palette.light])
        return self._facades.pop()

    def contrast(self, color: Color) -> Color:
        """Pick a colour that can be told from another."""
        options = [*self.palette.walls, self.palette.light, self.palette.dark]
        return self.dice.pick(
            [o for o in options if abs(luminance(o) - luminance(color)) > 0.22] or [self.palette.light]
        )

    def patterned(self, period_m: float, plain: float = 0.35) -> Paint:
        """Draw a paint in two colours; `plain` is the probability of a single one."""
        color = self.wall_color()
        glow = self.dice.pick((0.0, 0.3, 0.8)) if self.mood.night else 0.0
        if self.dice.chance(plain):
            return Paint(color, glow=glow, top=self.contrast(color) if self.dice.chance(0.3) else None)
        pattern = self.dice.pick((Pattern.BANDS, Pattern.STRIPES, Pattern.CHECKER, Pattern.BANDS))
        return Paint(
            color,
            self.contrast(color),
            pattern,
            period=period_m,
            period_v=period_m,
            duty=self.dice.pick((0.35, 0.5, 0.5)),
            glow=glow,
        )


def paint_brushes(brushes: Sequence[tuple[str, tuple[Any, ...]]], painter: GroundPainter) -> None:
    """Carry out recorded calls on a painter."""
    for method, arguments in brushes:
        getattr(painter, method)(*arguments)


def outline(shapes: Sequence[Shape]) -> Rectangle:
    """The rectangle around shapes seen from above."""
    return (
        min(s.low[0] for s in shapes),
        min(s.low[2] for s in shapes),
        max(s.high[0] for s in shapes),
        max(s.high[2] for s in shapes),
    )


def overlap(first: Rectangle, second: Rectangle, gap_m: float) -> bool:
    """Whether less than a gap lies between two rectangles."""
    return (
        first[0] < second[2] + gap_m
        and second[0] < first[2] + gap_m
        and first[1] < second[3] + gap_m
        and second[1] < first[3] + gap_m
    )
