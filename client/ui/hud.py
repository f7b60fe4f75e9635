"""What lies over the world: the figures with their timeline, the recording mark, the progress of a replay."""

from __future__ import annotations

from collections.abc import Sequence

import pygame

from client.ui import theme
from client.ui.figures import NUM_BARS, ChunkBar, Figures, Line, Section, figure_lines
from client.ui.theme import Theme

_SIZE = 13
_ROW = 2.25
_WIDEST_VALUE = "0.00 of 00 a second, at 000 % speed"
"""As wide as the column of values is made, so that it does not change with the figures."""


def draw_figures(target: pygame.Surface, look: Theme, figures: Figures, bottom_px: int) -> list[pygame.Rect]:
    """Draw the panel of figures at the top left; what does not fit above a height is left out.

    The timeline is below them, or beside them where there is no room. Return where both lie.
    """
    origin, pad, bars_px = look.px(2), look.px(2), look.px(9)
    lines = figure_lines(figures)
    row_px, gap_px = max(look.px(_ROW), look.font(_SIZE).get_height()), look.px(1)
    label_px = max(look.font(_SIZE).size(label)[0] for _, label, _ in lines) + look.px(1.5)
    wished = label_px + look.font(_SIZE).size(_WIDEST_VALUE)[0]
    width = min(wished, target.get_width() - 2 * origin - 2 * pad)
    room = bottom_px - 2 * origin - 2 * pad
    lines = [line for whole in lines for line in _broken(look, whole, width - label_px)]
    rows = _rows_within(lines, room, row_px, gap_px)
    height = _height(rows, row_px, gap_px)
    with_bars = height + bars_px + gap_px <= room
    if width < 2 * label_px or not rows:
        return []
    panel_height = height + 2 * pad + (bars_px + gap_px if with_bars else 0)
    places = [pygame.Rect(origin, origin, width + 2 * pad, panel_height)]
    target.blit(look.panel(*places[0].size), places[0])
    x = y = origin + pad
    for i, (section, label, value) in enumerate(rows):
        if i and section is not rows[i - 1][0]:
            y += gap_px
        target.blit(look.text(label, _SIZE, colour=theme.PAPER_DIM), (x, y))
        target.blit(look.text(value, _SIZE), (x + label_px, y))
        y += row_px
    area = pygame.Rect(x, y + gap_px, width, bars_px)
    if not with_bars:
        area.topleft = 2 * origin + width + 3 * pad - look.px(1), origin + pad
        if area.right + pad > target.get_width():
            return places
        places.append(pygame.Rect(area.left - pad, origin, width + 2 * pad, bars_px + 2 * pad))
        target.blit(look.panel(*places[1].size), places[1])
    draw_timeline(target, look, area, figures.bars, figures.deadline_ms)
    return places


def _broken(look: Theme, line: Line, width_px: int) -> list[Line]:
    """Return a line as it fits: a world's name on as many lines as it needs, every figure shortened to one."""
    section, label, value = line
    if (section, label) != (Section.PLACE, "world"):
        return [(section, label, look.clipped(value, width_px, _SIZE))]
    first, *others = look.wrap(value, max(1, width_px), _SIZE) or [""]
    return [(section, label, first), *((section, "", other) for other in others)]


def _height(rows: Sequence[Line], row_px: int, gap_px: int) -> int:
    return len(rows) * row_px + gap_px * max(0, len({section for section, _, _ in rows}) - 1)


def _rows_within(rows: Sequence[Line], room: int, row_px: int, gap_px: int) -> Sequence[Line]:
    while rows and _height(rows, row_px, gap_px) > room:
        rows = rows[:-1]
    return rows


def draw_timeline(
    target: pygame.Surface, look: Theme, area: pygame.Rect, bars: Sequence[ChunkBar], deadline_ms: float
) -> None:
    """Draw the recent chunks as stacked bars under a line at their deadline, with what the colours mean below."""
    legend_px = look.px(2.5)
    plot = pygame.Rect(area.left, area.top, area.width, area.height - legend_px)
    top_ms = max(1.0, 1.25 * deadline_ms)
    pitch = plot.width / NUM_BARS
    shown = bars[-NUM_BARS:]
    for i, bar in enumerate(shown):
        x = plot.left + round((NUM_BARS - len(shown) + i) * pitch)
        width = max(1, round(pitch) - max(1, look.px(0.25)))
        late = bar.denoise_ms + bar.commit_ms + bar.decode_ms > deadline_ms
        bottom = float(plot.bottom)
        for part_ms, colour in (
            (bar.denoise_ms, theme.SIGNAL_RED if late else theme.AMBER),
            (bar.commit_ms, theme.PAPER),
            (bar.decode_ms, theme.PAPER_DIM),
        ):
            height = min(plot.height * part_ms / top_ms, bottom - plot.top)
            target.fill(colour, (x, round(bottom - height), width, round(bottom) - round(bottom - height)))
            bottom -= height
    line_y = plot.bottom - round(plot.height * deadline_ms / top_ms)
    target.fill(theme.PAPER_DIM, (plot.left, line_y, plot.width, 1))
    if shown:
        _draw_legend(target, look, area, plot.bottom + look.px(0.5), shown[-1], deadline_ms)


def _draw_legend(
    target: pygame.Surface, look: Theme, area: pygame.Rect, y: int, last: ChunkBar, deadline_ms: float
) -> None:
    x = area.left
    for name, part_ms, colour in (
        ("dream", last.denoise_ms, theme.AMBER),
        ("remember", last.commit_ms, theme.PAPER),
        ("paint", last.decode_ms, theme.PAPER_DIM),
        ("ms, limit", deadline_ms, None),
    ):
        label = look.text(f"{name} {part_ms:.0f}", 11, colour=theme.PAPER)
        dot_px = look.px(1)
        if x + dot_px + label.get_width() > area.right:
            return
        middle = y + label.get_height() // 2
        if colour is not None:
            target.fill(colour, (x, middle - dot_px // 2, dot_px, dot_px))
        else:
            target.fill(theme.PAPER_DIM, (x, middle, dot_px, 1))
        target.blit(label, (x + look.px(1.5), y))
        x += label.get_width() + look.px(2.75)


def draw_recording(target: pygame.Surface, look: Theme, seconds: float) -> list[pygame.Rect]:
    """Draw the mark that says a recording is running, top right; return where it lies."""
    label = look.text(f"REC {int(seconds) // 60}:{int(seconds) % 60:02d}", 15, bold=True)
    dot_px, pad = look.px(1.5), look.px(1.5)
    width, height = label.get_width() + dot_px + 3 * pad, label.get_height() + pad
    left, top = target.get_width() - width - look.px(2), look.px(2)
    target.blit(look.panel(width, height), (left, top))
    dot = theme.rounded(dot_px, dot_px, theme.SIGNAL_RED, 255, dot_px // 2)
    target.blit(dot, (left + pad, top + (height - dot_px) // 2))
    target.blit(label, (left + 2 * pad + dot_px, top + (height - label.get_height()) // 2))
    return [pygame.Rect(left, top, width, height)]


def draw_progress(target: pygame.Surface, look: Theme, label: str, fraction: float) -> list[pygame.Rect]:
    """Draw how far a replay is, along the bottom; return where it lies."""
    pad = look.px(2)
    text = look.text(label, 15)
    width = min(target.get_width() - 4 * pad, look.px(80))
    height = text.get_height() + look.px(3)
    left, top = (target.get_width() - width) // 2, target.get_height() - height - pad
    target.blit(look.panel(width, height), (left, top))
    target.blit(text, (left + pad, top + look.px(1)))
    line = pygame.Rect(left + pad, top + height - look.px(1.25), width - 2 * pad, max(2, look.px(0.5)))
    target.fill(theme.INK_RAISED, line)
    target.fill(theme.AMBER, (*line.topleft, round(line.width * max(0.0, min(1.0, fraction))), line.height))
    return [pygame.Rect(left, top, width, height)]
