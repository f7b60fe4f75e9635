"""The metrics of a walk in plain words: what is shown, what makes it, and where the player is.

Everything is measured elsewhere; knows no window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from client.camera.pose_words import place_words, pose_angles_deg, sided
from client.setup.catalog import TITLES

NUM_BARS = 40
"""Chunks in the timeline."""


class Section(StrEnum):
    """A group of lines in the panel."""

    PICTURE = "Picture"
    ENGINE = "Engine"
    PLACE = "Place"


Line = tuple[Section, str, str]
"""Where it stands, what it is, and how much."""


@dataclass(frozen=True)
class ChunkBar:
    """One chunk's times in the timeline, milliseconds."""

    denoise_ms: float
    commit_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Metrics:
    """Everything the HUD shows, measured elsewhere."""

    world: str
    engine: str
    backend: str
    seed: int
    fps: float
    """The world's own rate, frames a second."""
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
    turned_deg: float | None
    """How far the picture is turned ahead of the frame it shows; None where instant look is off."""
    buffered_frames: float
    """Frames that are made and wait to be shown."""
    in_flight: int
    """Chunks asked for and not yet made."""
    rate: float
    """Playback against the world's own rate."""
    holds: int
    """Times the picture stood still for want of a frame."""
    hold_s: float
    chunk_index: int
    c2w: NDArray[np.float64]
    """Pose of the frame on the screen, [4, 4], world frame."""
    flying: bool
    speed_m_s: float | None
    """How fast a held key walks; None where nobody walks freely."""
    memory_bytes: int
    """What this program holds in memory."""
    client_ms: float
    """Processor time of the client thread for each picture it showed."""
    more: Sequence[Line] = ()
    """Lines of whoever else measures something."""


def metric_lines(metrics: Metrics) -> list[Line]:
    """Return the lines of the panel, by section."""
    lines = [*_picture_lines(metrics), *_engine_lines(metrics), *_place_lines(metrics), *metrics.more]
    order = list(Section)
    return sorted(lines, key=lambda line: order.index(line[0]))


def _picture_lines(metrics: Metrics) -> list[Line]:
    rate = "" if abs(metrics.rate - 1.0) < 0.005 else f", at {100 * metrics.rate:.0f} % speed"
    stood = counted(metrics.holds, metrics.hold_s)
    turned = metrics.turned_deg
    turn = "waits for the model" if turned is None else f"is seen at once, {turned:.1f} deg ahead"
    return [
        (Section.PICTURE, "shown", f"{metrics.fps_shown:.1f} of {metrics.fps:g} a second{rate}"),
        (
            Section.PICTURE,
            "ready",
            f"{metrics.buffered_frames:.0f} to show, {number_of(metrics.in_flight, 'chunk')} coming",
        ),
        (Section.PICTURE, "stood still", stood),
        (Section.PICTURE, "a turn", turn),
        (Section.PICTURE, "window", f"needs {metrics.client_ms:.1f} ms a picture"),
    ]


def _engine_lines(metrics: Metrics) -> list[Line]:
    backend = TITLES.get(metrics.backend, metrics.backend)
    name = backend if metrics.engine == metrics.backend else f"{metrics.engine} on {backend}"
    could = metrics.realtime_factor * metrics.fps
    usual, slow = metrics.chunk_ms_p50, metrics.chunk_ms_p95
    return [
        (Section.ENGINE, "model", name),
        (Section.ENGINE, "could make", f"{number_of(round(could), 'picture')} a second"),
        (Section.ENGINE, "a chunk", f"takes {usual:.0f} ms, a slow one {slow:.0f}"),
        (Section.ENGINE, "memory", f"{metrics.memory_bytes / 2**20:.0f} MB"),
    ]


def _place_lines(metrics: Metrics) -> list[Line]:
    heading, pitch, roll = (round(angle) for angle in pose_angles_deg(metrics.c2w))
    looks = [
        sided(heading, "deg right", "deg left", 0),
        sided(pitch, "up", "down", 0) if pitch else "",
        f"leaning {sided(roll, 'right', 'left', 0)}" if roll else "",
    ]
    lines = [
        (Section.PLACE, "world", metrics.world),
        (Section.PLACE, "seed", f"{metrics.seed}, chunk {metrics.chunk_index}"),
        (Section.PLACE, "you stand", place_words(metrics.c2w)),
        (Section.PLACE, "you look", ", ".join(word for word in looks if word)),
    ]
    if metrics.speed_m_s is not None:
        pace = "flying" if metrics.flying else "walking"
        lines.append((Section.PLACE, "you go", f"{metrics.speed_m_s:.1f} m/s, {pace}"))
    return lines


def number_of(count: int, what: str) -> str:
    """Say how many, such as "1 chunk" and "2 chunks"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def counted(count: int, total_s: float) -> str:
    """Say how often something was, and how long in all."""
    times = {0: "never", 1: "once"}.get(count, f"{count} times")
    return f"{times}, {total_s:.1f} s in all" if count else times
