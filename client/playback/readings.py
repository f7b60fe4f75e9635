"""What the panel of figures reads off a walk."""

from __future__ import annotations

import math

import numpy as np

from client.playback.footprint import memory_bytes
from client.playback.walk import Walk
from client.ui.metrics import Metrics


def read_figures(walk: Walk, client_ms: float, reprojecting: bool) -> Metrics:
    """Return what the panel shows.

    Args:
        client_ms: Processor time of the client thread for a picture.
        reprojecting: Whether pictures are turned to the live view.
    """
    session, pacer = walk.session, walk.showing.pacer
    counts, rig = pacer.counts, walk.planner.rig
    deadline_ms = 1e3 * pacer.config.chunk_s
    p50, p95 = walk.instruments.chunk_ms()
    return Metrics(
        world=session.world.title,
        engine=session.engine,
        backend=session.backend,
        seed=walk.seed,
        fps=session.fps,
        fps_shown=walk.showing.fps_shown,
        realtime_factor=deadline_ms / p50 if p50 else 0.0,
        chunk_ms_p50=p50,
        chunk_ms_p95=p95,
        deadline_ms=deadline_ms,
        bars=tuple(walk.instruments.bars),
        turned_deg=math.degrees(np.linalg.norm(walk.live_turn_rad)) if reprojecting else None,
        buffered_frames=pacer.buffered_frames,
        in_flight=pacer.in_flight,
        rate=pacer.rate,
        holds=counts.holds,
        hold_s=counts.hold_s,
        chunk_index=walk.frame.chunk_index,
        c2w=walk.frame.c2w,
        flying=rig.flying if rig is not None else False,
        speed_m_s=rig.speed_m_s if rig is not None else None,
        memory_bytes=memory_bytes(),
        client_ms=client_ms,
        more=[*walk.instruments.lines(counts), *walk.chronicle.lines(walk.resting)],
    )
