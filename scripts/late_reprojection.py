"""How near late reprojection comes to what is truly seen from where the player is by now, before the model answers.

python scripts/late_reprojection.py [--frames 8] [--sheet FILE] [WORLD ...]

Frames of held-out walks, drawn as they truly are, are shown from the pose some frames later; what they do not reach is filled
from around, or from the memory: as it was rendered for the frame itself (the player has just begun to move), and for a frame half
the way there. Decibels in what is filled and in the whole picture, means over pictures; times of the filling alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import holodeck
from client.camera.depth_warp import DepthFrame, SourceMap, behind
from client.camera.late_reprojection import WITH_MEMORY
from client.ui.picture import stay_on_one_thread
from engine.files.world import World, read_world
from engine.machine.assets import worlds_dir
from engine.memory.rendering import Surroundings
from engine.memory.sources import View
from engine.memory.spatial_memory import SpatialMemory
from evaluation.image_metrics import psnr
from holodeck.walks import walk

SEEDS, NUM_FRAMES, STEP, FPS = (90000, 90001), 241, 12, 16
LEAST_HOLES = 100
"""Pixels."""
WAYS = ("around", "memory, at first", "memory, half way")
SHEET_ROWS = 6


@dataclass(frozen=True)
class Shown:
    """One picture, filled in one way."""

    way: str
    share: float
    """Of the picture that is filled."""
    filled_db: float
    whole_db: float
    took_ms: float
    picture: NDArray[np.uint8]
    truth: NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help="shipped worlds, all by default")
    parser.add_argument("--frames", type=int, default=8, help="how many frames the player is ahead")
    parser.add_argument(
        "--sheet", type=Path, help="picture to write: filled from around, from the memory, the truth"
    )
    options = parser.parse_args()
    stay_on_one_thread()
    names = options.worlds or sorted(path.stem for path in worlds_dir().glob("*.world"))
    everything: list[Shown] = []
    print("world      | filled | " + " | ".join(f"{way:>22}" for way in WAYS))
    for name in [*names, "mean"]:
        shown = (
            everything
            if name == "mean"
            else list(pictures(read_world(worlds_dir() / f"{name}.world"), options.frames))
        )
        everything += [] if name == "mean" else shown
        columns = []
        for way in WAYS:
            some = [each for each in shown if each.way == way]
            filled, whole = (
                np.mean([getattr(each, key) for each in some]) for key in ("filled_db", "whole_db")
            )
            columns.append(
                f"{filled:5.1f} {whole:5.1f} dB {np.median([each.took_ms for each in some]):4.1f} ms"
            )
        share = np.mean([each.share for each in shown])
        print(f"{name:10} | {share:5.1%}  | " + " | ".join(f"{column:>22}" for column in columns))
    if options.sheet is not None:
        Image.fromarray(sheet(everything)).save(options.sheet, quality=80)


def pictures(world: World, ahead: int) -> Iterator[Shown]:
    """Show frames of two walks from where the player is by then, filled in each way."""
    place, lens = holodeck.get_place(str(world.place)), world.intrinsics
    width, height = world.frame_size
    memory = SpatialMemory(world.keyframes)
    for seed in SEEDS:
        path = walk(place, NUM_FRAMES, FPS, seed)
        for first in range(STEP, NUM_FRAMES - ahead, STEP):
            view = View(reached(path[first], path[first + ahead]), lens, width, height)
            own = replace(view, c2w=path[first])
            color = place.render(own.c2w, lens, width, height)
            depth = np.reciprocal(place.depth(own.c2w, lens, width, height)).astype(np.float32)
            frame = DepthFrame(color, depth, own)
            seen = frame.seen_from(view)
            if np.count_nonzero(seen.holes()) < LEAST_HOLES:
                continue
            truth = place.render(view.c2w, lens, width, height)
            around = [
                None,
                *(surroundings(memory, replace(view, c2w=path[first + n])) for n in (0, ahead // 2)),
            ]
            for way, known in zip(WAYS, around, strict=True):
                yield filled(way, frame, seen, view, known, truth)


def reached(own: NDArray[np.float64], live: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pose of a player, no further from a frame's than a frame is moved, [4, 4]."""
    shift = live[:3, 3] - own[:3, 3]
    live = live.copy()
    live[:3, 3] = own[:3, 3] + shift * min(1.0, WITH_MEMORY.move_m / max(float(np.linalg.norm(shift)), 1e-6))
    return live


def surroundings(memory: SpatialMemory, view: View) -> Surroundings:
    rendering = memory.render(0, view.c2w[None], view.intrinsics[None], view.width, view.height)
    return rendering.surroundings(view.c2w, view.intrinsics)


def filled(
    way: str,
    frame: DepthFrame,
    seen: SourceMap,
    view: View,
    known: Surroundings | None,
    truth: NDArray[np.uint8],
) -> Shown:
    if known is not None:
        # What is made ready once for a chunk is not timed.
        known.look(view, np.ones((view.height, view.width), np.bool_))
    start_s = time.perf_counter()
    hidden = behind(frame, seen, view, known)
    took_ms = 1e3 * (time.perf_counter() - start_s)
    assert hidden is not None, "pictures without holes are left out"
    holes = seen.holes() > 0
    patch, taken = hidden
    picture = np.where(taken[..., None] > 0, patch[..., 2::-1], seen.colors(frame.color))
    return Shown(
        way,
        float(holes.mean()),
        psnr(picture[holes], truth[holes]),
        psnr(picture, truth),
        took_ms,
        picture,
        truth,
    )


def sheet(shown: list[Shown]) -> NDArray[np.uint8]:
    """Pictures that are filled most, one a row."""
    triples = [shown[n : n + len(WAYS)] for n in range(0, len(shown), len(WAYS))]
    triples = sorted(triples, key=lambda ways: -ways[0].share)
    chosen = triples[:: max(1, len(triples) // SHEET_ROWS)][:SHEET_ROWS]
    return np.vstack([np.hstack([ways[0].picture, ways[1].picture, ways[0].truth]) for ways in chosen])


if __name__ == "__main__":
    main()
