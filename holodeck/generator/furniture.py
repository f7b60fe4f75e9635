"""Furniture of generated places: small things that come in numbers, each centred on a point."""

from __future__ import annotations

from holodeck.generator.plan import Plan
from holodeck.shapes import Paint, Pattern, Shape, box, cone, cylinder, sphere


def lamp(plan: Plan, x: float, z: float) -> list[Shape]:
    height = plan.dice.between(2.7, 3.5)
    bulb = Paint(
        plan.palette.lights[0] if plan.mood.night else plan.palette.light,
        glow=1.0 if plan.mood.night else 0.2,
    )
    return [
        cylinder(x, z, 0.07, height, Paint(plan.palette.dark)),
        cylinder(x, z, 0.2, 0.25, Paint(plan.palette.dark)),
        sphere(x, z, 0.28, bulb, base=height - 0.05, solid=False),
    ]


def umbrella(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, color = plan.dice, plan.wall_color()
    height, radius = dice.between(2.05, 2.4), dice.between(0.9, 1.35)
    cloth = Paint(
        color,
        plan.palette.light,
        Pattern.STRIPES if dice.chance(0.8) else Pattern.PLAIN,
        period=radius * 0.78,
    )
    shapes = [
        cylinder(x, z, 0.05, height + 0.1, Paint(plan.palette.dark)),
        cone(x, z, radius, 0.75, cloth, base=height - 0.1, solid=False),
    ]
    if dice.chance(0.5):
        shapes.append(cylinder(x, z, 0.5, 0.08, Paint(plan.palette.light), base=0.7))
    return shapes


def tree(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    leaf = Paint(dice.pick(plan.palette.leaves))
    trunk, kind = Paint(plan.palette.trunk), dice.count(0, 3)
    if kind == 0:
        radius = dice.between(0.8, 1.3)
        return [cylinder(x, z, 0.18, 1.7, trunk), sphere(x, z, radius, leaf, base=1.4)]
    if kind == 1:
        return [
            cylinder(x, z, 0.18, 1.0, trunk),
            cone(x, z, dice.between(0.8, 1.2), dice.between(2.6, 4.2), leaf, base=0.8),
        ]
    if kind == 2:
        return [cone(x, z, dice.between(0.45, 0.8), dice.between(2.8, 4.6), leaf)]
    low, high = dice.between(0.8, 1.2), dice.between(0.5, 0.8)
    other = Paint(plan.palette.leaves[1])
    return [
        cylinder(x, z, 0.2, 1.5, trunk),
        sphere(x, z, low, leaf, base=1.2),
        sphere(x, z, high, other, base=1.0 + 2 * low),
    ]


def palm(plan: Plan, x: float, z: float) -> list[Shape]:
    height, leaf = plan.dice.between(2.6, 3.8), Paint(plan.palette.leaves[0])
    trunk = Paint(plan.palette.trunk, plan.palette.dark, Pattern.BANDS, period_v=0.5, duty=0.25)
    return [
        cylinder(x, z, 0.14, height, trunk),
        cone(x, z, 1.3, 0.6, leaf, base=height - 0.25, solid=False),
        cone(x, z, 0.8, 0.7, Paint(plan.palette.leaves[1]), base=height + 0.1, solid=False),
    ]


def cactus(plan: Plan, x: float, z: float) -> list[Shape]:
    paint, height = Paint(plan.palette.leaves[0]), plan.dice.between(1.8, 2.8)
    shapes = [cylinder(x, z, 0.32, height, paint), sphere(x, z, 0.32, paint, base=height - 0.32)]
    for side in (-1, 1):
        if plan.dice.chance(0.7):
            low = plan.dice.between(0.6, 1.1)
            shapes += [
                box(x + side * 0.45, z, 0.5, 0.2, 0.2, paint, base=low),
                cylinder(x + side * 0.68, z, 0.18, 0.9, paint, base=low),
            ]
    return shapes


def mushroom(plan: Plan, x: float, z: float) -> list[Shape]:
    height, color = plan.dice.between(0.9, 2.2), plan.wall_color()
    return [
        cylinder(x, z, height * 0.16, height, Paint(plan.palette.light)),
        cone(
            x,
            z,
            height * 0.6,
            height * 0.55,
            Paint(color, plan.palette.light, Pattern.CHECKER, period=0.5, period_v=0.4),
            base=height * 0.85,
        ),
    ]


def bench(plan: Plan, x: float, z: float) -> list[Shape]:
    wood, leg = Paint(plan.palette.trunk), Paint(plan.palette.dark)
    wide, deep = (1.7, 0.5) if plan.dice.chance(0.5) else (0.5, 1.7)
    shift = (0.6, 0.0) if wide > deep else (0.0, 0.6)
    legs = [box(x + s * shift[0], z + s * shift[1], 0.2, 0.2, 0.42, leg) for s in (-1, 1)]
    return [*legs, box(x, z, wide, deep, 0.1, wood, base=0.42)]


def planter(plan: Plan, x: float, z: float) -> list[Shape]:
    dice = plan.dice
    side, height = dice.between(0.8, 1.4), dice.between(0.5, 0.8)
    pot = box(x, z, side, side, height, Paint(plan.wall_color(), top=plan.palette.trunk))
    leaf = Paint(dice.pick(plan.palette.leaves))
    plant = (
        sphere(x, z, side * 0.42, leaf, base=height - 0.1)
        if dice.chance(0.6)
        else cone(x, z, side * 0.35, 1.4, leaf, base=height)
    )
    return [pot, plant]


def crates(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, shapes = plan.dice, []
    side = dice.between(0.8, 1.2)
    for n in range(dice.count(1, 3)):
        color = plan.wall_color()
        paint = Paint(color, plan.palette.dark, Pattern.BANDS, period_v=side, duty=0.14)
        shapes.append(
            box(
                x + dice.between(-0.12, 0.12),
                z + dice.between(-0.12, 0.12),
                side,
                side,
                side,
                paint,
                base=n * side,
            )
        )
    return shapes


def barrel(plan: Plan, x: float, z: float) -> list[Shape]:
    paint = Paint(plan.wall_color(), plan.palette.dark, Pattern.BANDS, period_v=0.5, duty=0.2)
    return [cylinder(x, z, plan.dice.between(0.35, 0.5), plan.dice.between(0.9, 1.2), paint)]


def flag(plan: Plan, x: float, z: float) -> list[Shape]:
    height, paint = plan.dice.between(3.6, 5.5), plan.patterned(0.6, plain=0.2)
    along_x, wide = plan.dice.chance(0.5), 1.3
    cloth = (x + wide / 2, z, wide, 0.05) if along_x else (x, z + wide / 2, 0.05, wide)
    return [
        cylinder(x, z, 0.05, height, Paint(plan.palette.light)),
        box(*cloth, 0.85, paint, base=height - 0.95, solid=False),
        sphere(x, z, 0.1, Paint(plan.wall_color()), base=height - 0.05, solid=False),
    ]


def poles(plan: Plan, x: float, z: float) -> list[Shape]:
    """A row of thin striped poles."""
    dice, color = plan.dice, plan.wall_color()
    paint = Paint(color, plan.palette.light, Pattern.BANDS, period_v=0.7)
    along_x, height, spacing = dice.chance(0.5), dice.between(1.4, 3.2), dice.between(0.5, 0.8)
    places = [(n - 1.5) * spacing for n in range(4)]
    return [
        cylinder(x + (p if along_x else 0), z + (0 if along_x else p), 0.06, height, paint) for p in places
    ]


def stall(plan: Plan, x: float, z: float) -> list[Shape]:
    dice, color = plan.dice, plan.wall_color()
    wide, deep = (2.4, 1.5) if dice.chance(0.5) else (1.5, 2.4)
    post = Paint(plan.palette.trunk)
    shapes = [
        cylinder(x + a * (wide / 2 - 0.1), z + b * (deep / 2 - 0.1), 0.06, 2.3, post)
        for a in (-1, 1)
        for b in (-1, 1)
    ]
    shapes.append(box(x, z, wide - 0.5, deep - 0.5, 0.9, Paint(plan.wall_color(), top=plan.palette.light)))
    cloth = Paint(color, plan.palette.light, Pattern.STRIPES, period=0.6, top=color)
    shapes.append(box(x, z, wide + 0.3, deep + 0.3, 0.35, cloth, base=2.3, solid=False))
    for n in range(3):
        fruit = (n - 1) * 0.5
        shapes.append(
            sphere(
                x + (fruit if wide > deep else 0),
                z + (0 if wide > deep else fruit),
                0.18,
                Paint(plan.wall_color()),
                base=0.9,
            )
        )
    return shapes


def boulder(plan: Plan, x: float, z: float) -> list[Shape]:
    radius, color = plan.dice.between(0.5, 1.1), plan.palette.walls[plan.dice.count(0, 1)]
    shapes = [sphere(x, z, radius, Paint(color), base=-radius * 0.4)]
    if plan.dice.chance(0.5):
        shapes.append(
            sphere(x + radius * 0.9, z + radius * 0.3, radius * 0.55, Paint(color), base=-radius * 0.2)
        )
    return shapes


def pillar(plan: Plan, x: float, z: float) -> list[Shape]:
    """A column, whole or broken."""
    dice, shaft = (
        plan.dice,
        Paint(
            plan.palette.light,
            plan.wall_color(),
            Pattern.BANDS,
            period_v=1.4,
            duty=plan.dice.pick((0.12, 0.5)),
        ),
    )
    height, whole = dice.between(0.8, 3.8), dice.chance(0.5)
    shapes = [
        box(x, z, 0.95, 0.95, 0.3, Paint(plan.wall_color())),
        cylinder(x, z, 0.36, height, shaft, base=0.3),
    ]
    return (
        [*shapes, box(x, z, 0.95, 0.95, 0.3, Paint(plan.wall_color()), base=height + 0.3)]
        if whole
        else shapes
    )
