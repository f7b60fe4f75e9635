"""Gallery: four rooms, each of one colour, joined by doorways, with a statue in each."""

import math

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cone, cylinder, hex_color, sphere
from holodeck.sky import Sky

_RED, _BLUE, _GREEN, _YELLOW = (
    hex_color("cf3f3a"),
    hex_color("2d62b0"),
    hex_color("2f9461"),
    hex_color("f0b323"),
)
_WHITE, _BLACK = hex_color("f6f1e7"), hex_color("26222e")
_HEIGHT = 3.4
_DOOR, _THICK = 2.2, 0.4


def _lining(x: float, z: float, color: Color) -> list[Shape]:
    """The outer walls of the room on this side of x and z, in the room's own colour; neighbours meet behind a partition."""
    paint = Paint(color, _BLACK, Pattern.TRIM, period_v=1.0, duty=0.35)
    x, z = math.copysign(3.95, x), math.copysign(3.95, z)
    out_x, out_z = math.copysign(7.7, x), math.copysign(7.7, z)
    return [box(out_x, z, _THICK, 7.9, _HEIGHT, paint), box(x, out_z, 7.9, _THICK, _HEIGHT, paint)]


def _partition(x: float, z: float, along_x: bool, near: Color, far: Color) -> list[Shape]:
    """One wall of 7.5 m with a doorway in the middle; each side has the colour of its room."""
    shapes: list[Shape] = []
    side = (7.5 - _DOOR) / 2
    for sign in (-1, 1):
        shift = sign * (_DOOR + side) / 2
        for face, color in ((-1, near), (1, far)):
            paint = Paint(color, _BLACK, Pattern.TRIM, period_v=1.0, duty=0.35)
            gap = face * _THICK / 4
            if along_x:
                shapes.append(box(x + shift, z + gap, side, _THICK / 2, _HEIGHT, paint))
            else:
                shapes.append(box(x + gap, z + shift, _THICK / 2, side, _HEIGHT, paint))
    lintel = Paint(_WHITE)
    width, depth = (_DOOR, _THICK) if along_x else (_THICK, _DOOR)
    return [*shapes, box(x, z, width, depth, _HEIGHT - 2.5, lintel, base=2.5)]


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    for x, z, color in ((-1, -1, _RED), (1, -1, _BLUE), (1, 1, _GREEN), (-1, 1, _YELLOW)):
        shapes += _lining(x, z, color)
    shapes += _partition(-3.75, 0, True, _RED, _YELLOW) + _partition(3.75, 0, True, _BLUE, _GREEN)
    shapes += _partition(0, -3.75, False, _RED, _BLUE) + _partition(0, 3.75, False, _YELLOW, _GREEN)
    shapes += [
        box(
            0,
            0,
            16,
            16,
            0.3,
            Paint(_WHITE, hex_color("d9d2c4"), Pattern.CHECKER, period=2.0, period_v=2.0),
            base=_HEIGHT,
        )
    ]
    plinth = Paint(_WHITE)
    shapes += [box(-5.0, -5.0, 1.0, 1.0, 0.9, plinth), sphere(-5.0, -5.0, 0.55, Paint(_YELLOW), base=0.9)]
    shapes += [
        box(5.0, -5.0, 1.0, 1.0, 0.9, plinth),
        cone(5.0, -5.0, 0.5, 1.3, Paint(_RED, _WHITE, Pattern.BANDS, period_v=0.6), base=0.9),
    ]
    shapes += [
        cylinder(5.0, 5.0, 0.6, 2.2, Paint(_BLUE, _WHITE, Pattern.STRIPES, period=0.9)),
        sphere(5.0, 5.0, 0.45, Paint(_RED), base=2.2),
    ]
    shapes += [
        box(-5.0, 5.0, 1.4, 1.4, 0.5, Paint(_BLACK)),
        box(-5.0, 5.0, 0.8, 0.8, 1.6, Paint(_GREEN), base=0.5),
    ]
    for x, z, w, d, a, b in (
        (-7.45, -3.2, 0.1, 2.4, _BLUE, _YELLOW),
        (7.45, -3.2, 0.1, 2.4, _YELLOW, _RED),
        (7.45, 3.2, 0.1, 2.4, _RED, _WHITE),
        (-7.45, 3.2, 0.1, 2.4, _BLACK, _RED),
        (-3.2, -7.45, 2.4, 0.1, _WHITE, _GREEN),
        (3.2, -7.45, 2.4, 0.1, _WHITE, _BLACK),
        (3.2, 7.45, 2.4, 0.1, _YELLOW, _BLUE),
        (-3.2, 7.45, 2.4, 0.1, _BLUE, _WHITE),
    ):
        shapes.append(
            box(
                x,
                z,
                w,
                d,
                1.5,
                Paint(a, b, Pattern.CHECKER, period=0.8, period_v=0.75, glow=0.3),
                base=1.0,
                solid=False,
            )
        )
    return shapes


def _ground(painter: GroundPainter) -> None:
    painter.checker(0, 0, 16, 16, 1.0, hex_color("8a7358"))
    painter.circle(0, 0, 1.5, _WHITE)
    for x, z, color in ((-5, -5, _RED), (5, -5, _BLUE), (5, 5, _GREEN), (-5, 5, _YELLOW)):
        painter.circle(x, z, 1.5, color)


def build() -> Place:
    """Build the gallery."""
    return Place(
        name="gallery",
        title="The Gallery",
        caption="Four rooms of an art gallery, red, blue, green and yellow, joined by "
        "doorways, with geometric statues and pictures.",
        shapes=_shapes(),
        sky=Sky(
            zenith=_WHITE,
            horizon=hex_color("efe6d4"),
            sun_color=_WHITE,
            sun_azimuth_deg=30,
            sun_elevation_deg=60,
            ambient=0.8,
            fog_m=60,
        ),
        ground_color=hex_color("b79c78"),
        paint_ground=_ground,
        bounds=(-7.5, -7.5, -0.2, 7.5),
        spawn_xz=(-2.2, -2.0),
        spawn_yaw_deg=120.0,
    )
