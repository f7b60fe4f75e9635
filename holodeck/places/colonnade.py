"""Colonnade: white columns with orange capitals along a turquoise pool at noon."""

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Paint, Pattern, Shape, box, cone, cylinder, hex_color, sphere
from holodeck.sky import Sky

_WHITE, _ORANGE, _TEAL = hex_color("f7f3e8"), hex_color("ee7b30"), hex_color("1fa6a0")
_GOLD, _NAVY, _TERRACOTTA = hex_color("f5c518"), hex_color("1d3f72"), hex_color("c8553d")


def _column(x: float, z: float) -> list[Shape]:
    shaft = Paint(_WHITE, hex_color("dcd3c2"), Pattern.BANDS, period_v=1.6, duty=0.5)
    return [
        box(x, z, 1.3, 1.3, 0.4, Paint(_TERRACOTTA)),
        cylinder(x, z, 0.45, 4.0, shaft, base=0.4),
        box(x, z, 1.3, 1.3, 0.5, Paint(_ORANGE), base=4.4),
    ]


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    for side in (-1, 1):
        for n in range(5):
            shapes += _column(side * 5.2, -8 + 4 * n)
        shapes += [
            box(side * 5.2, 0, 1.5, 18.4, 0.8, Paint(_WHITE, _NAVY, Pattern.STRIPES, period=2.0), base=4.9)
        ]
    shapes += [box(0, 0.5, 4.4, 11, 0.35, Paint(_WHITE, top=_TEAL))]
    shapes += [cylinder(0, 8.6, 1.1, 1.4, Paint(_TERRACOTTA)), sphere(0, 8.6, 1.3, Paint(_GOLD), base=1.4)]
    shapes += [
        cylinder(0, -8.6, 0.9, 1.0, Paint(_NAVY)),
        cone(0, -8.6, 0.9, 2.6, Paint(_GOLD, _ORANGE, Pattern.BANDS, period_v=1.3), base=1.0),
    ]
    temple = Paint(_TERRACOTTA, _NAVY, Pattern.WINDOWS, period=2.8, period_v=5.4, duty=0.55)
    shapes += [box(0, 14, 14, 3, 5, temple), box(0, 14, 15, 4, 0.9, Paint(_WHITE), base=5)]
    shapes += [cone(0, 14, 3.4, 3.2, Paint(_ORANGE, _WHITE, Pattern.STRIPES, period=2.6), base=5.9)]
    wall = Paint(_NAVY, _GOLD, Pattern.TRIM, period_v=2.6, duty=0.25)
    shapes += [box(-11, 0, 0.8, 26, 2.6, wall), box(11, 0, 0.8, 26, 2.6, wall)]
    shapes += [box(0, -13, 22, 0.8, 2.6, wall)]
    for z in (-6, 0, 6):
        shapes += [cylinder(-8.6, z, 0.3, 1.8, Paint(hex_color("7a4a2b")), solid=True)]
        shapes += [sphere(-8.6, z, 1.0, Paint(hex_color("2e9e4f")), base=1.5)]
        shapes += [cone(8.6, z, 0.9, 4.2, Paint(hex_color("17753a")), base=0.0)]
    return shapes


def _ground(painter: GroundPainter) -> None:
    painter.checker(0, 0, 22, 26, 2.0, hex_color("e3c698"))
    painter.rectangle(0, 0, 7.2, 19, hex_color("fbf3df"))


def build() -> Place:
    """Build the colonnade."""
    return Place(
        name="colonnade",
        title="The Colonnade",
        caption="White columns with orange capitals beside a turquoise pool under a "
        "clear noon sky; a golden ball, a small temple, cypresses.",
        shapes=_shapes(),
        sky=Sky(
            zenith=hex_color("1673c9"),
            horizon=hex_color("c9ecf7"),
            sun_color=hex_color("fffbe0"),
            sun_azimuth_deg=55,
            sun_elevation_deg=48,
            sun_radius_deg=5,
            hills=hex_color("7fb7c9"),
            hill_height_deg=7,
            hill_seed=8,
            fog_m=70,
            ambient=0.62,
        ),
        ground_color=hex_color("d9b47e"),
        paint_ground=_ground,
        bounds=(-7.0, -11.0, 3.5, 3.0),
        edge_color=hex_color("c8643c"),
        spawn_xz=(-3.4, -7.4),
        spawn_yaw_deg=18.0,
    )
