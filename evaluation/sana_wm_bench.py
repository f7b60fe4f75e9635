"""Rollouts from SANA-WM-Bench's images along its tracks, scored by revisits and sharpness and written as videos."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.camera.tracks import at_fps, map_intrinsics
from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.video import open_video
from engine.files.world import World
from engine.session.opening import open_session
from evaluation.baselines import MODEL
from evaluation.bench_layout import BenchScene, category_of
from evaluation.consistency import SETTLED_S, WINDOW_S, Revisits, score_revisits, sharpness
from evaluation.image_metrics import Measure
from evaluation.rollouts import Frames, Poses, Progress, num_chunks, stream
from evaluation.scores import contact_sheet, table
from evaluation.worlds import begin_world
from model.vae.guided import GuidedAutoencoder

FILMS_FOLDER = "films"
"""Of an evaluation: a video of each scene, as `flaneur eval --films` takes them."""
ReadPicture = Callable[[Path, int, int], tuple[Frames, tuple[int, int]]]
"""(path, width, height) -> the picture fitted to that size by covering and cropping, [H, W, 3], and its own width and height."""


@dataclass(frozen=True)
class BenchScore:
    """What one scene came to."""

    scene: str
    category: str
    seconds: float
    revisit: Revisits
    sharpness: tuple[float, float]
    """Of the first and the last window, over that of the first frame."""


def begin_scene(
    scene: BenchScene, fps: float, known: Sequence[World], autoencoder: GuidedAutoencoder, read: ReadPicture
) -> tuple[World, Poses]:
    """Begin a world with a scene's picture; returns it and the poses of its track at a frame rate, [F, 4, 4]."""
    track = at_fps(scene.track(), fps)
    assert track.intrinsics is not None, "the scene checks its track"
    width, height = known[0].frame_size
    frame, source_size = read(scene.image, width, height)
    intrinsics = map_intrinsics(track.intrinsics[:1], source_size, (width, height))[0]
    world = begin_world(scene.name, frame, track.c2w[0], intrinsics.astype(np.float32), known, autoencoder)
    return world, track.c2w


def measure_scene(
    bundle: Bundle,
    world: World,
    poses: Poses,
    seconds: float,
    measures: Sequence[Measure],
    progress: Progress,
) -> tuple[BenchScore, Frames]:
    """Roll a scene out for at most so long and compare its video with itself; returns the video too, [F, H, W, 3]."""
    session = open_session(world, bundle)
    try:
        length, fps = session.frames_per_chunk, session.fps
        chunks = min(num_chunks(seconds, fps, length), (len(poses) - 1) // length)
        poses = poses[: 1 + chunks * length]
        video = [world.first_frame[None]]
        for chunk in stream(session, poses, 0):
            video.append(chunk)
            progress(len(video) - 1)
    finally:
        session.close()
    frames = np.concatenate(video)
    start = min(round(SETTLED_S * fps), len(frames) - 1)
    window = max(1, min(round(WINDOW_S * fps), (len(frames) - start) // 2))
    ends = (frames[start : start + window : 2], frames[-window::2])
    own = max(sharpness(frames[:1]), 1e-6)
    score = BenchScore(
        scene=world.name,
        category=category_of(world.name),
        seconds=(len(frames) - 1) / fps,
        revisit=score_revisits({MODEL: frames}, poses, fps, measures),
        sharpness=(sharpness(ends[0]) / own, sharpness(ends[1]) / own),
    )
    return score, frames


def evaluate_bench(
    bundle: Bundle,
    scenes: Sequence[BenchScene],
    known: Sequence[World],
    autoencoder: GuidedAutoencoder,
    read: ReadPicture,
    measures: Sequence[Measure],
    folder: Path,
    seconds: float,
    progress: Progress,
) -> list[BenchScore]:
    """Measure scenes one after another; `folder` gets tables and a contact sheet of each, whole after every scene.

    Args:
        progress: Told how many chunks are made, of `bench_chunks` for each scene.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[BenchScore] = []
    for scene in scenes:
        before = len(scores) * bench_chunks(bundle, seconds)
        world, poses = begin_scene(scene, bundle.spec.fps, known, autoencoder, read)
        score, video = measure_scene(
            bundle, world, poses, seconds, measures, lambda n, before=before: progress(before + n)
        )
        scores.append(score)
        films = folder / FILMS_FOLDER
        films.mkdir(exist_ok=True)
        with open_video(films / f"{scene.name}.mp4", known[0].frame_size, bundle.spec.fps) as film:
            film.write(video)
        contact_sheet([video], bundle.spec.fps, folder / f"{scene.name}.png")
        with replacing(folder / "bench.json") as file:
            file.write_text(json.dumps([asdict(each) for each in scores], indent=1) + "\n")
        with replacing(folder / "bench.md") as file:
            file.write_text(bench_table(scores) + "\n")
    return scores


def bench_chunks(bundle: Bundle, seconds: float) -> int:
    """Chunks of one scene."""
    return num_chunks(seconds, bundle.spec.fps, bundle.spec.frames_per_chunk)


def bench_table(scores: Sequence[BenchScore]) -> str:
    """Format scores as a Markdown table, one row per category and one for all."""
    measures = list(dict.fromkeys(m for s in scores for video in s.revisit.scores.values() for m in video))
    groups = {
        name: [s for s in scores if s.category == name] for name in dict.fromkeys(s.category for s in scores)
    }
    rows = []
    for name, group in (groups | {"all": list(scores)}).items():
        likeness = [s.revisit.scores[MODEL] for s in group if s.revisit.num_pairs]
        cells = [f"{np.mean([each[m] for each in likeness]):.3f}" if likeness else "" for m in measures]
        first, last = np.mean([s.sharpness for s in group], axis=0)
        pairs = sum(s.revisit.num_pairs for s in group)
        rows.append([name, str(len(group)), str(pairs), *cells, f"{first:.2f} -> {last:.2f}"])
    columns = ("category", "scenes", "revisits", *(f"{m} of revisits" for m in measures), "sharpness")
    return "\n".join(table(columns, rows))
