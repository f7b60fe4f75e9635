"""Small things that stand on tables, of a size of some decimetres, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable

from holodeck.generator.palette import mix, shade
from holodeck.generator.plan import Plan
from holodeck.shapes import Paint, Pattern, Shape, box, cone, cylinder, sphere


def cup(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A full cup, most often on a saucer and with a handle."""
    dice = plan.dice
    china = dice.pick((plan.palette.light, plan.wall_color()))
    drink = dice.pick((plan.palette.trunk, plan.palette.dark, plan.palette.water))
    radius, height, shapes = 0.3 * size, size * dice.between(0.4, 0.8), list[Shape]()
    if dice.chance(0.6):
        saucer = shade(dice.pick((china, plan.wall_color())), dice.between(0.8, 1.0))
        shapes.append(cylinder(x, z, radius * dice.between(1.5, 2.1), 0.04 * size, Paint(saucer), base=base))
        base += 0.04 * size
    shapes.append(cylinder(x, z, radius, height, Paint(shade(china, 0.9), top=china), base=base))
    surface = Paint(mix(drink, plan.palette.light, dice.between(0, 0.3)))
    shapes.append(cylinder(x, z, 0.86 * radius, 0.004, surface, base=base + height))
    if dice.chance(0.6):
        away, along_x = dice.pick((-1.25, 1.25)) * radius, dice.chance(0.5)
        middle = (x + away, z) if along_x else (x, z + away)
        wide, deep = (0.36, 0.08) if along_x else (0.08, 0.36)
        handle = Paint(china)
        shapes.append(box(*middle, wide * size, deep * size, 0.4 * height, handle, base=base + 0.3 * height))
    return shapes


def plate(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A plate or bowl with up to three round fruits."""
    dice = plan.dice
    china, fruit = Paint(dice.pick((plan.palette.light, plan.wall_color()))), Paint(plan.wall_color())
    rim = size * dice.between(0.05, 0.2)
    shapes = [cylinder(x, z, 0.5 * size, rim, china, base=base)]
    for right, ahead in ((-0.2, -0.15), (0.2, -0.1), (0.0, 0.2))[: dice.count(0, 3)]:
        radius = size * dice.between(0.12, 0.19)
        shapes.append(sphere(x + right * size, z + ahead * size, radius, fruit, base=base + 0.8 * rim))
    return shapes


def bottle(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    dice, glass = plan.dice, plan.wall_color()
    radius, height = size * dice.between(0.14, 0.24), size * dice.between(0.7, 1.2)
    body = Paint(glass, plan.palette.light, Pattern.BANDS, period_v=height, duty=dice.between(0.2, 0.5))
    return [
        cylinder(x, z, radius, height, body, base=base),
        cone(x, z, radius, 0.5 * size, Paint(glass), base=base + height),
        cylinder(x, z, 0.35 * radius, 0.5 * size, Paint(shade(glass, 0.8)), base=base + height),
    ]


def books(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A stack of books or flat boxes, or a single one on end."""
    dice, shapes = plan.dice, list[Shape]()
    if dice.chance(0.3):
        wide, deep = dice.pick(((size, 0.2 * size), (0.2 * size, size)))
        return [box(x, z, wide, deep, size * dice.between(0.7, 1.4), plan.patterned(0.3 * size), base=base)]
    for _ in range(dice.count(1, 4)):
        wide, deep, thick = (size * dice.between(*sides) for sides in ((0.6, 1.0), (0.6, 1.0), (0.08, 0.25)))
        pages = Paint(plan.palette.light, top=plan.wall_color())
        shapes.append(box(x, z, wide, deep, thick, pages, base=base))
        base += thick
    return shapes


def block(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A box of any proportions."""
    dice = plan.dice
    wide, deep, tall = (size * dice.between(0.4, 1.0) for _ in range(3))
    return [box(x, z, wide, deep, tall, plan.patterned(size * dice.between(0.15, 0.5)), base=base)]


def ball(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    return [sphere(x, z, 0.5 * size, plan.patterned(0.3 * size), base=base)]


def potted_plant(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A pot with a bush or a single flower."""
    dice, leaf = plan.dice, Paint(plan.dice.pick(plan.palette.leaves))
    height = size * dice.between(0.4, 0.8)
    pot = cylinder(x, z, size * dice.between(0.2, 0.35), height, plan.patterned(0.3 * size), base=base)
    if dice.chance(0.5):
        return [pot, sphere(x, z, size * dice.between(0.3, 0.5), leaf, base=base + height - 0.05 * size)]
    stem, petals = size * dice.between(0.3, 0.8), size * dice.between(0.1, 0.22)
    return [
        pot,
        cylinder(x, z, 0.03 * size, stem, leaf, base=base + height),
        sphere(x, z, petals, Paint(plan.wall_color()), base=base + height + stem - 0.05 * size),
    ]


def table_lamp(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    dice, metal = plan.dice, Paint(plan.palette.dark)
    height = size * dice.between(0.7, 1.3)
    lampshade = Paint(plan.wall_color(), glow=dice.between(0.0, 0.6))
    return [
        cylinder(x, z, 0.25 * size, 0.06 * size, metal, base=base),
        cylinder(x, z, 0.04 * size, height, metal, base=base),
        cone(x, z, size * dice.between(0.3, 0.5), 0.5 * size, lampshade, base=base + height - 0.1 * size),
    ]


def bust(plan: Plan, x: float, z: float, size: float, base: float) -> list[Shape]:
    """A head on shoulders, larger than the other things."""
    dice, size = plan.dice, 1.8 * size
    skin = Paint(mix(plan.palette.light, plan.palette.trunk, dice.between(0.1, 0.7)))
    dress, tall = plan.patterned(0.3 * size), size * dice.between(0.4, 0.8)
    head, neck = size * dice.between(0.16, 0.22), base + tall + 0.1 * size
    shapes = [
        cylinder(x, z, 0.3 * size, tall, dress, base=base)
        if dice.chance(0.5)
        else cone(x, z, 0.4 * size, 1.3 * tall, dress, base=base),
        cylinder(x, z, 0.09 * size, 0.2 * size, skin, base=base + tall),
        sphere(x, z, head, skin, base=neck),
    ]
    if dice.chance(0.6):
        hair = Paint(dice.pick((plan.palette.dark, plan.palette.trunk, plan.wall_color())))
        shapes.append(sphere(x, z + 0.3 * head, head, hair, base=neck + 0.25 * head))
    return shapes


TABLEWARE: tuple[Callable[[Plan, float, float, float, float], list[Shape]], ...] = (
    cup,
    cup,
    plate,
    bottle,
    books,
    block,
    ball,
    potted_plant,
    table_lamp,
    bust,
)
"""Each makes the shapes of a thing centred on (x, z), of about the width `size`, that stands at the height `base`; metres."""
