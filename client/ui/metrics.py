"""The metrics of a walk and their lines in the panel: what is shown, what makes it, and where the player is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from client.camera.pose_words import place_words, pose_angles_deg, sided
from client.playback.meters import Drift, Response
from client.playback.pacing import PacingCounts
from client.playback.resource_usage import memory_bytes
from client.playback.walk import Walk
from client.setup.catalog import TITLES
from engine.types import ChunkTimes

NUM_BARS = 40
"""Chunks in the timeline."""
LONG_MS = 9_999.5


class Section(StrEnum):
    """A group of lines in the panel."""

    PICTURE = "Picture"
    ENGINE = "Engine"
    PLACE = "Place"


Line = tuple[Section, str, str]
"""Where it stands, what it is, and how much."""


@dataclass(frozen=True)
class Metrics:
    """Everything that the panel shows, measured elsewhere."""

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
    chunk_times: Sequence[ChunkTimes]
    """Of the last chunks, newest last."""
    num_steps: int
    """Denoising steps of the last chunk."""
    most_steps: int
    """Of the whole schedule."""
    steps_lowered: bool
    """Whether the step controller has lowered them."""
    refiner: str | None
    """Whether chunks are refined, in words; None where the engine has no refiner."""
    refiner_adds: Response
    """How much later the model answers for being refined."""
    model: Response
    """How fast the model answers."""
    warped: Response
    """How fast late reprojection answers."""
    drift: Drift | None
    """None until it is known."""
    resting: bool
    """Whether no chunk is made because nothing moves."""
    turned_deg: float | None
    """How far the picture is turned ahead of the frame it shows; None where late reprojection is off."""
    moved_m: float | None
    """How far it is moved ahead; None where frames have no depth, or late reprojection is off."""
    buffered_frames: float
    """Frames that are made and wait to be shown."""
    in_flight: int
    """Chunks asked for and not yet made."""
    rate: float
    """Playback against the world's own rate."""
    counts: PacingCounts
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
    """Lines of whatever else is measured."""


def read_metrics(walk: Walk, client_ms: float, reprojecting: bool) -> Metrics:
    """Return what the panel shows of a walk.

    Args:
        client_ms: Processor time of the client thread for a picture.
        reprojecting: Whether pictures are turned to the live view.
    """
    session, pacer, statistics = walk.session, walk.playback.pacer, walk.statistics
    rig = walk.planner.rig
    deadline_ms = 1e3 * pacer.config.chunk_s
    p50, p95 = statistics.chunk_ms()
    moves = reprojecting and walk.frame.inverse_depth is not None
    return Metrics(
        world=session.world.title,
        engine=session.engine,
        backend=session.backend,
        seed=walk.seed,
        fps=session.fps,
        fps_shown=walk.playback.fps_shown,
        realtime_factor=deadline_ms / p50 if p50 else 0.0,
        chunk_ms_p50=p50,
        chunk_ms_p95=p95,
        deadline_ms=deadline_ms,
        chunk_times=tuple(statistics.chunk_times),
        num_steps=statistics.last_steps,
        most_steps=session.num_steps,
        steps_lowered=statistics.controller.lowered,
        refiner=_refiner_words(walk),
        refiner_adds=statistics.latency.refiner,
        model=statistics.latency.model,
        warped=statistics.latency.warped,
        drift=statistics.drift.read(),
        resting=walk.resting,
        turned_deg=math.degrees(np.linalg.norm(walk.live_turn_rad)) if reprojecting else None,
        moved_m=float(np.linalg.norm(walk.live_move_m)) if moves else None,
        buffered_frames=walk.playback.buffered_frames,
        in_flight=pacer.in_flight,
        rate=pacer.rate,
        counts=pacer.counts,
        chunk_index=walk.frame.chunk_index,
        c2w=walk.frame.c2w,
        flying=rig.flying if rig is not None else False,
        speed_m_s=rig.speed_m_s if rig is not None else None,
        memory_bytes=memory_bytes(),
        client_ms=client_ms,
    )


def _refiner_words(walk: Walk) -> str | None:
    if not walk.session.has_refiner:
        return None
    if not walk.planner.refine:
        return "off, to keep time" if walk.refiner_wanted else "off"
    took = [times.refine_ms for times in walk.statistics.chunk_times if times.refine_ms]
    return f"takes {np.median(took):.0f} ms beside the next chunk" if took else "on"


def metric_lines(metrics: Metrics) -> list[Line]:
    """Return the lines of the panel, by section."""
    lines = [
        *_picture_lines(metrics),
        *_engine_lines(metrics),
        *_place_lines(metrics),
        *metrics.more,
    ]
    order = list(Section)
    return sorted(lines, key=lambda line: order.index(line[0]))


def _picture_lines(metrics: Metrics) -> list[Line]:
    rate = "" if abs(metrics.rate - 1.0) < 0.005 else f", at {100 * metrics.rate:.0f} % speed"
    counts, drift = metrics.counts, metrics.drift
    drifted = "not known yet"
    if drift is not None:
        drifted = f"{drift.value:.2f} since the start, {drift.most} {drift.factor:.2f} times as much"
    rests = [(Section.PICTURE, "rests", "nothing moves, none is made")] if metrics.resting else []
    adds = metrics.refiner_adds
    added = [(Section.PICTURE, "refiner adds", _percentiles(adds))] if adds.count else []
    turned, moved = metrics.turned_deg, metrics.moved_m
    turn = "waits for the model" if turned is None else f"is seen at once, {turned:.1f} deg ahead"
    step = "waits for the model" if moved is None else f"is seen at once, {moved:.2f} m ahead"
    return [
        (Section.PICTURE, "shown", f"{metrics.fps_shown:.1f} of {metrics.fps:g} a second{rate}"),
        (
            Section.PICTURE,
            "ready",
            f"{metrics.buffered_frames:.0f} to show, {number_of(metrics.in_flight, 'chunk')} coming",
        ),
        (Section.PICTURE, "stood still", counted(counts.holds, counts.hold_s)),
        (Section.PICTURE, "a turn", turn),
        (Section.PICTURE, "a step", step),
        (Section.PICTURE, "window", f"needs {metrics.client_ms:.1f} ms a picture"),
        (Section.PICTURE, "model answers", _percentiles(metrics.model)),
        *added,
        (Section.PICTURE, "view answers", _percentiles(metrics.warped)),
        (Section.PICTURE, "skipped ahead", counted(counts.overlaps, counts.overlap_s)),
        (Section.PICTURE, "change of look", drifted),
        *rests,
    ]


def _engine_lines(metrics: Metrics) -> list[Line]:
    backend = TITLES.get(metrics.backend, metrics.backend)
    name = backend if metrics.engine == metrics.backend else f"{metrics.engine} on {backend}"
    could = metrics.realtime_factor * metrics.fps
    usual, slow = metrics.chunk_ms_p50, metrics.chunk_ms_p95
    steps = f"{metrics.num_steps} of {metrics.most_steps}"
    refiner = [] if metrics.refiner is None else [(Section.ENGINE, "refiner", metrics.refiner)]
    return [
        (Section.ENGINE, "model", name),
        (Section.ENGINE, "could make", f"{number_of(round(could), 'picture')} a second"),
        (Section.ENGINE, "a chunk", f"takes {usual:.0f} ms, a slow one {slow:.0f}"),
        (Section.ENGINE, "memory", f"{metrics.memory_bytes / 2**20:.0f} MB"),
        (Section.ENGINE, "steps", f"{steps}, to keep time" if metrics.steps_lowered else steps),
        *refiner,
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


def _percentiles(response: Response) -> str:
    if not response.count:
        return "not asked yet"
    values = response.p50, response.p90, response.p99
    # Seconds where milliseconds would be wider than the panel.
    p50, p90, p99 = (f"{ms / 1e3:.1f}" if response.p99 >= LONG_MS else f"{ms:.0f}" for ms in values)
    return f"p50 {p50}, p90 {p90}, p99 {p99} {'s' if response.p99 >= LONG_MS else 'ms'}"
