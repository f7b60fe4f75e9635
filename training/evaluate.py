"""Measures a bundle's worlds against the truth: PSNR at several horizons beside its bounds, and contact sheets.

Everything goes through the engine's own session, so what is measured is what is played.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from engine.atomic import replacing
from engine.bundle import Bundle
from engine.session import open_session
from engine.types import CameraTrack
from engine.world import World, list_worlds, read_world
from export.quality import psnr
from holodeck import Place, get_place
from model.autoencoder import Autoencoder
from training.data.latents import encode_frames
from training.data.walks import walk

HORIZONS_S = (0.25, 1.0, 2.0, 4.0, 8.0, 15.0)
HELD_OUT_SEED = 90_000
"""Walks of this seed and above are never trained on."""
SHEET_WALKS = 2
"""Walks that a contact sheet shows."""
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class HorizonScore:
    """Mean PSNR in dB over a world's held-out walks, at one time after the start."""

    world: str
    seconds: float
    generated: float
    repeated_first: float
    """Of showing the first frame for ever."""
    autoencoder: float | None
    """Of encoding and decoding the truth: the ceiling; None where the autoencoder was not at hand."""


@dataclass(frozen=True)
class WalkFrames:
    """One held-out walk, as it is, as it was generated, and as the autoencoder keeps it; each [F, H, W, 3]."""

    truth: Frames
    generated: Frames
    reconstructed: Frames | None


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, frames: Frames) -> Frames:
    """Encode and decode a clip of 1 + stride * n frames, [F, H, W, 3]."""
    latents = encode_frames(autoencoder, frames).float()
    video = autoencoder.decode(latents.transpose(0, 1)[None])[0].permute(0, 2, 3, 1)
    return ((video.clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte().numpy()


def place_of(world: World) -> Place:
    if world.place is None:
        raise ValueError(
            f"the world {world.name} has no holodeck place; only worlds made from one can be measured"
        )
    return get_place(world.place)


def follow_walk(
    bundle: Bundle, world: World, seed: int, seconds: float, autoencoder: Autoencoder | None
) -> WalkFrames:
    """Generate one held-out walk and draw its truth.

    Raises:
        ValueError: The world was not made from a holodeck place, so there is no truth to compare with.
    """
    place = place_of(world)
    height, width = world.first_frame.shape[:2]
    session = open_session(world, bundle)
    try:
        chunks = int(np.ceil(seconds * session.fps / session.frames_per_chunk))
        poses = walk(place, 1 + chunks * session.frames_per_chunk, round(session.fps), seed)
        truth = np.stack([place.render(c2w, world.intrinsics, width, height) for c2w in poses])
        session.reset(seed)
        generated = [world.first_frame[None]]
        for n in range(chunks):
            part = poses[1 + n * session.frames_per_chunk :][: session.frames_per_chunk]
            track = CameraTrack(part, np.repeat(world.intrinsics[None], len(part), 0))
            generated.append(session.step(track).frames)
    finally:
        session.close()
    kept = None if autoencoder is None else reconstruct(autoencoder, truth)
    return WalkFrames(truth, np.concatenate(generated), kept)


def score_walks(world: str, walks: Sequence[WalkFrames], fps: float) -> list[HorizonScore]:
    """Mean scores at every horizon."""
    scores = []
    for seconds in HORIZONS_S:
        n = round(seconds * fps)
        generated = np.mean([psnr(w.truth[n], w.generated[n]) for w in walks])
        repeated = np.mean([psnr(w.truth[n], w.truth[0]) for w in walks])
        kept = [psnr(w.truth[n], w.reconstructed[n]) for w in walks if w.reconstructed is not None]
        ceiling = round(float(np.mean(kept)), 2) if kept else None
        scores.append(
            HorizonScore(world, seconds, round(float(generated), 2), round(float(repeated), 2), ceiling)
        )
    return scores


def evaluate_worlds(
    bundle: Bundle,
    worlds: Path,
    report: Path,
    autoencoder: Autoencoder | None = None,
    walks_per_world: int = 3,
) -> list[HorizonScore]:
    """Measure every world of a folder on held-out walks.

    Writes a contact sheet per world, a table and `scores.json` into `report`.

    Raises:
        ValueError: The folder holds no worlds.
    """
    entries = list_worlds([worlds])
    if not entries:
        raise ValueError(f"{worlds} holds no worlds; name the folder with the .world files")
    worlds_read = [read_world(entry.path) for entry in entries]
    for world in worlds_read:
        place_of(world)
    report.mkdir(parents=True, exist_ok=True)
    scores: list[HorizonScore] = []
    for world in track(worlds_read, "measuring worlds", console=Console(stderr=True)):
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + walks_per_world)
        walks = [follow_walk(bundle, world, seed, HORIZONS_S[-1], autoencoder) for seed in seeds]
        scores += score_walks(world.name, walks, bundle.spec.fps)
        films = [film for shown in walks[:SHEET_WALKS] for film in (shown.truth, shown.generated)]
        contact_sheet(films, bundle.spec.fps, report / f"{world.name}.png")
    with replacing(report / "scores.json") as file:
        file.write_text(json.dumps([asdict(s) for s in scores], indent=1) + "\n")
    with replacing(report / "scores.md") as file:
        file.write_text(as_table(scores) + "\n")
    return scores


def contact_sheet(films: Sequence[Frames], fps: float, path: Path, scale: float = 1.5) -> None:
    """Write a PNG; one row per film, its frames at the horizons that it reaches."""
    length = min(map(len, films))
    picks = [frame for seconds in HORIZONS_S if (frame := round(seconds * fps)) < length]
    rows = [np.concatenate(list(film[picks]), 1) for film in films]
    sheet = cv2.resize(np.concatenate(rows, 0), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    ok, encoded = cv2.imencode(".png", sheet[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())


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
            "" if s.autoencoder is None else f"{s.autoencoder:.1f} dB",
        )
        lines.append(f"| {s.world} | {s.seconds:g} s | {' | '.join(figures)} |")
    return "\n".join(lines)
