"""What lies over the world: the figures, the recording mark and passing messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pygame
from numpy.typing import NDArray

from client import theme
from client.theme import Theme

NUM_BARS = 40
"""Chunks in the timeline."""
TOAST_S = 4.0
FADE_S = 0.4


@dataclass(frozen=True)
class ChunkBar:
    """One chunk's times in the timeline, milliseconds."""

    denoise_ms: float
    commit_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Figures:
    """Everything the HUD shows, measured elsewhere."""

    world: str
    engine: str
    backend: str
    seed: int
    fps: float
    """The world's own rate."""
    fps_shown: float
    """Different frames shown a second, measured."""
    realtime_factor: float
    """Seconds of video an engine kept busy would make in a second."""
    chunk_ms_p50: float
    chunk_ms_p95: float
    deadline_ms: float
    """Length of a chunk on the screen."""
    bars: Sequence[ChunkBar]
    """Newest last."""
    response_ms: float
    """From reading the input to the first frame that knows it on the screen, the last chunk's: the model's answer."""
    turned_deg: float | None
    """How far the picture is turned ahead of the frame it shows; None where instant look is off."""
    buffered_frames: float
    in_flight: int
    rate: float
    holds: int
    hold_s: float
    chunk_index: int
    c2w: NDArray[np.float64]
    """Pose of the frame on the screen, [4, 4], world frame."""
    flying: bool
    client_ms: float
    """Processor time of the client thread for each picture it showed."""


def pose_angles_deg(c2w: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return heading (right of +z), pitch (up) and roll (lean right) of a pose, degrees."""
    heading = math.degrees(math.atan2(c2w[0, 2], c2w[2, 2]))
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -c2w[1, 2]))))
    roll = math.degrees(math.atan2(c2w[1, 0], c2w[1, 1]))
    # Adding zero turns a negative zero, which would show as "-0", into zero.
    return heading, round(pitch) + 0.0, round(roll) + 0.0


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """Return the HUD's lines: what it is, and how much."""
    x, y, z = figures.c2w[:3, 3]
    heading, pitch, roll = pose_angles_deg(figures.c2w)
    last = figures.bars[-1] if figures.bars else ChunkBar(0.0, 0.0, 0.0)
    return [
        ("world", f"{figures.world}, seed {figures.seed}"),
        ("engine", f"{figures.engine}, {figures.backend}"),
        ("frames", f"{figures.fps_shown:.1f} of {figures.fps:g} a second, rate {figures.rate:.2f}"),
        ("made", f"{figures.realtime_factor:.1f}x realtime, chunk {figures.chunk_index}"),
        ("chunk", f"{figures.chunk_ms_p50:.0f} ms p50, {figures.chunk_ms_p95:.0f} ms p95"),
        ("stages", f"{last.denoise_ms:.0f} + {last.commit_ms:.0f} + {last.decode_ms:.0f} ms"),
        ("response", f"{figures.response_ms:.0f} ms from input to picture"),
        (
            "look",
            "the model's"
            if figures.turned_deg is None
            else f"instant, {figures.turned_deg:.1f} deg ahead of the model",
        ),
        ("queue", f"{figures.buffered_frames:.1f} frames, {figures.in_flight} on their way"),
        ("waits", f"{figures.holds}, {figures.hold_s:.1f} s in all"),
        ("place", f"{x:.1f} right, {-y:.1f} up, {z:.1f} ahead m"),
        ("view", f"{heading:.0f} heading, {pitch:.0f} up, {roll:.0f} lean deg"),
        ("mode", "fly" if figures.flying else "walk"),
        ("window", f"{figures.client_ms:.1f} ms a picture"),
    ]


def draw_figures(target: pygame.Surface, look: Theme, figures: Figures) -> None:
    """Draw the panel of figures at the top left."""
    size = 13
    rows = figure_rows(figures)
    row_px = look.px(2.25)
    label_px, value_px = look.px(9), look.px(30)
    pad, bars_px = look.px(2), look.px(6)
    panel = look.panel(2 * pad + label_px + value_px, 2 * pad + row_px * len(rows) + look.px(1) + bars_px)
    origin_x = origin_y = look.px(2)
    target.blit(panel, (origin_x, origin_y))
    y = origin_y + pad
    for label, value in rows:
        target.blit(look.text(label, size, colour=theme.PAPER_DIM), (origin_x + pad, y))
        clipped = look.clipped(value, value_px, size)
        target.blit(look.text(clipped, size), (origin_x + pad + label_px, y))
        y += row_px
    area = pygame.Rect(origin_x + pad, y + look.px(1), label_px + value_px, bars_px)
    draw_timeline(target, look, area, figures.bars, figures.deadline_ms)


def draw_timeline(
    target: pygame.Surface, look: Theme, area: pygame.Rect, bars: Sequence[ChunkBar], deadline_ms: float
) -> None:
    """Draw the recent chunks as stacked bars under a line at their deadline."""
    top_ms = max(1.0, 1.25 * deadline_ms)
    pitch = area.width / NUM_BARS
    shown = bars[-NUM_BARS:]
    for i, bar in enumerate(shown):
        x = area.left + round((NUM_BARS - len(shown) + i) * pitch)
        width = max(1, round(pitch) - max(1, look.px(0.25)))
        late = bar.denoise_ms + bar.commit_ms + bar.decode_ms > deadline_ms
        bottom = float(area.bottom)
        for part_ms, colour in (
            (bar.denoise_ms, theme.SIGNAL_RED if late else theme.AMBER),
            (bar.commit_ms, theme.PAPER),
            (bar.decode_ms, theme.PAPER_DIM),
        ):
            height = min(area.height * part_ms / top_ms, bottom - area.top)
            target.fill(colour, (x, round(bottom - height), width, round(bottom) - round(bottom - height)))
            bottom -= height
    line_y = area.bottom - round(area.height * deadline_ms / top_ms)
    target.fill(theme.PAPER_DIM, (area.left, line_y, area.width, 1))


def draw_recording(target: pygame.Surface, look: Theme, seconds: float) -> None:
    """Draw the mark that says a recording is running, top right."""
    label = look.text(f"REC {int(seconds) // 60}:{int(seconds) % 60:02d}", 15, bold=True)
    dot_px, pad = look.px(1.5), look.px(1.5)
    width, height = label.get_width() + dot_px + 3 * pad, label.get_height() + pad
    left, top = target.get_width() - width - look.px(2), look.px(2)
    target.blit(look.panel(width, height), (left, top))
    dot = theme.rounded(dot_px, dot_px, theme.SIGNAL_RED, 255, dot_px // 2)
    target.blit(dot, (left + pad, top + (height - dot_px) // 2))
    target.blit(label, (left + 2 * pad + dot_px, top + (height - label.get_height()) // 2))


def draw_progress(target: pygame.Surface, look: Theme, label: str, fraction: float) -> None:
    """Draw how far a replay is, along the bottom."""
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


class Toasts:
    """Short messages that come up at the bottom and go by themselves."""

    def __init__(self) -> None:
        self._shown: list[tuple[float, str, bool]] = []

    def add(self, text: str, now_s: float, warning: bool = False) -> None:
        """Show a sentence from now on, longer if it is a warning; an equal one is not shown twice."""
        self._shown = [toast for toast in self._shown if toast[1] != text][-2:]
        self._shown.append((now_s + TOAST_S * (2 if warning else 1), text, warning))

    def clear(self) -> None:
        """Take all messages away."""
        self._shown.clear()

    def texts(self, now_s: float) -> list[str]:
        """Return the messages on the screen at this moment."""
        self._shown = [toast for toast in self._shown if toast[0] > now_s]
        return [text for _, text, _ in self._shown]

    def is_fading(self, now_s: float) -> bool:
        """Whether the picture changes by itself because of a message coming to its end."""
        return any(0.0 < end_s - now_s < FADE_S for end_s, _, _ in self._shown)

    def draw(self, target: pygame.Surface, look: Theme, now_s: float, bottom_px: int) -> None:
        """Draw the messages upward from a height."""
        self.texts(now_s)
        for end_s, text, warning in reversed(self._shown):
            card = self._card(look, text, warning, target.get_width() - look.px(4))
            card.set_alpha(round(255 * min(1.0, (end_s - now_s) / FADE_S)))
            bottom_px -= card.get_height() + look.px(1)
            target.blit(card, ((target.get_width() - card.get_width()) // 2, bottom_px))

    def _card(self, look: Theme, text: str, warning: bool, room_px: int) -> pygame.Surface:
        pad = look.px(1.5)
        lines = look.wrap(text, max(1, min(room_px - 3 * pad, look.px(80))), 15)
        rendered = [look.text(line, 15) for line in lines] or [look.text(" ", 15)]
        width = max(line.get_width() for line in rendered) + 2 * pad + look.px(1)
        height = sum(line.get_height() for line in rendered) + 2 * look.px(1)
        card = look.panel(width, height).copy()
        edge = theme.SIGNAL_RED if warning else theme.AMBER
        card.fill(edge, (pad - look.px(0.5), look.px(1), max(2, look.px(0.375)), height - 2 * look.px(1)))
        y = look.px(1)
        for line in rendered:
            card.blit(line, (pad + look.px(1), y))
            y += line.get_height()
        return card
