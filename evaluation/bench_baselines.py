"""Videos that need no world model, for a benchmark with a truth: the ceiling and the baselines of its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.camera.tracks import at_fps, cover, map_intrinsics
from engine.files.video import open_video
from evaluation.baselines import first_frame_repeated, first_frame_reprojected
from evaluation.bench_films import BENCH_SIZE
from evaluation.bench_layout import BenchScene
from evaluation.film_reading import FPS
from evaluation.rollouts import Frames
from holodeck import get_place
from holodeck.compiled import render_rgbd

KINDS = ("truth", "first-frame", "reprojected")
"""What is truly seen; the first frame for ever; the first frame as seen from every later camera, on flat ground."""


def write_baseline(scene: BenchScene, kind: str, path: Path, size: tuple[int, int], seconds: float) -> None:
    """Write the video of one scene.

    Args:
        kind: One of KINDS.
        size: Width and height in pixels.

    Raises:
        ValueError: The scene has no truth.
    """
    if scene.place is None:
        raise ValueError(
            f"{scene.name} was not drawn from a holodeck place; take a set of `flaneur bench-set make`"
        )
    place = get_place(scene.place)
    track = at_fps(scene.track(), FPS)
    assert track.intrinsics is not None, "the scene checks its track"
    lens = map_intrinsics(track.intrinsics[:1], BENCH_SIZE, size)[0].astype(np.float32)
    c2w = place.spawn @ track.c2w[: 1 + round(seconds * FPS)]
    with open_video(path, size, FPS) as film:
        if kind == "truth":
            for pose in c2w:
                film.write(render_rgbd(place, pose, lens, *size)[0][None])
            return
        first = _first_frame(scene.image, size)
        if kind == "first-frame":
            film.write(
                np.ascontiguousarray(first_frame_repeated(np.broadcast_to(first, (len(c2w), *first.shape))))
            )
        else:
            film.write(first_frame_reprojected(first, c2w, lens))


def _first_frame(path: Path, size: tuple[int, int]) -> Frames:
    """A scene's picture, covering `size` and cropped about its centre, [H, W, 3]."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; make the set again")
    height, width = picture.shape[:2]
    resized, (left, top) = cover((width, height), size)
    fitted = np.asarray(cv2.resize(picture, resized, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(fitted[top : top + size[1], left : left + size[0], ::-1])


def write_baselines(
    scenes: Sequence[BenchScene],
    kind: str,
    folder: Path,
    size: tuple[int, int],
    seconds: float,
    advance: Callable[[int], None],
) -> int:
    """Write the videos of scenes that are not there yet; returns how many were written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for done, scene in enumerate(scenes, 1):
        path = folder / f"{scene.name}.mp4"
        if not path.exists():
            write_baseline(scene, kind, path, size, seconds)
            written += 1
        advance(done)
    return written
