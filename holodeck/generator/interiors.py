"""Rooms with doorways, and halls with rows of columns."""

from __future__ import annotations

from dataclasses import dataclass

from holodeck.generator.features import FEATURES
from holodeck.generator.palette import mix, shade
from holodeck.generator.plan import Group, Plan, Rectangle, outline
from holodeck.generator.side import Side
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cylinder

THICK_M = 0.2
"""Of a wall's lining; two rooms share a wall of two linings."""


@dataclass(frozen=True)
class Opening:
    """A door or a window in a wall."""

    at: float
    """Middle, along the wall, metres."""
    width: float
    sill: float
    """Height at which it begins: 0 for a door."""
    top: float


@dataclass(frozen=True)
class Room:
    """One room."""

    area: Rectangle
    paint: Paint
    """Of the walls."""
    openings: tuple[Opening | None, ...]
    """At most one door or window in each wall, in the order of `Side.index`."""


def build_rooms(plan: Plan, columns: int, rows: int, height: float) -> list[Room]:
    """Build a grid of rooms that fills the floor, with a doorway in nearly every wall between two.

    Returns:
        The rooms, row by row.
    """
    xs = [-plan.half_x + 2 * plan.half_x * n / columns for n in range(columns + 1)]
    zs = [-plan.half_z + 2 * plan.half_z * n / rows for n in range(rows + 1)]
    light = plan.palette.light
    colors = plan.dice.shuffled(
        [
            *plan.palette.walls,
            mix(light, plan.wall_color(), 0.3),
            mix(plan.palette.walls[0], plan.palette.walls[1], 0.5),
        ]
    )
    skirting = plan.palette.dark if plan.dice.chance(0.7) else plan.palette.light
    doors = {
        (axis, i, j): _door(plan, axis, xs, zs, i, j)
        for axis in (0, 1)
        for i in range(columns)
        for j in range(rows)
    }
    rooms: list[Room] = []
    shapes: list[Shape] = []
    for n in range(columns * rows):
        i, j = n % columns, n // columns
        area = (xs[i], zs[j], xs[i + 1], zs[j + 1])
        openings = (
            doors[1, i, j] if j + 1 < rows else _window(plan, 0, area, height),
            doors[0, i, j] if i + 1 < columns else _window(plan, 1, area, height),
            doors[1, i, j - 1] if j else _window(plan, 2, area, height),
            doors[0, i - 1, j] if i else _window(plan, 3, area, height),
        )
        room = Room(area, _wallpaper(plan, colors[n % len(colors)], skirting), openings)
        for index in range(4):
            shapes += _lining(room, index, height)
        if plan.dice.chance(0.85):
            shapes.append(_ceiling(plan, room, height))
        rooms.append(room)
    plan.surround(shapes)
    return rooms


def furnish_rooms(plan: Plan, rooms: list[Room], height: float) -> None:
    """Hang pictures, stand things near the corners and paint the floors."""
    dice = plan.dice
    for room in rooms:
        x, z = _middle(room)
        half_x, half_z = _halves(room)
        _floor(plan, room)
        for index in dice.shuffled(range(4))[: dice.count(2, 4)]:
            _hang(plan, room, index, height)
        names = (
            "statue",
            "totem",
            "planter",
            "bench",
            "cube",
            "ball",
            "lamp",
            "pillar",
            "crates",
            "cone",
            "umbrella",
        )
        for sign_x, sign_z in dice.shuffled([(a, b) for a in (-1, 1) for b in (-1, 1)])[: dice.count(2, 4)]:
            feature = FEATURES[dice.pick(names)]
            shapes = feature.build(plan, x + sign_x * (half_x - 1.3), z + sign_z * (half_z - 1.3))
            if max(-shape.low[1] for shape in shapes) < height and _inside(shapes, room):
                plan.features.append(_group(shapes, feature.phrase))


def build_hall(plan: Plan, height: float) -> None:
    """Build one hall: walls with tall openings, columns in rows, beams and a ceiling."""
    dice, openings = plan.dice, list[Opening | None]()
    for index in range(4):
        side = Side(index, plan.half_x, plan.half_z)
        opening = Opening(
            dice.between(-0.4, 0.4) * side.length,
            dice.between(2.0, 4.5),
            dice.pick((0.0, 0.6, 1.0)),
            height - 0.5,
        )
        openings.append(opening if dice.chance(0.6) else None)
    area = (-plan.half_x, -plan.half_z, plan.half_x, plan.half_z)
    room = Room(area, _wallpaper(plan, plan.wall_color(), plan.palette.dark), tuple(openings))
    shapes = [shape for index in range(4) for shape in _lining(room, index, height)]
    shapes.append(_ceiling(plan, room, height))
    spacing, radius = dice.between(2.8, 4.0), dice.between(0.22, 0.4)
    color, beam = plan.wall_color(), Paint(plan.contrast(room.paint.color))
    square = dice.chance(0.4)
    paint = Paint(
        plan.palette.light, color, Pattern.BANDS, period_v=dice.between(0.8, 2.0), duty=dice.pick((0.2, 0.5))
    )
    across, deep = int((plan.half_x - 1.0) / spacing), int((plan.half_z - 1.0) / spacing)
    for i in range(-across, across + 1):
        if i == 0 and dice.chance(0.7):
            continue
        for j in range(-deep, deep + 1):
            x, z = i * spacing, j * spacing
            column = (
                box(x, z, 2 * radius, 2 * radius, height, paint)
                if square
                else cylinder(x, z, radius, height, paint)
            )
            shapes += [column, box(x, z, 3 * radius, 3 * radius, 0.3, beam)]
        shapes.append(box(i * spacing, 0, 0.4, 2 * plan.half_z, 0.35, beam, base=height - 0.35))
    plan.surround(shapes, "rows of columns")
    _floor(plan, room)
    for index in range(4):
        if dice.chance(0.6):
            _hang(plan, room, index, height)


def _door(plan: Plan, axis: int, xs: list[float], zs: list[float], i: int, j: int) -> Opening | None:
    """The doorway in the wall after room (i, j) along an axis; its place is along the wall, in world coordinates."""
    edges, n = (zs, j) if axis == 0 else (xs, i)
    middle, width = (edges[n] + edges[n + 1]) / 2, plan.dice.between(1.9, 2.6)
    slack = max(0.0, (edges[n + 1] - edges[n]) / 2 - width / 2 - 0.7)
    opening = Opening(
        middle + plan.dice.between(-1, 1) * slack * 0.6, width, 0.0, plan.dice.between(2.3, 2.7)
    )
    return opening if plan.dice.chance(0.9) or min(len(xs), len(zs)) == 2 else None


def _window(plan: Plan, index: int, area: Rectangle, height: float) -> Opening | None:
    if not plan.dice.chance(0.3):
        return None
    low, high = (area[1], area[3]) if index % 2 else (area[0], area[2])
    sill = plan.dice.between(0.6, 1.1)
    top = min(height - 0.4, sill + plan.dice.between(1.1, 1.9))
    return Opening((low + high) / 2, (high - low) / 2 * plan.dice.between(0.5, 1.2), sill, top)


def _wallpaper(plan: Plan, color: Color, skirting: Color) -> Paint:
    """A skirting board, a panelled lower half, or stripes."""
    kind = plan.dice.weighted({"skirting": 0.5, "panel": 0.25, "stripes": 0.15, "bands": 0.1})
    if kind == "skirting":
        return Paint(color, skirting, Pattern.TRIM, period_v=1.0, duty=0.22)
    if kind == "panel":
        return Paint(
            color, plan.contrast(color), Pattern.TRIM, period_v=1.0, duty=plan.dice.between(0.8, 1.2)
        )
    period = plan.dice.between(0.5, 1.3)
    pattern = Pattern.STRIPES if kind == "stripes" else Pattern.BANDS
    return Paint(color, shade(color, 0.82), pattern, period=period, period_v=period)


def _lining(room: Room, index: int, height: float) -> list[Shape]:
    """One wall of a room inside its rectangle, in up to four pieces about an opening."""
    paint = room.paint
    low, high = (room.area[1], room.area[3]) if index % 2 else (room.area[0], room.area[2])
    opening = room.openings[index]
    if opening is None:
        return [_wall_piece(room, index, low, high, 0.0, height, paint)]
    left, right = opening.at - opening.width / 2, opening.at + opening.width / 2
    shapes = [
        _wall_piece(room, index, low, left, 0.0, height, paint),
        _wall_piece(room, index, right, high, 0.0, height, paint),
    ]
    if opening.sill > 0:
        shapes.append(_wall_piece(room, index, left, right, 0.0, opening.sill, paint))
    shapes.append(_wall_piece(room, index, left, right, opening.top, height, Paint(paint.color)))
    return shapes


def _wall_piece(
    room: Room, index: int, start: float, end: float, base: float, top: float, paint: Paint
) -> Shape:
    half_x, half_z = _halves(room)
    x, z = _middle(room)
    middle, length, shift = (start + end) / 2, end - start, THICK_M / 2
    if index % 2:
        away = x + (half_x - shift) * (1 if index == 1 else -1)
        return box(away, middle, THICK_M, length, top - base, paint, base)
    away = z + (half_z - shift) * (1 if index == 0 else -1)
    return box(middle, away, length, THICK_M, top - base, paint, base)


def _ceiling(plan: Plan, room: Room, height: float) -> Shape:
    light, period = plan.palette.light, plan.dice.between(0.8, 2.2)
    pattern = plan.dice.pick((Pattern.CHECKER, Pattern.STRIPES, Pattern.PLAIN))
    paint = Paint(light, shade(light, 0.86), pattern, period=period, period_v=period, glow=0.35)
    half_x, half_z = _halves(room)
    return box(*_middle(room), 2 * half_x, 2 * half_z, 0.3, paint, base=height)


def _floor(plan: Plan, room: Room) -> None:
    """Paint boards, tiles or a carpet; floors under a ceiling are in shadow, so they are painted light."""
    dice, (x, z), (half_x, half_z) = plan.dice, _middle(room), _halves(room)
    base = mix(
        plan.palette.light,
        dice.pick((plan.palette.trunk, room.paint.color, plan.palette.dark)),
        dice.between(0.1, 0.4),
    )
    plan.paint("rectangle", x, z, 2 * half_x, 2 * half_z, base)
    kind, tile = dice.count(0, 2), dice.pick((0.8, 1.0, 1.5))
    if kind == 0:
        width, depth = 2 * int(half_x / tile) * tile, 2 * int(half_z / tile) * tile
        plan.paint("checker", x, z, width, depth, tile, shade(base, 0.72))
    elif kind == 1:
        for n in range(int(2 * half_x / 0.6)):
            plan.paint(
                "rectangle",
                x - half_x + (n + 0.5) * 0.6,
                z,
                0.6,
                2 * half_z,
                shade(base, (0.86, 1.0, 0.93)[n % 3]),
            )
    if dice.chance(0.6):
        carpet = plan.wall_color()
        plan.paint("rectangle", x, z, half_x * 1.1, half_z * 1.1, carpet)
        plan.paint("rectangle", x, z, half_x * 0.9, half_z * 0.9, mix(carpet, plan.palette.light, 0.45))


def _hang(plan: Plan, room: Room, index: int, height: float) -> None:
    """Hang a picture at one end of a wall, or at the other where there is a door or a window, or in neither."""
    dice, (x, z), (half_x, half_z) = plan.dice, _middle(room), _halves(room)
    half, opening = half_z if index % 2 else half_x, room.openings[index]
    width, tall = dice.between(1.0, min(2.0, half * 0.6)), dice.between(0.8, min(1.6, height - 1.6))
    middle, reach = (z if index % 2 else x), half - THICK_M - width / 2 - 0.4
    ends = [middle + sign * reach for sign in dice.shuffled((-1, 1))]
    free = [at for at in ends if opening is None or abs(opening.at - at) > (opening.width + width) / 2 + 0.1]
    if not free:
        return
    along = free[0]
    frame = plan.patterned(min(width, tall) / 2, plain=0.1)
    towards, axis = (1 if index < 2 else -1), (0 if index % 2 else 2)
    face = (x, z)[axis // 2] + towards * ((half_x, half_z)[axis // 2] - THICK_M - 0.03)
    centre, size = ((face, along), (0.06, width)) if axis == 0 else ((along, face), (width, 0.06))
    picture = box(*centre, *size, tall, frame, base=1.0, solid=False)
    plan.features.append(_group([picture], "pictures"))


def _group(shapes: list[Shape], phrase: str) -> Group:
    return Group(tuple(shapes), outline(shapes), phrase)


def _inside(shapes: list[Shape], room: Room) -> bool:
    low_x, low_z, high_x, high_z = outline(shapes)
    edge = THICK_M + 0.05
    return (
        low_x > room.area[0] + edge
        and low_z > room.area[1] + edge
        and high_x < room.area[2] - edge
        and high_z < room.area[3] - edge
    )


def _middle(room: Room) -> tuple[float, float]:
    return (room.area[0] + room.area[2]) / 2, (room.area[1] + room.area[3]) / 2


def _halves(room: Room) -> tuple[float, float]:
    return (room.area[2] - room.area[0]) / 2, (room.area[3] - room.area[1]) / 2
