"""Landmarks of generated places, each centred on a point of the floor, and the table of all that can stand there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holodeck.generator import furniture
from holodeck.generator.plan import Plan
from holodeck.shapes import Paint, Pattern, Shape, box, cone, cylinder, sphere


def fountain(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, water = plan.dice, Paint(plan.palette.water)
    stone = plan.palette.light if dice.chance(0.6) else plan.wall_color()
    radius, rim = dice.between(1.1, 1.9), dice.between(0.45, 0.8)
    basin = Paint(stone, top=plan.palette.water)
    shapes = [cylinder(x, z, radius, rim, basin), cylinder(x, z, 0.3, rim + 1.3, Paint(stone))]
    if dice.chance(0.5):
        shapes += [cylinder(x, z, radius * 0.5, 0.25, basin, base=rim + 0.7)]
    return [*shapes, sphere(x, z, dice.between(0.4, 0.65), water, base=rim + 1.3)]


def statue(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    side, height = dice.between(0.8, 1.3), dice.between(0.7, 1.3)
    shapes = [
        box(x, z, side, side, height, Paint(plan.palette.light if dice.chance(0.5) else plan.wall_color()))
    ]
    paint, radius, kind = plan.patterned(0.6), side * dice.between(0.38, 0.5), dice.count(0, 3)
    if kind == 0:
        return [*shapes, sphere(x, z, radius, paint, base=height)]
    if kind == 1:
        return [*shapes, cone(x, z, radius, dice.between(1.0, 1.7), paint, base=height)]
    if kind == 2:
        tall = dice.between(1.0, 1.8)
        head = sphere(x, z, radius * 0.8, Paint(plan.wall_color()), base=height + tall)
        return [*shapes, cylinder(x, z, radius * 0.7, tall, paint, base=height), head]
    upper = dice.between(0.6, 1.1)
    return [
        *shapes,
        box(x, z, side * 0.7, side * 0.7, upper, paint, base=height),
        sphere(x, z, side * 0.3, Paint(plan.wall_color()), base=height + upper),
    ]


def obelisk(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    side, height, paint = dice.between(0.7, 1.2), dice.between(3.2, 6.0), plan.patterned(1.2)
    base = box(x, z, side + 0.7, side + 0.7, 0.45, Paint(plan.contrast(paint.color)))
    return [
        base,
        box(x, z, side, side, height, paint, base=0.45),
        cone(x, z, side * 0.5, side * 1.3, Paint(plan.wall_color()), base=height + 0.45),
    ]


def arch(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, paint = plan.dice, plan.patterned(1.1)
    pillar, opening, height = dice.between(0.6, 1.2), dice.between(2.2, 3.4), dice.between(2.9, 4.4)
    reach, top = (opening + pillar) / 2, Paint(plan.contrast(paint.color))
    if dice.chance(0.5):
        beam = box(x, z, opening + 2 * pillar + 0.4, pillar + 0.2, 0.8, top, base=height)
        return [
            box(x - reach, z, pillar, pillar, height, paint),
            box(x + reach, z, pillar, pillar, height, paint),
            beam,
        ]
    beam = box(x, z, pillar + 0.2, opening + 2 * pillar + 0.4, 0.8, top, base=height)
    return [
        box(x, z - reach, pillar, pillar, height, paint),
        box(x, z + reach, pillar, pillar, height, paint),
        beam,
    ]


def giant_ball(plan: Plan, x: float, z: float) -> list[Shape]:
    radius = plan.dice.between(1.0, 1.9)
    return [sphere(x, z, radius, plan.patterned(radius * 0.8, plain=0.2))]


def giant_cube(plan: Plan, x: float, z: float) -> list[Shape]:
    side = plan.dice.between(1.6, 2.8)
    return [box(x, z, side, side, side, plan.patterned(side / 2, plain=0.2))]


def rocket(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    radius, height = dice.between(0.8, 1.5), dice.between(2.0, 3.6)
    body = cylinder(x, z, radius, height, plan.patterned(radius))
    return [
        body,
        cone(x, z, radius * dice.between(1.0, 1.35), radius * 1.6, Paint(plan.wall_color()), base=height),
    ]


def giant_cone(plan: Plan, x: float, z: float) -> list[Shape]:
    radius = plan.dice.between(0.9, 1.7)
    return [
        cone(x, z, radius, radius * plan.dice.between(1.8, 2.8), plan.patterned(radius * 0.9, plain=0.15))
    ]


def dome(plan: Plan, x: float, z: float) -> list[Shape]:
    radius = plan.dice.between(1.3, 2.2)
    return [
        cylinder(x, z, radius, 1.2, plan.patterned(1.0)),
        sphere(x, z, radius, Paint(plan.wall_color()), base=1.2 - radius),
    ]


def steps(plan: Plan, x: float, z: float) -> list[Shape]:
    """A stepped pyramid with something on top."""
    dice, side, shapes = plan.dice, plan.dice.between(2.2, 3.4), []
    first, second = plan.wall_color(), plan.wall_color()
    levels, rise = dice.count(3, 5), dice.between(0.35, 0.6)
    for n in range(levels):
        shapes.append(
            box(
                x,
                z,
                side * (1 - n / (levels + 1)),
                side * (1 - n / (levels + 1)),
                rise * (n + 1),
                Paint(first if n % 2 else second),
            )
        )
    return [*shapes, sphere(x, z, side * 0.14, Paint(plan.palette.light), base=rise * levels)]


def pavilion(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    reach, height = dice.between(1.3, 1.7), dice.between(2.5, 3.1)
    post = Paint(plan.palette.light if dice.chance(0.5) else plan.palette.dark)
    roof = plan.patterned(0.9, plain=0.3)
    shapes = [cylinder(x + a * reach, z + b * reach, 0.12, height, post) for a in (-1, 1) for b in (-1, 1)]
    shapes.append(
        box(x, z, 2 * reach + 0.6, 2 * reach + 0.6, 0.3, Paint(plan.contrast(roof.color)), base=height)
    )
    return [*shapes, cone(x, z, reach + 0.2, dice.between(1.0, 1.8), roof, base=height + 0.3)]


def totem(plan: Plan, x: float, z: float) -> list[Shape]:
    shapes, base = [], 0.0
    for _ in range(plan.dice.count(3, 5)):
        size, paint = plan.dice.between(0.6, 1.1), plan.patterned(0.5, plain=0.7)
        if plan.dice.chance(0.4):
            shapes.append(sphere(x, z, size / 2, paint, base=base))
        else:
            shapes.append(box(x, z, size, size, size, paint, base=base))
        base += size
    return shapes


def kiosk(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, color = plan.dice, plan.wall_color()
    side, height, glow = dice.between(1.4, 2.0), dice.between(2.2, 2.6), 0.85 if plan.mood.night else 0.0
    walls = Paint(color, plan.contrast(color), Pattern.STRIPES, period=0.8, glow=glow)
    return [
        box(x, z, side, side, height, walls),
        box(x, z, side + 0.6, side + 0.6, 0.3, Paint(plan.wall_color(), glow=glow), base=height),
    ]


def lighthouse(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, color = plan.dice, plan.wall_color()
    radius, height = dice.between(0.8, 1.2), dice.between(4.5, 7.0)
    lamp = Paint(dice.pick(plan.palette.lights), glow=1.0)
    return [
        cylinder(x, z, radius, height, Paint(color, plan.palette.light, Pattern.BANDS, period_v=height / 3)),
        cylinder(x, z, radius * 1.25, 0.25, Paint(plan.palette.dark), base=height),
        cylinder(x, z, radius * 0.7, 0.9, lamp, base=height + 0.25),
        cone(x, z, radius, 0.9, Paint(color), base=height + 1.15),
    ]


@dataclass(frozen=True)
class Feature:
    """One kind of thing."""

    build: Callable[[Plan, float, float], list[Shape]]
    """Makes its shapes, centred on (x, z) in metres."""
    phrase: str
    """One of it, as in a caption."""
    plural: str


FEATURES = {
    "fountain": Feature(fountain, "a fountain", "fountains"),
    "statue": Feature(statue, "a statue", "statues"),
    "obelisk": Feature(obelisk, "an obelisk", "obelisks"),
    "arch": Feature(arch, "an arch", "arches"),
    "ball": Feature(giant_ball, "a giant ball", "giant balls"),
    "cube": Feature(giant_cube, "a giant cube", "giant cubes"),
    "rocket": Feature(rocket, "a rocket", "rockets"),
    "cone": Feature(giant_cone, "a giant cone", "giant cones"),
    "dome": Feature(dome, "a dome", "domes"),
    "steps": Feature(steps, "a stepped pyramid", "stepped pyramids"),
    "pavilion": Feature(pavilion, "a pavilion", "pavilions"),
    "totem": Feature(totem, "a totem", "totems"),
    "kiosk": Feature(kiosk, "a kiosk", "kiosks"),
    "lighthouse": Feature(lighthouse, "a lighthouse", "lighthouses"),
    "lamp": Feature(furniture.lamp, "a lamp", "lamps"),
    "umbrella": Feature(furniture.umbrella, "an umbrella", "umbrellas"),
    "tree": Feature(furniture.tree, "a tree", "trees"),
    "palm": Feature(furniture.palm, "a palm", "palms"),
    "cactus": Feature(furniture.cactus, "a cactus", "cacti"),
    "mushroom": Feature(furniture.mushroom, "a mushroom", "mushrooms"),
    "bench": Feature(furniture.bench, "a bench", "benches"),
    "planter": Feature(furniture.planter, "a planter", "planters"),
    "crates": Feature(furniture.crates, "a stack of crates", "stacks of crates"),
    "barrel": Feature(furniture.barrel, "a barrel", "barrels"),
    "flag": Feature(furniture.flag, "a flag", "flags"),
    "poles": Feature(furniture.poles, "a row of poles", "rows of poles"),
    "stall": Feature(furniture.stall, "a market stall", "market stalls"),
    "boulder": Feature(furniture.boulder, "a boulder", "boulders"),
    "pillar": Feature(furniture.pillar, "a column", "columns"),
}
