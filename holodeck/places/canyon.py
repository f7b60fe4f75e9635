"""Canyon of steps: red terraces around a sandy floor, a blue idol, an arch."""

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cone, cylinder, hex_color, sphere
from holodeck.sky import Sky

_RUST, _ORANGE, _SAND, _MAROON = (
    hex_color("b8402a"),
    hex_color("e8793a"),
    hex_color("f4c27a"),
    hex_color("6b2333"),
)
_CYAN, _PURPLE = hex_color("17b5c4"), hex_color("7b3fa0")


def _terrace(
    x: float, z: float, width: float, depth: float, steps: int, along_x: int, along_z: int
) -> list[Shape]:
    """Steps that climb away from the floor, alternately rust and orange."""
    shapes: list[Shape] = []
    for n in range(steps):
        face: Color = _RUST if n % 2 == 0 else _ORANGE
        paint = Paint(face, _MAROON, Pattern.TRIM, period_v=1.0, duty=0.0, top=_SAND)
        shapes.append(box(x + along_x * 1.6 * n, z + along_z * 1.6 * n, width, depth, 1.1 * (n + 1), paint))
    return shapes


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    shapes += _terrace(-11, 0, 4, 30, 5, -1, 0) + _terrace(11.5, 2, 4, 30, 4, 1, 0)
    shapes += _terrace(0, 13, 30, 4, 6, 0, 1) + _terrace(2, -13, 26, 4, 3, 0, -1)
    layered = Paint(_RUST, _SAND, Pattern.BANDS, period_v=2.2, duty=0.35)
    shapes += [box(-6.5, 7.5, 2.6, 2.6, 7.5, layered), box(6.8, 8.2, 3.0, 2.4, 5.5, layered)]
    shapes += [box(-7.0, -8.5, 2.4, 3.0, 5.0, layered), cylinder(6.5, -7.5, 1.5, 6.6, layered)]
    arch = Paint(_ORANGE, _MAROON, Pattern.TRIM, period_v=4.0, duty=0.2)
    shapes += [box(-3.2, 3.0, 1.3, 1.3, 4.2, arch), box(1.8, 3.0, 1.3, 1.3, 4.2, arch)]
    shapes += [box(-0.7, 3.0, 6.3, 1.5, 1.0, Paint(_MAROON), base=4.2)]
    shapes += [
        box(6.2, 0.4, 1.6, 1.6, 1.2, Paint(_MAROON)),
        cylinder(6.2, 0.4, 0.6, 2.0, Paint(_CYAN), base=1.2),
    ]
    shapes += [sphere(6.2, 0.4, 0.75, Paint(_CYAN, top=_CYAN), base=3.0)]
    shapes += [cone(-5.6, -2.0, 1.1, 2.6, Paint(_PURPLE, _SAND, Pattern.BANDS, period_v=1.3))]
    shapes += [sphere(0.4, -8.0, 0.9, Paint(_PURPLE)), cone(2.6, 8.8, 0.9, 3.2, Paint(_CYAN))]
    for x, z in ((-8.2, 3.4), (3.4, -4.0)):
        shapes += [
            cylinder(x, z, 0.35, 2.4, Paint(hex_color("2c8c50"))),
            cylinder(x + 0.75, z, 0.25, 1.0, Paint(hex_color("2c8c50")), base=0.8),
        ]
    return shapes


def _ground(painter: GroundPainter) -> None:
    painter.rectangle(-0.7, 0, 4.0, 26, hex_color("f7d79b"))
    for n in range(-3, 4):
        painter.rectangle(-0.7, n * 3.4, 4.0, 1.1, hex_color("d98e4f"))
    painter.circle(6.2, 0.4, 2.2, hex_color("c2502f"))


def build() -> Place:
    """Build the canyon of steps."""
    return Place(
        name="canyon",
        title="Canyon of Steps",
        caption="A desert canyon of rust and orange terraces under a turquoise sky; a stone arch, layered pillars, a cyan idol.",
        shapes=_shapes(),
        sky=Sky(
            zenith=hex_color("0f9aa8"),
            horizon=hex_color("fbe6b8"),
            sun_color=hex_color("fffdf0"),
            sun_azimuth_deg=-70,
            sun_elevation_deg=38,
            sun_radius_deg=6,
            hills=hex_color("cf8a6b"),
            hill_height_deg=14,
            hill_seed=5,
            fog_m=60,
            ambient=0.5,
        ),
        ground_color=hex_color("eaa85f"),
        paint_ground=_ground,
        bounds=(-5.5, -10.5, 5.5, 2.0),
        edge_color=hex_color("8e3f2c"),
        spawn_xz=(-0.7, -6.0),
        spawn_yaw_deg=0.0,
    )
