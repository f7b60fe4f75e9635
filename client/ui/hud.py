"""The head-up display: metrics with their timeline, the marks of a recording and of a replay, the latency marker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pygame

from client.input.controls import IDLE, Intent
from client.playback.meters import LatencyMeter
from client.playback.walk import Walk
from client.playback.walk_map import WalkMap
from client.ui import theme
from client.ui.app_context import AppContext
from client.ui.metrics import NUM_BARS, Line, Metrics, Section, metric_lines, read_metrics
from client.ui.panels import draw_held, draw_map
from client.ui.replay_bar import ReplayBar
from client.ui.theme import Theme
from engine.types import ChunkTimes

METRICS_EVERY_S = 0.25
STALL_S = 2.0
"""A picture that stands for so long while more is under way looks like a hang."""
STALL_AGAIN_S = 30.0
"""Not to be said again before."""
_STALL = "The picture waits for the model"
_SIZE = 13
_ROW = 2.25
_WIDEST_VALUE = "0.00 of 00 a second, at 000 % speed"
"""As wide as the column of values is made, so that it does not change with the metrics."""
MARK_SIDE = 8.0
"""Side of a square of the latency marker, grid units."""
_MARK_DARK, _MARK_BRIGHT = (0, 0, 0), (255, 255, 255)


class Hud:
    """Everything that can be switched on over the picture, and what it needs to remember."""

    def __init__(self, app: AppContext, walk: Walk, more: Callable[[], Sequence[Line]]) -> None:
        """Lie over a walk.

        Args:
            app: What all screens share.
            walk: The walk under way.
            more: Returns lines of metrics that are measured outside the walk.
        """
        self._more = more
        self._app = app
        self._walk = walk
        self._map = WalkMap()
        self._stall = StallNotice(app, walk)
        self.replay_bar = ReplayBar()
        self._replay_state: tuple[object, ...] = ()
        self._intent = IDLE
        self._held: tuple[int, ...] = ()
        self._metrics: Metrics | None = None
        self._metrics_s = 0.0
        self.taken: list[pygame.Rect] = []
        """Where they lie, as drawn last."""

    def update(self, intent: Intent, now_s: float) -> bool:
        """Take in what happened; say whether something that is shown changed by it."""
        self._stall.update(now_s)
        settings, held = self._app.settings, self._app.keyboard.held
        changed = settings.show_held and (intent != self._intent or held != self._held)
        self._intent, self._held = intent, held
        if (replay := self._walk.replay) is not None:
            state = replay.newest, replay.target, replay.playing, replay.speed
            changed |= state != self._replay_state
            self._replay_state = state
        self._map.add(self._walk.frame.index, self._walk.frame.c2w)
        if not settings.hud:
            self._metrics = None
        elif self._metrics is None or now_s - self._metrics_s >= METRICS_EVERY_S:
            metrics = read_metrics(self._walk, self._app.client_ms, settings.reproject)
            self._metrics = replace(metrics, more=(*metrics.more, *self._more()))
            self._metrics_s = now_s
            changed = True
        return changed

    def draw(self, target: pygame.Surface, covered: bool) -> None:
        """Draw what is switched on; with a menu or the help over it only what must be seen."""
        look, settings, walk = self._app.look, self._app.settings, self._walk
        replay = walk.replay
        bottom = target.get_height() - look.px(2 if replay is None else 9.5)
        self.taken = []
        if settings.show_map and not covered:
            self.taken += draw_map(target, look, self._map, bottom)
        if settings.show_held and not covered:
            held = draw_held(target, look, self._intent, self._held, self._app.bindings, bottom)
            self.taken += held
            bottom = min((place.top - look.px(1) for place in held), default=bottom)
        if settings.hud and self._metrics is not None and not covered:
            self.taken += draw_metrics(target, look, self._metrics, bottom)
        if walk.recorder.path is not None:
            self.taken += draw_recording(target, look, walk.walked_s)
        if replay is not None:
            self.replay_bar.draw(target, look, replay, walk.session.fps)
            self.taken.append(self.replay_bar.place)


class StallNotice:
    """Says so when the picture waits for the model, so that a slow machine does not look like a hang."""

    def __init__(self, app: AppContext, walk: Walk) -> None:
        self._app = app
        self._walk = walk
        self._index = -1
        self._since_s = 0.0
        self._next_s = 0.0

    def update(self, now_s: float) -> None:
        """Look at the frame that is on."""
        walk = self._walk
        held = walk.replay is not None and (not walk.replay.playing or walk.replay.target is not None)
        waits = walk.playback.pacer.in_flight and not (held or walk.paused or walk.resting or walk.entering)
        if not waits or walk.frame.index != self._index:
            self._index, self._since_s = walk.frame.index, now_s
        elif now_s - self._since_s >= STALL_S and now_s >= self._next_s:
            self._next_s = now_s + STALL_AGAIN_S
            self._app.toasts.replace(_STALL, self._why(), now_s)

    def _why(self) -> str:
        usual_ms, _ = self._walk.statistics.chunk_ms()
        chunk_s = self._walk.playback.pacer.config.chunk_s
        if usual_ms <= 1e3 * chunk_s:
            return "; this machine has little time for it just now."
        return f": {chunk_s:.2g} s of the walk take it {usual_ms / 1e3:.1f} s on this machine."


def draw_metrics(target: pygame.Surface, look: Theme, metrics: Metrics, bottom_px: int) -> list[pygame.Rect]:
    """Draw the panel of metrics at the top left; what does not fit above a height is left out.

    The timeline is below them, or beside them where there is no room. Return where both lie.
    """
    origin, pad, bars_px = look.px(2), look.px(2), look.px(9)
    lines = metric_lines(metrics)
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
    draw_timeline(target, look, area, metrics.chunk_times, metrics.deadline_ms)
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
    target: pygame.Surface, look: Theme, area: pygame.Rect, bars: Sequence[ChunkTimes], deadline_ms: float
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
    target: pygame.Surface, look: Theme, area: pygame.Rect, y: int, last: ChunkTimes, deadline_ms: float
) -> None:
    x = area.left
    for name, part_ms, colour in (
        ("denoise", last.denoise_ms, theme.AMBER),
        ("commit", last.commit_ms, theme.PAPER),
        ("decode", last.decode_ms, theme.PAPER_DIM),
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


class LatencyMarker:
    """Two squares for a camera or a photodiode: one flips with each input, one with each answer of the model.

    They change in the very frames that the meter counts, so that light on the screen can be held against its metrics.
    """

    def __init__(self, meter: LatencyMeter) -> None:
        self._meter = meter
        self._on = False

    def toggle(self, now_s: float) -> None:
        self._on = not self._on

    def draw(self, target: pygame.Surface, look: Theme, frame_index: int) -> list[pygame.Rect]:
        """Draw them at the right edge, over a picture of the frame that has this number; return where they lie."""
        if not self._on:
            return []
        side, label_px, gap = look.px(MARK_SIDE), look.px(2.5), look.px(1)
        # In the middle: the mark of a recording is above, the map below.
        left, top = target.get_width() - 2 * side - gap, (target.get_height() - side) // 2
        place = pygame.Rect(left - gap, top - label_px, 2 * (side + gap), side + label_px)
        target.fill(theme.INK, place)
        flips = ("input", self._meter.num_inputs), ("model", self._meter.answers_by(frame_index))
        for i, (name, count) in enumerate(flips):
            label = look.text(name, 11)
            x = left + i * (side + gap)
            target.blit(label, (x + (side - label.get_width()) // 2, top - label_px))
            target.fill(_MARK_BRIGHT if count % 2 else _MARK_DARK, (x, top, side, side))
        return [place]
