"""Houses and towers that face the floor; their walls are whole numbers of window cells, so that no window is cut."""

from __future__ import annotations

import math

from holodeck.generator.palette import shade
from holodeck.generator.plan import Plan
from holodeck.generator.side import Side
from holodeck.shapes import Color, Paint, Pattern, Shape, cone


def house(plan: Plan, side: Side, start: float, setback: float) -> tuple[list[Shape], float]:
    """Build a house from `start` along a side.

    Returns:
        Its shapes and where it ends along the side.
    """
    dice, color = plan.dice, plan.facade_color()
    period, story = dice.pick((1.6, 2.0, 2.4)), dice.between(2.2, 2.9)
    columns, stories = dice.count(2, 4), dice.count(1, 3)
    start, near = math.ceil(start / period) * period, _snapped(side, setback, period)
    length, depth, height = columns * period, dice.count(2, 3) * period, stories * story + 0.2
    glass = plan.palette.dark if dice.chance(0.7) else plan.palette.light
    pattern = Pattern.LIT_WINDOWS if plan.mood.night else Pattern.WINDOWS
    lit = dice.pick(plan.palette.lights)
    paint = Paint(color, glass, pattern, period, story, dice.between(0.38, 0.56), third=lit)
    middle = start + length / 2
    shapes = [side.box(middle, near, length, depth, height, paint)]
    shapes += _roof(plan, side, middle, near, length, depth, height)
    door = Paint(plan.contrast(color), glow=0.4 if plan.mood.night else 0.0)
    at = start + (dice.count(0, columns - 1) + 0.5) * period
    shapes.append(side.box(at, near - 0.06, 1.1, 0.06, 2.1, door, solid=False))
    if dice.chance(0.35):
        awning = Paint(
            color=plan.wall_color(), second=plan.palette.light, pattern=Pattern.STRIPES, period=0.5
        )
        shapes.append(side.box(at, near - 0.9, min(length, 2.4), 0.9, 0.22, awning, base=2.25, solid=False))
    return shapes, start + length


def tower(plan: Plan, side: Side, start: float, setback: float) -> tuple[list[Shape], float]:
    """Build a tower from `start` along a side; returns as `house`."""
    dice = plan.dice
    dark = plan.mood.night
    color: Color = shade(plan.facade_color(), 0.38) if dark else plan.facade_color()
    period, story = dice.pick((1.6, 1.9, 2.3)), dice.between(1.9, 2.4)
    start, near = math.ceil(start / period) * period, _snapped(side, setback, period)
    length, depth, height = dice.count(2, 4) * period, dice.count(2, 4) * period, dice.count(3, 7) * story
    glass = shade(plan.palette.dark, 0.7)
    pattern = Pattern.LIT_WINDOWS if dark else Pattern.WINDOWS
    light = dice.pick(plan.palette.lights)
    paint = Paint(color, glass, pattern, period, story, dice.between(0.45, 0.62), top=glass, third=light)
    middle = start + length / 2
    shapes = [side.box(middle, near, length, depth, height, paint)]
    if dice.chance(0.6):
        sign = Paint(dice.pick(plan.palette.lights), glow=1.0 if dark else 0.3)
        wide, tall = (length * 0.6, 0.9) if dice.chance(0.6) else (0.9, min(height - 3.0, 5.0))
        shapes.append(side.box(middle, near - 0.12, wide, 0.12, tall, sign, base=2.6, solid=False))
    if dice.chance(0.4):
        upper = side.box(
            middle, near + period / 2, length - period, depth - period, story * 2, paint, base=height
        )
        shapes.append(upper)
    return shapes, start + length


def _snapped(side: Side, setback: float, period: float) -> float:
    """The least distance from the floor, from `setback` on, at which a face lies on the grid of windows."""
    return math.ceil((side.distance + setback) / period) * period - side.distance


def _roof(
    plan: Plan, side: Side, middle: float, near: float, length: float, depth: float, height: float
) -> list[Shape]:
    dice, paint = plan.dice, Paint(plan.palette.dark if plan.dice.chance(0.5) else plan.wall_color())
    kind = dice.count(0, 3)
    shapes = [side.box(middle, near - 0.25, length + 0.5, depth + 0.5, 0.3, paint, base=height)]
    if kind == 1:
        for n in range(1, 4):
            inset = n * depth / 8
            shapes.append(
                side.box(
                    middle,
                    near + inset,
                    length + 0.2,
                    depth - 2 * inset,
                    0.45,
                    paint,
                    base=height + 0.3 + 0.45 * (n - 1),
                )
            )
    elif kind == 2 and length < 1.4 * depth:
        x, z = side.point(middle, near + depth / 2)
        shapes.append(cone(x, z, min(length, depth) / 2, dice.between(1.6, 3.0), paint, base=height + 0.3))
    if dice.chance(0.4):
        chimney = Paint(plan.wall_color())
        shapes.append(
            side.box(middle + length * 0.3, near + depth * 0.3, 0.6, 0.6, 1.9, chimney, base=height + 0.3)
        )
    return shapes
