"""Painted grounds of generated places."""

from __future__ import annotations

from collections.abc import Callable

from holodeck.generator.palette import hsv, mix, shade
from holodeck.generator.plan import Plan
from holodeck.shapes import Color

SOILS = {
    "grass": (85, 125, 0.45, 0.65, 0.5, 0.72),
    "sand": (28, 44, 0.35, 0.55, 0.82, 0.93),
    "earth": (14, 32, 0.4, 0.6, 0.45, 0.65),
    "stone": (20, 260, 0.04, 0.14, 0.55, 0.78),
    "snow": (190, 250, 0.03, 0.1, 0.86, 0.95),
    "strange": (0, 360, 0.25, 0.5, 0.5, 0.8),
}
"""Ranges of hue (degrees), saturation and value."""
NIGHT_SHARE = 0.55
"""How much darker soils are at night."""


def draw_soil(plan: Plan, kind: str) -> Color:
    """Draw the colour of the ground at large."""
    low_h, high_h, low_s, high_s, low_v, high_v = SOILS[kind]
    dice = plan.dice
    color = hsv(dice.between(low_h, high_h), dice.between(low_s, high_s), dice.between(low_v, high_v))
    return mix(shade(color, NIGHT_SHARE), (0.2, 0.18, 0.4), 0.3) if plan.mood.night else color


def _paving(plan: Plan, soil: Color) -> tuple[Color, Color]:
    """Two near colours for the floor that differ from the soil."""
    dice = plan.dice
    main = dice.pick(plan.palette.walls)
    base = mix(plan.palette.light, main, dice.between(0.12, 0.5))
    if plan.mood.night:
        base = mix(shade(base, 0.35), (0.16, 0.14, 0.34), 0.4)
    elif dice.chance(0.3):
        base = mix(base, soil, 0.5)
    return base, shade(base, dice.pick((0.78, 0.84, 0.9, 1.14)))


def slabs(plan: Plan, soil: Color) -> None:
    """Chequered slabs."""
    base, other = _paving(plan, soil)
    tile = plan.dice.pick((0.8, 1.0, 1.5, 2.0, 2.5))
    width, depth = 2 * round(plan.half_x / tile) * tile, 2 * round(plan.half_z / tile) * tile
    plan.paint("rectangle", 0, 0, width + 1.2, depth + 1.2, shade(base, 0.9))
    plan.paint("rectangle", 0, 0, width, depth, base)
    plan.paint("checker", 0, 0, width, depth, tile, other)


def planks(plan: Plan, soil: Color) -> None:
    """Long boards or lanes, side by side."""
    base, other = _paving(plan, soil)
    width, along_x = plan.dice.between(0.5, 2.0), plan.dice.chance(0.5)
    half, length = (plan.half_z, 2 * plan.half_x) if along_x else (plan.half_x, 2 * plan.half_z)
    plan.paint("rectangle", 0, 0, 2 * plan.half_x + 0.4, 2 * plan.half_z + 0.4, base)
    for n in range(int(2 * half / width)):
        middle = -half + (n + 0.5) * width
        color = other if n % 2 else mix(base, other, plan.dice.between(0, 0.4))
        if along_x:
            plan.paint("rectangle", 0, middle, length, width, color)
        else:
            plan.paint("rectangle", middle, 0, width, length, color)


def rings(plan: Plan, soil: Color) -> None:
    """Circles about a point."""
    base, other = _paving(plan, soil)
    if plan.dice.chance(0.6):
        plan.paint("rectangle", 0, 0, 2 * plan.half_x, 2 * plan.half_z, mix(base, soil, 0.4))
    x, z = plan.dice.between(-0.4, 0.4) * plan.half_x, plan.dice.between(-0.4, 0.4) * plan.half_z
    radius, step = min(plan.half_x, plan.half_z) * plan.dice.between(0.9, 1.3), plan.dice.between(0.7, 1.8)
    accent, n = plan.wall_color(), 0
    while radius > 0.5:
        plan.paint("circle", x, z, radius, (base, other, base, mix(accent, base, 0.35))[n % 4])
        radius, n = radius - step, n + 1


def paths(plan: Plan, soil: Color) -> None:
    """Paths that cross, with or without a round of lawn."""
    base, other = _paving(plan, soil)
    dice, width = plan.dice, plan.dice.between(1.4, 2.8)
    x, z = dice.between(-0.3, 0.3) * plan.half_x, dice.between(-0.3, 0.3) * plan.half_z
    round_one = min(plan.half_x, plan.half_z) * dice.between(0.45, 0.8)
    if dice.chance(0.6):
        plan.paint("circle", x, z, round_one, base)
        plan.paint("circle", x, z, round_one - width * 0.8, shade(soil, 1.1))
    plan.paint("circle", x, z, width * 1.2, base)
    plan.paint("rectangle", x, 0, width, 2 * plan.half_z + 6, base)
    plan.paint("rectangle", 0, z, 2 * plan.half_x + 6, width, base)
    if dice.chance(0.5):
        plan.paint("circle", x, z, width * 0.7, other)


def meadow(plan: Plan, soil: Color) -> None:
    """Patches of other shades and a way of stepping stones."""
    dice = plan.dice
    for _ in range(dice.count(14, 34)):
        color = mix(
            shade(soil, dice.pick((0.86, 0.93, 1.08, 1.15))), plan.wall_color(), dice.pick((0.0, 0.0, 0.12))
        )
        x, z = dice.between(-1.6, 1.6) * plan.half_x, dice.between(-1.6, 1.6) * plan.half_z
        plan.paint("circle", x, z, dice.between(0.6, 2.6), color)
    base, _ = _paving(plan, soil)
    x, z, way = dice.between(-0.5, 0.5) * plan.half_x, -plan.half_z, 0.0
    while z < plan.half_z:
        plan.paint("circle", x, z, dice.between(0.32, 0.55), base)
        way = max(-0.8, min(0.8, way + dice.between(-0.35, 0.35)))
        x, z = x + way, z + 0.95


def road(plan: Plan, soil: Color) -> None:
    """Crossing roads with a dashed line."""
    dice = plan.dice
    tar = shade(plan.palette.dark, 0.8 if plan.mood.night else 1.6)
    line, width = (
        mix(plan.palette.light, dice.pick(plan.palette.lights), dice.between(0, 0.4)),
        dice.between(3.6, 5.6),
    )
    pavement, _ = _paving(plan, soil)
    if not plan.mood.night:
        plan.paint("rectangle", 0, 0, 2 * plan.half_x + 4, 2 * plan.half_z + 4, pavement)
    crossing = dice.chance(0.6)
    plan.paint("rectangle", 0, 0, width, 62, tar)
    if crossing:
        plan.paint("rectangle", 0, 0, 62, width, tar)
    for n in range(-11, 12):
        if n or not crossing:
            plan.paint("rectangle", 0, n * 2.6, 0.25, 1.4, line)
        if n and crossing:
            plan.paint("rectangle", n * 2.6, 0, 1.4, 0.25, line)
    if crossing and dice.chance(0.6):
        for n in range(-3, 4):
            plan.paint("rectangle", n * width / 7.5, width / 2 + 1.0, width / 15, 1.4, line)


def sunburst(plan: Plan, soil: Color) -> None:
    """Rays from the middle."""
    base, other = _paving(plan, soil)
    dice, rays = plan.dice, plan.dice.pick((8, 12, 16))
    x, z = dice.between(-0.3, 0.3) * plan.half_x, dice.between(-0.3, 0.3) * plan.half_z
    radius = min(plan.half_x, plan.half_z) * dice.between(0.8, 1.2)
    plan.paint("rectangle", 0, 0, 2 * plan.half_x, 2 * plan.half_z, mix(base, soil, 0.35))
    plan.paint("circle", x, z, radius, base)
    plan.paint("rays", x, z, radius * 0.96, rays, other)
    plan.paint("circle", x, z, radius * 0.28, plan.wall_color() if not plan.mood.night else base)


GROUNDS: dict[str, Callable[[Plan, Color], None]] = {
    "slabs": slabs,
    "planks": planks,
    "rings": rings,
    "paths": paths,
    "meadow": meadow,
    "road": road,
    "sunburst": sunburst,
}
