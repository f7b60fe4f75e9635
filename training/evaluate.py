"""Measures a bundle's worlds against the truth: PSNR at several horizons beside its bounds, and contact sheets.

Everything goes through the engine's own session, so what is measured is what is played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.bundle import Bundle
from engine.session import open_session
from engine.types import CameraTrack
from engine.world import World
from holodeck import get_place
from training.data.walks import walk

HORIZONS_S = (0.25, 1.0, 2.0, 4.0, 8.0, 15.0)
HELD_OUT_SEED = 90_000
"""Walks of this seed and above are never trained on."""
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class HorizonScore:
    """Mean PSNR in dB over a world's held-out walks, at one time after the start."""

    world: str
    seconds: float
    generated: float
    repeated_first: float
    """Of showing the first frame for ever."""
    autoencoder: float
    """Of encoding and decoding the truth: the ceiling."""


@dataclass(frozen=True)
class WalkFrames:
    """One held-out walk, as it is, as it was generated, and as the autoencoder keeps it; each [F, H, W, 3]."""

    truth: Frames
    generated: Frames
    reconstructed: Frames


def psnr(a: Frames, b: Frames) -> float:
    """Peak signal-to-noise ratio of two pictures, dB."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float(10 * np.log10(255.0**2 / max(error, 1e-3)))


def follow_walk(
    bundle: Bundle, world: World, seed: int, seconds: float, reconstruct: Callable[[Frames], Frames]
) -> WalkFrames:
    """Generate one held-out walk and draw its truth.

    Args:
        reconstruct: Encodes and decodes a clip.

    Raises:
        ValueError: The world was not made from a holodeck place, so there is no truth to compare with.
    """
    if world.place is None:
        raise ValueError(
            f"the world {world.name} has no holodeck place; only worlds made from one can be measured"
        )
    place = get_place(world.place)
    height, width = world.first_frame.shape[:2]
    session = open_session(world, bundle)
    try:
        chunks = int(np.ceil(seconds * session.fps / session.frames_per_chunk))
        poses = walk(place, 1 + chunks * session.frames_per_chunk, round(session.fps), seed)
        truth = np.stack([place.render(c2w, world.intrinsics, width, height) for c2w in poses])
        session.reset(seed % 1000)
        generated = [world.first_frame[None]]
        for n in range(chunks):
            part = poses[1 + n * session.frames_per_chunk :][: session.frames_per_chunk]
            track = CameraTrack(part, np.repeat(world.intrinsics[None], len(part), 0))
            generated.append(session.step(track).frames)
    finally:
        session.close()
    return WalkFrames(truth, np.concatenate(generated), reconstruct(truth))


def score_walks(world: str, walks: Sequence[WalkFrames], fps: float) -> list[HorizonScore]:
    """Mean scores at every horizon."""
    scores = []
    for seconds in HORIZONS_S:
        n = round(seconds * fps)
        rows = [
            (
                psnr(w.truth[n], w.generated[n]),
                psnr(w.truth[n], w.truth[0]),
                psnr(w.truth[n], w.reconstructed[n]),
            )
            for w in walks
        ]
        means = np.mean(rows, 0).round(2)
        scores.append(HorizonScore(world, seconds, *(float(m) for m in means)))
    return scores


def contact_sheet(walks: Sequence[WalkFrames], fps: float, path: Path, scale: float = 1.5) -> None:
    """Write a PNG: per walk a row of truth above a row of generated frames, at the horizons."""
    rows = []
    for w in walks:
        picks = [round(seconds * fps) for seconds in HORIZONS_S]
        rows += [np.concatenate(list(w.truth[picks]), 1), np.concatenate(list(w.generated[picks]), 1)]
    sheet = cv2.resize(np.concatenate(rows, 0), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1])


def as_table(scores: Sequence[HorizonScore]) -> str:
    """Format scores as a Markdown table."""
    lines = [
        "| world | after | generated | first frame repeated | gain | autoencoder |",
        "|---|---|---|---|---|---|",
    ]
    for s in scores:
        gain = s.generated - s.repeated_first
        figures = (
            f"{s.generated:.1f} dB",
            f"{s.repeated_first:.1f} dB",
            f"{gain:+.1f} dB",
            f"{s.autoencoder:.1f} dB",
        )
        lines.append(f"| {s.world} | {s.seconds:g} s | {' | '.join(figures)} |")
    return "\n".join(lines)


def as_json(scores: Sequence[HorizonScore]) -> list[dict[str, float | str]]:
    """Scores as plain values."""
    return [asdict(s) for s in scores]
