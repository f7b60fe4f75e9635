"""Market town: coloured houses around a square at sunset, a fountain, a clock tower."""

from holodeck.place import GroundPainter, Place
from holodeck.shapes import Paint, Pattern, Shape, box, cone, cylinder, hex_color, sphere
from holodeck.sky import Sky

_RED, _BLUE, _YELLOW, _GREEN = (
    hex_color("d8452e"),
    hex_color("2f6fb5"),
    hex_color("f2b42c"),
    hex_color("3f9b6c"),
)
_PINK, _CREAM, _DARK = hex_color("e07a8f"), hex_color("fbeed3"), hex_color("3a2a45")
_ORANGE, _STONE = hex_color("f07c2a"), hex_color("cfc4b8")


def _house(
    x: float, z: float, width: float, depth: float, height: float, color: tuple[float, float, float]
) -> list[Shape]:
    wall = Paint(color, _DARK, Pattern.WINDOWS, period=2.0, period_v=2.4, duty=0.5, top=_ORANGE)
    roof = Paint(_DARK, top=_DARK)
    return [
        box(x, z, width, depth, height, wall),
        box(x, z, width + 0.5, depth + 0.5, 0.4, roof, base=height),
    ]


def _shapes() -> list[Shape]:
    shapes: list[Shape] = []
    shapes += _house(-11, 9, 6, 6, 6.0, _RED)
    shapes += _house(-4, 12, 6, 5, 4.8, _YELLOW)
    shapes += _house(4, 12, 6, 5, 7.2, _BLUE)
    shapes += _house(11, 9, 6, 6, 4.8, _PINK)
    shapes += _house(12, 0, 5, 8, 6.0, _GREEN)
    shapes += _house(11, -9, 6, 6, 7.2, _YELLOW)
    shapes += _house(3, -12, 8, 5, 4.8, _RED)
    shapes += _house(-12, -1, 5, 9, 4.8, _BLUE)
    shapes += _house(-11, -10, 6, 5, 7.2, _CREAM)
    stripes = Paint(_CREAM, _RED, Pattern.BANDS, period_v=2.0, duty=0.5)
    shapes += [box(-4.5, -11.5, 3, 3, 11, stripes), cone(-4.5, -11.5, 2.4, 4, Paint(_DARK), base=11)]
    shapes += [cylinder(0, 1.5, 1.7, 0.7, Paint(_STONE, top=hex_color("4fc3d9")))]
    shapes += [
        cylinder(0, 1.5, 0.35, 2.2, Paint(_STONE)),
        sphere(0, 1.5, 0.55, Paint(hex_color("4fc3d9")), base=2.2),
    ]
    for x, z, color in ((-4.5, 4.5, _RED), (4.5, 4.5, _BLUE), (-4.5, -3.5, _GREEN), (4.5, -3.5, _YELLOW)):
        shapes += [cylinder(x, z, 0.16, 2.3, Paint(_DARK))]
        shapes += [
            cone(x, z, 1.3, 0.9, Paint(color, _CREAM, Pattern.STRIPES, period=1.0), base=2.1, solid=False)
        ]
    return shapes


def _ground(painter: GroundPainter) -> None:
    painter.rectangle(0, 0, 19, 19, hex_color("d9a877"))
    painter.checker(0, 0, 18, 18, 2.25, hex_color("c98d5e"))
    painter.circle(0, 1.5, 3.4, hex_color("f3dcb6"))


def build() -> Place:
    """Build the market town."""
    return Place(
        name="town",
        title="Market Town",
        caption="A market square at sunset, ringed by red, blue, yellow and green "
        "houses with dark windows; a fountain and a striped tower.",
        shapes=_shapes(),
        sky=Sky(
            zenith=hex_color("5b4fa8"),
            horizon=hex_color("ffb07a"),
            sun_color=hex_color("fff1c4"),
            sun_azimuth_deg=-35,
            sun_elevation_deg=24,
            sun_radius_deg=7,
            hills=hex_color("8a5b93"),
            hill_height_deg=9,
            hill_seed=3,
        ),
        ground_color=hex_color("8aa860"),
        paint_ground=_ground,
        bounds=(-7.0, -8.2, 7.0, -0.4),
        edge_color=hex_color("fbeed3"),
        spawn_xz=(0.0, -7.0),
        spawn_yaw_deg=0.0,
    )
