"""Line charts as SVG: axes with round ticks, one line per series, nothing that needs a script or a font of its own."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLOURS = (
    "#2a6f97", "#c1553b", "#4f772d", "#7b4b94", "#b08900", "#3d405b", "#00a5a5", "#d36ba6", "#8a5a2b", "#90a955",
    "#5b8def", "#e07a5f", "#222222", "#aaaaaa", "#6a040f", "#48cae4",
)  # fmt: skip
WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 34
"""Margins, pixels."""
LEGEND_COLUMNS, LEGEND_LINE = 3, 16
MOST_POINTS = 400
"""Of a line; more would make the page large and show nothing."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One axis' range and ticks, and where values lie on it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Share of the axis below a value."""
        if self.logarithmic:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def line_chart(series: Mapping[str, Points], x_label: str, logarithmic: bool = False) -> str:
    """Draw series of (x, y) as an SVG element; what is not finite, or not positive on a logarithmic axis, is left out.

    Args:
        logarithmic: Whether y is.
    """
    shown = {name: thinned(_drawable(points, logarithmic)) for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return '<p class="quiet">nothing logged yet</p>'
    xs = [x for points in shown.values() for x, _ in points]
    ys = [y for points in shown.values() for _, y in points]
    across = linear_axis(min(xs), max(xs))
    up = logarithmic_axis(min(ys), max(ys)) if logarithmic else linear_axis(min(ys), max(ys))
    lines = [_line(points, across, up, COLOURS[n % len(COLOURS)]) for n, points in enumerate(shown.values())]
    names = list(shown) if len(shown) > 1 else []
    parts = [*_grid(across, up, x_label), *lines, *_legend(names)]
    height = HEIGHT + LEGEND_LINE * -(-len(names) // LEGEND_COLUMNS)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def thinned(points: Points) -> Points:
    """Means of neighbouring points, so that few enough are left."""
    size = -(-len(points) // MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[n : n + size] for n in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _drawable(points: Points, logarithmic: bool) -> Points:
    return [(x, y) for x, y in points if math.isfinite(x + y) and (y > 0 or not logarithmic)]


def linear_axis(low: float, high: float, wanted: int = 5) -> Axis:
    """An axis around a range, with ticks at multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        reach = abs(low) / 2 or 1.0
        low, high = low - reach, high + reach
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(n * step for n in range(first, last + 1)))


def logarithmic_axis(low: float, high: float) -> Axis:
    """A logarithmic axis around a range of positive numbers; ticks at 1, 2 and 5 times powers of ten."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    bottom = max(tick for tick in ticks if tick <= low * 1.0001)
    top = min(tick for tick in ticks if tick >= high * 0.9999 and tick > bottom)
    inside = [tick for tick in ticks if bottom <= tick <= top]
    many = len(inside) > 8
    return Axis(bottom, top, tuple(t for t in inside if not many or f"{t:e}".startswith("1")), True)


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _line(points: Points, across: Axis, up: Axis, colour: str) -> str:
    places = [(_x(across.place(x)), _y(up.place(y))) for x, y in points]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{colour}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _grid(across: Axis, up: Axis, x_label: str) -> list[str]:
    parts = []
    for tick in up.ticks:
        y = _y(up.place(tick))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{as_tick(tick)}</text>')
    for tick in across.ticks:
        x = _x(across.place(tick))
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{as_tick(tick)}</text>'
        )
    middle = _x(0.5)
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>')
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for n, name in enumerate(names):
        x = LEFT + n % LEGEND_COLUMNS * (WIDTH - LEFT) / LEGEND_COLUMNS
        y = HEIGHT + LEGEND_LINE * (n // LEGEND_COLUMNS) + 10
        colour = COLOURS[n % len(COLOURS)]
        parts.append(f'<rect x="{x:.0f}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="{y}">{html.escape(name)}</text>')
    return parts


def as_tick(value: float) -> str:
    """Write a tick's value briefly."""
    if value and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{round(value, 6):,g}"
