"""Still lifes: small things on a table or on the floor, to be seen from near, as photos show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from holodeck.generator.dice import Dice
from holodeck.generator.features import FEATURES
from holodeck.generator.grounds import GROUNDS, draw_soil
from holodeck.generator.interiors import build_rooms
from holodeck.generator.palette import draw_palette, shade
from holodeck.generator.plan import Plan, outline, overlap, paint_brushes
from holodeck.generator.side import Side
from holodeck.generator.sides import SIDES
from holodeck.generator.skies import MOODS, draw_sky
from holodeck.generator.tableware import TABLEWARE
from holodeck.place import Place
from holodeck.shapes import Color, Paint, Shape, box, cylinder

MOST_TRIES = 60
"""Spots that are tried for each thing."""
GAP_M = 0.02
"""Least gap between two things on a table."""
ANYWHERE_M = -100.0
"""A gap that overlaps never fall short of: tables may stand at walls."""
CLOTH_M = 0.006
"""Thickness of a tablecloth."""
OUTDOOR_SIDES = ("houses", "hedge", "trees", "rocks", "fence", "near wall", "open", "solids")
BESIDE_TABLE = ("tree", "planter", "crates", "barrel", "lamp", "statue", "pillar", "bench")
HIGHEST_OUTDOORS_M = 6.0


@dataclass(frozen=True)
class StillLife:
    """Things to be seen from near, and where they are."""

    place: Place
    things: tuple[tuple[Shape, ...], ...]

    @property
    def targets(self) -> list[tuple[float, float, float]]:
        """Middles of the things, world axes, metres."""
        return [_middle(shapes) for shapes in self.things]


@dataclass(frozen=True)
class _Table:
    """A rectangle that things stand on."""

    x: float
    z: float
    half_x: float
    half_z: float
    height: float
    """0 for the floor."""


def generate_still_life(seed: int) -> StillLife:
    """Generate the still life of a seed: a table, what stands on it, and a room or a garden around it."""
    dice = Dice(seed)
    indoors = dice.chance(0.65)
    night = 0.0 if indoors else 0.5
    mood = MOODS[dice.weighted({"noon": 3, "sunset": 1, "morning": 1, "overcast": 2, "night": night})]
    sides_m = (1.8, 4.5) if indoors else (3.0, 8.0)
    plan = Plan(
        dice, draw_palette(dice, dice.chance(0.5)), mood, dice.between(*sides_m), dice.between(*sides_m)
    )
    soil = draw_soil(plan, dice.pick(("grass", "sand", "earth", "stone")))
    height = dice.between(2.6, 4.0)
    if indoors:
        build_rooms(plan, 1, 1, height)
    else:
        _build_garden(plan, soil)
    things = _things(plan, _table(plan))
    for _ in range(dice.count(0, 4)):
        x, z = dice.between(-0.9, 0.9) * plan.half_x, dice.between(-0.9, 0.9) * plan.half_z
        plan.stand(FEATURES[dice.pick(BESIDE_TABLE)].build(plan, x, z), gap_m=0.1)
    sky = draw_sky(dice, mood)
    if indoors:
        sky = replace(sky, ambient=dice.between(0.6, 0.84), fog_m=60.0)
    place = Place(
        name=f"still-life-{seed}",
        title=f"Still life {seed}",
        caption="Small things on a table.",
        shapes=plan.shapes,
        sky=sky,
        ground_color=soil,
        paint_ground=partial(paint_brushes, tuple(plan.brushes)),
        bounds=(-plan.half_x, -plan.half_z, plan.half_x, plan.half_z),
        spawn_xz=(0.0, 0.0),
        spawn_yaw_deg=0.0,
        ceiling_m=height - 0.1 if indoors else HIGHEST_OUTDOORS_M,
    )
    return StillLife(place, tuple(tuple(shapes) for shapes in things))


def _build_garden(plan: Plan, soil: Color) -> None:
    GROUNDS[plan.dice.pick(tuple(GROUNDS))](plan, soil)
    for index in range(4):
        SIDES[plan.dice.pick(OUTDOOR_SIDES)][0](plan, Side(index, plan.half_x, plan.half_z))


def _table(plan: Plan) -> _Table:
    """Stand a table anywhere, or choose a rectangle of the floor."""
    dice = plan.dice
    half_x = dice.between(0.6, min(2.2, plan.half_x - 0.5))
    half_z = dice.between(0.5, min(1.6, plan.half_z - 0.5))
    x = dice.between(-1, 1) * (plan.half_x - half_x - 0.4)
    z = dice.between(-1, 1) * (plan.half_z - half_z - 0.4)
    kind = dice.weighted({"floor": 1.2, "legs": 3.0, "block": 1.2, "round": 1.2})
    if kind == "floor":
        return _Table(x, z, half_x, half_z, 0.0)
    wood = dice.pick((plan.palette.trunk, plan.palette.light, plan.wall_color(), plan.palette.dark))
    height, thick = dice.between(0.35, 1.0), dice.between(0.04, 0.12)
    leg = Paint(shade(wood, 0.7))
    if kind == "round":
        radius = min(half_x, half_z)
        top = Paint(shade(wood, 0.8), top=wood)
        shapes = [
            cylinder(x, z, 0.07, height - thick, leg),
            cylinder(x, z, radius, thick, top, base=height - thick),
        ]
        # Things stand within the square inside the disc.
        half_x = half_z = 0.7 * radius
    elif kind == "block":
        paint = replace(plan.patterned(dice.between(0.2, 0.8)), top=wood)
        shapes = [box(x, z, 2 * half_x, 2 * half_z, height, paint)]
    else:
        shapes = _boards(dice, _Table(x, z, half_x, half_z, height), thick, wood)
        shapes += [
            box(x + a * (half_x - 0.08), z + b * (half_z - 0.08), 0.08, 0.08, height - thick, leg)
            for a in (-1, 1)
            for b in (-1, 1)
        ]
    plan.surround(shapes, gap_m=ANYWHERE_M)
    table = _Table(x, z, half_x, half_z, height)
    return _lay_cloth(plan, table) if dice.chance(0.35) else table


def _boards(dice: Dice, table: _Table, thick: float, wood: Color) -> list[Shape]:
    """A table top of one to nine boards that differ a little."""
    number = dice.pick((1, 1, 3, 5, 7, 9))
    width, shapes = 2 * table.half_x / number, list[Shape]()
    for n in range(number):
        tone = shade(wood, dice.between(0.82, 1.12))
        paint, x = Paint(shade(tone, 0.8), top=tone), table.x - table.half_x + (n + 0.5) * width
        shapes.append(box(x, table.z, width, 2 * table.half_z, thick, paint, base=table.height - thick))
    return shapes


def _lay_cloth(plan: Plan, table: _Table) -> _Table:
    """Lay a plain, striped or chequered cloth on a table."""
    colors = plan.wall_color(), plan.palette.light
    columns, rows = plan.dice.pick(((1, 1), (4, 3), (6, 4), (8, 1), (1, 6)))
    wide, deep = 1.7 * table.half_x / columns, 1.7 * table.half_z / rows
    squares = [
        box(
            table.x + (i - (columns - 1) / 2) * wide,
            table.z + (j - (rows - 1) / 2) * deep,
            wide,
            deep,
            CLOTH_M,
            Paint(colors[(i + j) % 2]),
            base=table.height,
        )
        for i in range(columns)
        for j in range(rows)
    ]
    plan.surround(squares, gap_m=ANYWHERE_M)
    return replace(table, height=table.height + CLOTH_M)


def _things(plan: Plan, table: _Table) -> list[list[Shape]]:
    """Stand things on a table, as many as find room."""
    dice, found = plan.dice, list[list[Shape]]()
    scale = dice.between(0.2, 0.6)
    for _ in range(dice.count(4, 16)):
        for _ in range(MOST_TRIES):
            size = scale * dice.between(0.5, 1.6)
            x = table.x + dice.between(-1, 1) * max(0.0, table.half_x - 0.6 * size)
            z = table.z + dice.between(-1, 1) * max(0.0, table.half_z - 0.6 * size)
            shapes = dice.pick(TABLEWARE)(plan, x, z, size, table.height)
            if not any(overlap(outline(shapes), outline(other), GAP_M) for other in found):
                found.append(shapes)
                break
    for shapes in found:
        plan.surround(shapes, gap_m=ANYWHERE_M)
    return found


def _middle(shapes: Sequence[Shape]) -> tuple[float, float, float]:
    """Middle of the box around shapes, metres."""
    x, y, z = (
        (min(shape.low[axis] for shape in shapes) + max(shape.high[axis] for shape in shapes)) / 2
        for axis in range(3)
    )
    return x, y, z
