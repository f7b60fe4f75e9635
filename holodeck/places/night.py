"""Night city: dark towers with lit windows, neon signs and a huge moon."""

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Color, Paint, Pattern, Shape, box, cylinder, hex_color, sphere
from holodeck.sky import Sky

_INDIGO, _BLACK, _SLATE = hex_color("2a2560"), hex_color("14122b"), hex_color("3b3f6b")
_MAGENTA, _CYAN, _AMBER, _LIME = (
    hex_color("ff2f92"),
    hex_color("22d3ee"),
    hex_color("ffb627"),
    hex_color("9be15d"),
)


def _tower(
    x: float, z: float, width: float, depth: float, height: float, wall: Color, light: Color
) -> list[Shape]:
    paint = Paint(
        wall, _BLACK, Pattern.LIT_WINDOWS, period=1.9, period_v=2.1, duty=0.58, top=_BLACK, third=light
    )
    return [box(x, z, width, depth, height, paint)]


def _neon(x: float, z: float, width: float, depth: float, height: float, base: float, color: Color) -> Shape:
    return box(x, z, width, depth, height, Paint(color, glow=1.0), base=base, solid=False)


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    shapes += _tower(-10, 9, 7, 7, 13, _INDIGO, _AMBER) + _tower(-1.5, 13, 8, 5, 9, _SLATE, _CYAN)
    shapes += _tower(8, 11, 8, 6, 16, _INDIGO, _MAGENTA) + _tower(12, 1, 5, 9, 10, _SLATE, _AMBER)
    shapes += _tower(11, -9, 7, 7, 14, _INDIGO, _CYAN) + _tower(1.5, -13, 9, 5, 8, _SLATE, _MAGENTA)
    shapes += _tower(-9, -11, 8, 6, 15, _INDIGO, _LIME) + _tower(-12, -1, 5, 9, 9, _SLATE, _AMBER)
    shapes += [_neon(-6.45, 9, 0.12, 1.2, 6.0, 2.5, _MAGENTA), _neon(-1.5, 10.45, 5.0, 0.12, 1.1, 3.2, _CYAN)]
    shapes += [_neon(9.45, 1, 0.12, 5.0, 1.1, 3.2, _LIME), _neon(1.5, -10.45, 5.0, 0.12, 1.1, 3.2, _AMBER)]
    shapes += [_neon(-9.45, -1, 0.12, 5.0, 1.1, 3.2, _MAGENTA), _neon(7.45, -9, 0.12, 1.2, 6.0, 2.5, _AMBER)]
    kiosk = Paint(_BLACK, _CYAN, Pattern.STRIPES, period=0.8, duty=0.5, top=_CYAN, glow=0.85)
    shapes += [
        box(3.6, 3.6, 1.8, 1.8, 2.4, kiosk),
        box(3.6, 3.6, 2.3, 2.3, 0.3, Paint(_MAGENTA, glow=1.0), base=2.4),
    ]
    shapes += [
        cylinder(-3.8, -3.2, 1.3, 0.6, Paint(_SLATE, top=_MAGENTA)),
        sphere(-3.8, -3.2, 0.9, Paint(_LIME, glow=0.7), base=0.7),
    ]
    for x, z in ((-4.5, 4.0), (4.5, -4.0), (-4.5, -7.6), (4.5, 7.6)):
        shapes += [
            cylinder(x, z, 0.12, 3.4, Paint(_SLATE)),
            sphere(x, z, 0.42, Paint(_AMBER, glow=1.0), base=3.3, solid=False),
        ]
    return shapes


def _ground(painter: GroundPainter) -> None:
    road, mark = hex_color("211f3f"), hex_color("e9e4ff")
    painter.rectangle(0, 0, 5.2, 40, road)
    painter.rectangle(0, 0, 40, 5.2, road)
    for n in range(-4, 5):
        if n:
            painter.rectangle(0, n * 2.6, 0.3, 1.4, mark)
            painter.rectangle(n * 2.6, 0, 1.4, 0.3, mark)
    for x, z in ((-4.5, 4.0), (4.5, -4.0), (-4.5, -7.6), (4.5, 7.6)):
        painter.circle(x, z, 1.7, hex_color("8a6a4a"))
    painter.circle(3.6, 3.6, 2.3, hex_color("2b7f96"))
    painter.circle(-3.8, -3.2, 2.2, hex_color("56823f"))


def build() -> Place:
    """Build the night city."""
    return Place(
        name="night",
        title="Night City",
        caption="A crossroads between dark towers at night, windows lit amber, cyan "
        "and magenta, neon signs, street lamps, a huge moon.",
        shapes=_shapes(),
        sky=Sky(
            zenith=hex_color("0b0a2a"),
            horizon=hex_color("5a2a83"),
            sun_color=hex_color("f4f0d8"),
            sun_azimuth_deg=12,
            sun_elevation_deg=33,
            sun_radius_deg=9,
            halo=0.3,
            ambient=0.7,
            fog_m=50,
        ),
        ground_color=hex_color("454170"),
        paint_ground=_ground,
        bounds=(-5.2, -10.3, 5.2, 1.6),
        edge_color=hex_color("e9e4ff"),
        spawn_xz=(-1.6, -8.0),
        spawn_yaw_deg=5.0,
    )
