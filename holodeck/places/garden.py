"""Garden of shapes: giant coloured solids and clipped trees on a lawn with white paths."""

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cone, cylinder, hex_color, sphere
from holodeck.sky import Sky

_PINK, _BLUE, _YELLOW, _RED = (
    hex_color("f25c9a"),
    hex_color("2b59c3"),
    hex_color("ffd23f"),
    hex_color("e63946"),
)
_WHITE, _LEAF, _DEEP, _VIOLET = (
    hex_color("fffaf0"),
    hex_color("2f9e44"),
    hex_color("1b6b3a"),
    hex_color("7d4cc2"),
)


def _tree(x: float, z: float, height: float, color: Color) -> list[Shape]:
    return [
        cylinder(x, z, 0.25, 1.0, Paint(hex_color("7a4a2b"))),
        cone(x, z, 1.2, height, Paint(color), base=0.8),
    ]


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    shapes += [sphere(5.0, 4.5, 2.0, Paint(_RED, _WHITE, Pattern.BANDS, period_v=1.6, duty=0.4))]
    shapes += [cylinder(-5.2, 5.0, 1.5, 3.4, Paint(_BLUE, _YELLOW, Pattern.STRIPES, period=1.57))]
    shapes += [cone(-5.2, 5.0, 1.9, 2.2, Paint(_PINK), base=3.4)]
    shapes += [
        box(
            -5.0,
            -5.0,
            2.6,
            2.6,
            2.6,
            Paint(_YELLOW, _VIOLET, Pattern.CHECKER, period=1.3, period_v=1.3, top=_VIOLET),
        )
    ]
    shapes += [cone(5.2, -5.0, 2.0, 5.0, Paint(_VIOLET, _WHITE, Pattern.BANDS, period_v=2.0, duty=0.4))]
    shapes += [
        cylinder(0, 0, 1.9, 0.5, Paint(_WHITE, top=hex_color("39c0d8"))),
        cylinder(0, 0, 0.3, 1.8, Paint(_WHITE)),
    ]
    shapes += [sphere(0, 0, 0.7, Paint(_YELLOW), base=1.8)]
    for x, z in ((-8.5, 0), (8.5, 0.5), (0, 9.5)):
        shapes += _tree(x, z, 4.4, _LEAF)
    for x, z in ((-9, 8.5), (9, 8.8), (-9, -8.5), (9, -8.8)):
        shapes += [
            cylinder(x, z, 0.3, 1.4, Paint(hex_color("7a4a2b"))),
            sphere(x, z, 1.4, Paint(_DEEP), base=1.2),
        ]
    hedge = Paint(_DEEP, _LEAF, Pattern.STRIPES, period=3.0, duty=0.5, top=_LEAF)
    shapes += [box(-11.5, 0, 1.0, 24, 1.5, hedge), box(11.5, 0, 1.0, 24, 1.5, hedge)]
    shapes += [box(0, 11.5, 22, 1.0, 1.5, hedge), box(0, -11.5, 22, 1.0, 1.5, hedge)]
    gate = Paint(_WHITE, _PINK, Pattern.BANDS, period_v=1.2)
    shapes += [box(-1.9, -8.2, 0.7, 0.7, 3.4, gate), box(1.9, -8.2, 0.7, 0.7, 3.4, gate)]
    shapes += [box(0, -8.2, 5.2, 0.9, 0.6, Paint(_PINK), base=3.4)]
    house = Paint(_WHITE, _BLUE, Pattern.WINDOWS, period=3.0, period_v=3.4, duty=0.45)
    shapes += [box(0, 17, 12, 4, 6.4, house), box(0, 17, 13, 5, 0.8, Paint(_RED), base=6.4)]
    shapes += [
        sphere(-16, 2, 4.0, Paint(_PINK)),
        cone(17, -3, 4.0, 10.0, Paint(_BLUE, _WHITE, Pattern.BANDS, period_v=4.0)),
    ]
    return shapes


def _ground(painter: GroundPainter) -> None:
    path, lawn = hex_color("fbe9c6"), hex_color("6cc04a")
    painter.rectangle(0, 0, 1.8, 22, path)
    painter.rectangle(0, 0, 22, 1.8, path)
    painter.circle(0, 0, 7.6, path)
    painter.circle(0, 0, 6.0, lawn)
    painter.circle(0, 0, 3.4, path)
    painter.rectangle(0, 0, 1.8, 22, path)
    painter.rectangle(0, 0, 22, 1.8, path)


def build() -> Place:
    """Build the garden of shapes."""
    return Place(
        name="garden",
        title="Garden of Shapes",
        caption="A lawn with round white paths and giant coloured solids, a striped "
        "ball, a chequered cube, a rocket, clipped trees, hedges.",
        shapes=_shapes(),
        sky=Sky(
            zenith=hex_color("57b8ff"),
            horizon=hex_color("fde2ef"),
            sun_color=hex_color("fffbe6"),
            sun_azimuth_deg=130,
            sun_elevation_deg=42,
            sun_radius_deg=6,
            hills=hex_color("9ad3a5"),
            hill_height_deg=6,
            hill_seed=11,
            ambient=0.58,
            fog_m=70,
        ),
        ground_color=hex_color("5fb544"),
        paint_ground=_ground,
        bounds=(-5.2, -11.0, 5.2, -1.9),
        edge_color=hex_color("f3d24a"),
        spawn_xz=(0.0, -10.0),
        spawn_yaw_deg=0.0,
    )
