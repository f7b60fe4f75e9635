"""What stands along one side of the floor of a generated place: houses, hedges, terraces, columns, rocks, or nothing near."""

from __future__ import annotations

import math
from collections.abc import Callable

from holodeck.generator.features import FEATURES
from holodeck.generator.houses import house, tower
from holodeck.generator.palette import shade
from holodeck.generator.plan import Plan
from holodeck.generator.side import Side
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cone, cylinder, sphere

SideBuilder = Callable[[Plan, Side], None]
FAR_M = 27.0
"""Nothing stands further out: the painted ground ends at 32 m."""


def houses(plan: Plan, side: Side) -> None:
    """A row of houses with gaps, some set back."""
    along = -side.length - plan.dice.between(0, 5)
    while along < side.length + 1:
        shapes, along = house(plan, side, along, plan.dice.between(0.3, 2.6))
        plan.surround(shapes)
        along += plan.dice.pick((0.0, 0.4, 1.2, 2.4))


def towers(plan: Plan, side: Side) -> None:
    """Tall buildings, with signs of light at night."""
    along = -side.length - plan.dice.between(1, 6)
    while along < side.length + 2:
        shapes, along = tower(plan, side, along, plan.dice.between(0.3, 3.0))
        plan.surround(shapes)
        along += plan.dice.pick((0.4, 1.5, 3.0))


def low_wall(plan: Plan, side: Side) -> None:
    """A wall that may be looked over or not, with posts or trees behind."""
    dice, color = plan.dice, plan.wall_color()
    height, thick = dice.between(0.9, 3.2), dice.between(0.4, 0.8)
    kinds = {
        Pattern.TRIM: Paint(color, plan.contrast(color), Pattern.TRIM, period_v=height, duty=0.25),
        Pattern.STRIPES: Paint(color, shade(color, 0.8), Pattern.STRIPES, period=dice.between(1.5, 4.0)),
        Pattern.PLAIN: Paint(color, top=plan.contrast(color)),
    }
    paint = kinds[dice.pick(list(kinds))]
    shapes = [side.box(0, 0.3, 2 * side.length + 2, thick, height, paint)]
    if dice.chance(0.6):
        post, spacing = Paint(plan.contrast(color)), dice.between(2.5, 4.5)
        for n in range(-int(side.length / spacing), int(side.length / spacing) + 1):
            x, z = side.point(n * spacing, 0.3 + thick / 2)
            shapes.append(box(x, z, thick + 0.3, thick + 0.3, height + 0.4, post))
            shapes.append(sphere(x, z, 0.3, Paint(color), base=height + 0.4))
    plan.surround(shapes)
    _scatter(plan, side, ("tree", "palm") if dice.chance(0.6) else ("obelisk", "dome"), dice.count(0, 4), 2.0)


def hedge(plan: Plan, side: Side) -> None:
    """A clipped hedge and trees behind it."""
    dice, (leaf, deep) = plan.dice, plan.palette.leaves
    paint = Paint(deep, leaf, Pattern.STRIPES, period=dice.between(1.6, 3.2), top=leaf)
    plan.surround([side.box(0, 0.4, 2 * side.length + 2, 1.0, dice.between(0.9, 2.0), paint)])
    _scatter(plan, side, ("tree",), dice.count(2, 6), 2.4)


def colonnade(plan: Plan, side: Side) -> None:
    """Columns under a beam, with a wall or trees behind."""
    dice, color = plan.dice, plan.wall_color()
    height, radius, spacing = dice.between(3.0, 5.0), dice.between(0.3, 0.55), dice.between(2.4, 4.2)
    light = plan.palette.light
    shaft = dice.pick(
        (
            Paint(light, shade(light, 0.85), Pattern.BANDS, period_v=1.6),
            Paint(light, color, Pattern.BANDS, period_v=height, duty=0.2),
            Paint(color),
        )
    )
    ends, shapes = Paint(plan.contrast(light)), list[Shape]()
    count = int(side.length / spacing)
    for n in range(-count, count + 1):
        x, z = side.point(n * spacing, 0.9)
        shapes += [
            box(x, z, 2.6 * radius, 2.6 * radius, 0.4, ends),
            cylinder(x, z, radius, height, shaft, base=0.4),
        ]
        shapes.append(box(x, z, 2.6 * radius, 2.6 * radius, 0.4, ends, base=height + 0.4))
    beam = Paint(light, color, dice.pick((Pattern.STRIPES, Pattern.PLAIN)), period=spacing / 2)
    shapes.append(
        side.box(
            0,
            0.9 - 1.4 * radius,
            2 * count * spacing + 3 * radius,
            2.8 * radius,
            0.8,
            beam,
            base=height + 0.8,
        )
    )
    plan.surround(shapes)
    if dice.chance(0.5):
        wall = Paint(plan.wall_color(), plan.palette.dark, Pattern.TRIM, period_v=height, duty=0.2)
        plan.surround([side.box(0, 3.4, 2 * side.length + 2, 0.6, height * dice.between(0.6, 1.1), wall)])
    else:
        _scatter(plan, side, ("tree", "palm"), dice.count(2, 5), 3.4)


def arcade(plan: Plan, side: Side) -> None:
    """A high wall with openings that show what is behind."""
    dice, color = plan.dice, plan.wall_color()
    pillar, opening, height = dice.between(0.6, 1.4), dice.between(1.6, 2.8), dice.between(2.4, 3.2)
    thick, above = dice.between(0.5, 1.0), dice.between(0.6, 2.4)
    period, shapes = pillar + opening, list[Shape]()
    paint = Paint(color, plan.contrast(color), Pattern.TRIM, period_v=height, duty=0.15)
    count = int(side.length / period) + 1
    for n in range(-count, count + 1):
        shapes.append(side.box(n * period, 0.4, pillar, thick, height, paint))
    upper = Paint(
        color,
        plan.contrast(color),
        Pattern.WINDOWS if above > 1.8 else Pattern.PLAIN,
        period=period,
        period_v=2.0,
        duty=0.4,
    )
    shapes.append(side.box(0, 0.4, 2 * count * period + pillar, thick, above, upper, base=height))
    shapes.append(
        side.box(
            0,
            0.3,
            2 * count * period + pillar,
            thick + 0.2,
            0.25,
            Paint(plan.contrast(color)),
            base=height + above,
        )
    )
    plan.surround(shapes)
    _scatter(plan, side, tuple(FEATURES)[:8], dice.count(1, 3), 3.0)


def terraces(plan: Plan, side: Side) -> None:
    """Steps of rock that climb away from the floor."""
    dice, tread = plan.dice, _tread(plan)
    first, second = plan.palette.walls[0], plan.palette.walls[1]
    rise, run, levels = dice.between(0.6, 1.4), dice.between(1.0, 2.2), dice.count(2, 6)
    for n in range(levels):
        paint = Paint(first if n % 2 == 0 else second, top=tread)
        last = n == levels - 1
        depth = 5.0 if last else run
        if not plan.surround(
            [side.box(0, 0.5 + run * n, 2 * (side.length + 0.4 + run * n), depth, rise * (n + 1), paint)]
        ):
            return


def _tread(plan: Plan) -> Color:
    return plan.dice.pick((plan.palette.light, shade(plan.palette.walls[1], 1.25), plan.palette.leaves[0]))


def rocks(plan: Plan, side: Side) -> None:
    """Layered pillars and stacks of stone."""
    dice, along = plan.dice, -side.length - 1.0
    while along < side.length + 1:
        color, other = (
            plan.palette.walls[dice.count(0, 1)],
            dice.pick((plan.palette.walls[1], plan.palette.light)),
        )
        paint = Paint(
            color, other, Pattern.BANDS, period_v=dice.between(0.9, 2.4), duty=dice.pick((0.3, 0.4, 0.5))
        )
        width, height, out = dice.between(1.6, 4.0), dice.between(1.6, 7.0), dice.between(0.4, 2.5)
        middle = along + width / 2
        if dice.chance(0.3):
            x, z = side.point(middle, out + width / 2)
            plan.surround([cylinder(x, z, width / 2, height, paint)])
        else:
            shapes = [side.box(middle, out, width, width, height, paint)]
            if dice.chance(0.4):
                shapes.append(
                    side.box(middle, out + 0.3, width - 0.6, width - 0.6, height * 0.4, paint, base=height)
                )
            plan.surround(shapes)
        along += width + dice.between(0.0, 2.5)
    terraces(plan, Side(side.index, side.half_x + 5.0, side.half_z + 5.0))


def trees(plan: Plan, side: Side) -> None:
    """A wood: trees in no order."""
    _scatter(plan, side, ("tree", "tree", "tree", "boulder"), plan.dice.count(9, 16), 0.8, 9.0)


def fence(plan: Plan, side: Side) -> None:
    """Thin posts and rails before an open view."""
    dice, paint = plan.dice, Paint(plan.palette.light if plan.dice.chance(0.5) else plan.palette.trunk)
    height, spacing = dice.between(0.9, 1.3), dice.between(0.8, 2.2)
    count = int(side.length / spacing)
    shapes = [side.box(n * spacing, 0.4, 0.1, 0.1, height, paint) for n in range(-count, count + 1)]
    shapes += [
        side.box(0, 0.42, 2 * count * spacing, 0.06, 0.09, paint, base=height * share)
        for share in (0.4, 0.85)
    ]
    plan.surround(shapes)
    _scatter(plan, side, tuple(FEATURES), dice.count(1, 4), 4.0, 12.0)


def nothing_near(plan: Plan, side: Side) -> None:
    """An open horizon with few things far off."""
    _scatter(
        plan, side, ("tree", "dome", "cone", "ball", "palm", "obelisk"), plan.dice.count(1, 5), 5.0, 14.0
    )


def near_wall(plan: Plan, side: Side) -> None:
    """One large wall right at the edge."""
    dice, color = plan.dice, plan.wall_color()
    height, period = dice.between(3.5, 8.0), dice.between(0.8, 2.6)
    pattern = dice.pick(
        (Pattern.PLAIN, Pattern.BANDS, Pattern.CHECKER, Pattern.STRIPES, Pattern.WINDOWS, Pattern.TRIM)
    )
    paint = Paint(
        color,
        plan.contrast(color) if dice.chance(0.5) else shade(color, 0.78),
        pattern,
        period=period,
        period_v=period,
        duty=0.4,
    )
    shapes = [side.box(0, 0.1, 2 * side.length + 0.6, 0.8, height, paint)]
    for n in range(dice.count(0, 3)):
        picture = plan.patterned(0.7, plain=0.0)
        shapes.append(side.box((n - 1) * 4.0, 0.04, 2.2, 0.06, 1.5, picture, base=1.0, solid=False))
    plan.surround(shapes)


def stacks(plan: Plan, side: Side) -> None:
    """Stacked containers of a harbour."""
    dice, along = plan.dice, -side.length - 1.0
    while along < side.length:
        width, shapes = dice.pick((3.0, 4.5, 6.0)), list[Shape]()
        out = dice.between(0.4, 1.6)
        for n in range(dice.count(1, 3)):
            color = plan.wall_color()
            paint = Paint(color, shade(color, 0.82), Pattern.STRIPES, period=0.5)
            shapes.append(side.box(along + width / 2, out, width, 2.4, 2.3, paint, base=2.3 * n))
        plan.surround(shapes)
        along += width + dice.pick((0.1, 0.6, 2.0))
    _scatter(plan, side, ("lighthouse", "dome"), dice.count(0, 2), 5.0, 9.0)


def solids(plan: Plan, side: Side) -> None:
    """A row of giant coloured solids."""
    dice, along = plan.dice, -side.length
    kinds = ("ball", "cube", "rocket", "cone", "steps", "dome", "totem", "arch")
    while along < side.length + 1:
        plan.surround(
            FEATURES[dice.pick(kinds)].build(plan, *side.point(along, dice.between(2.2, 3.4))), gap_m=0.2
        )
        along += dice.between(3.4, 5.5)


def temple(plan: Plan, side: Side) -> None:
    """A great front in the middle of the side."""
    dice, color = plan.dice, plan.wall_color()
    half, height = min(side.length, dice.between(4.5, 7.5)), dice.between(4.0, 6.0)
    other = plan.contrast(color)
    period = half / 2
    paint = Paint(color, plan.palette.dark, Pattern.WINDOWS, period=period, period_v=height * 1.05, duty=0.55)
    shapes = [
        side.box(0, 2.0, 2 * half, 3.0, height, paint),
        side.box(0, 1.6, 2 * half + 0.8, 3.8, 0.8, Paint(other), base=height),
    ]
    x, z = side.point(0, 3.5)
    roof = Paint(plan.wall_color(), plan.palette.light, Pattern.STRIPES, period=2.0)
    shapes.append(
        cone(x, z, 3.0, 2.6, roof, base=height + 0.8)
        if dice.chance(0.5)
        else sphere(x, z, 2.6, roof, base=height - 1.6)
    )
    plan.surround(shapes, "a temple")
    trees(plan, side)


def skyline(plan: Plan) -> None:
    """Large things far beyond the floor, to find one's way by."""
    dice = plan.dice
    for _ in range(dice.count(1, 5)):
        side = Side(dice.count(0, 3), plan.half_x, plan.half_z)
        radius, out = dice.between(2.0, 4.0), dice.between(11.0, 15.0)
        x, z = side.point(dice.between(-1.2, 1.2) * side.length, out)
        if max(abs(x), abs(z)) + radius > FAR_M:
            continue
        paint, height = plan.patterned(radius, plain=0.4), dice.between(7.0, 14.0)
        shape = dice.pick(
            (
                sphere(x, z, radius, paint),
                cone(x, z, radius, height, paint),
                cylinder(x, z, radius * 0.6, height, paint),
                box(x, z, radius, radius, height, paint),
            )
        )
        plan.surround([shape])


def _scatter(
    plan: Plan, side: Side, names: tuple[str, ...], count: int, near_m: float, far_m: float = 7.0
) -> None:
    """Stand things at random places beyond the side."""
    for _ in range(count):
        along, out = plan.dice.between(-1.15, 1.15) * side.length, plan.dice.between(near_m, far_m) + 1.0
        x, z = side.point(along, out)
        if math.hypot(x, z) < FAR_M:
            plan.surround(FEATURES[plan.dice.pick(names)].build(plan, x, z), gap_m=0.1)


SIDES: dict[str, tuple[SideBuilder, str]] = {
    "houses": (houses, "houses"),
    "towers": (towers, "towers"),
    "wall": (low_wall, "a wall"),
    "hedge": (hedge, "hedges"),
    "colonnade": (colonnade, "columns"),
    "arcade": (arcade, "arcades"),
    "terraces": (terraces, "terraces"),
    "rocks": (rocks, "layered rocks"),
    "trees": (trees, "trees"),
    "fence": (fence, "a fence"),
    "open": (nothing_near, "an open horizon"),
    "near wall": (near_wall, "a great wall"),
    "stacks": (stacks, "stacked containers"),
    "solids": (solids, "giant solids"),
    "temple": (temple, "a temple"),
}
"""Builders of a side, and what a caption calls them."""
