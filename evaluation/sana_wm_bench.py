"""Rollouts from SANA-WM-Bench's images along its tracks, scored by revisits and sharpness and written as videos."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.camera.tracks import at_fps, map_intrinsics
from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.video import open_video
from engine.files.world import World
from engine.machine.hardware import peak_memory_bytes
from engine.session.opening import open_session
from engine.session.picture_world import DepthOf
from evaluation.baselines import MODEL
from evaluation.bench_costs import COSTS_FILE, Cost, write_costs
from evaluation.bench_layout import BenchScene, category_of
from evaluation.bench_progress import identity
from evaluation.consistency import SETTLED_S, WINDOW_S, Revisits, score_revisits, sharpness
from evaluation.image_metrics import Measure
from evaluation.rollouts import Frames, Poses, Progress, num_chunks, stream
from evaluation.scores import contact_sheet, table
from evaluation.worlds import begin_world
from model.vae.guided import GuidedAutoencoder

TABLE_FILE, ROWS = "bench.json", "scenes"
"""Of an evaluation: the scores, and the field of its JSON object that holds them."""
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
    cost: Cost
    made_by: str
    """Hash of all that it depends on."""

    @property
    def key(self) -> str:
        """Name of the row within its table."""
        return self.scene


@dataclass(frozen=True)
class BenchModel:
    """What rolls scenes out."""

    bundle: Bundle
    known: Sequence[World]
    """Worlds of the same weights."""
    autoencoder: GuidedAutoencoder
    read: ReadPicture
    depth_of: DepthOf | None = None
    """Tells the depth of a picture; None asks the decoder."""

    def begin(self, scene: BenchScene) -> tuple[World, Poses]:
        """Begin a world with a scene's picture; returns it and the poses of its track at the model's rate, [F, 4, 4]."""
        track = at_fps(scene.track(), self.bundle.spec.fps)
        assert track.intrinsics is not None, "the scene checks its track"
        width, height = self.known[0].frame_size
        frame, source_size = self.read(scene.image, width, height)
        lens = map_intrinsics(track.intrinsics[:1], source_size, (width, height))[0].astype(np.float32)
        world = begin_world(
            scene.name, frame, track.c2w[0], lens, self.known, self.autoencoder, self.depth_of
        )
        return world, track.c2w


def scene_identities(
    bundle: Bundle, scenes: Sequence[BenchScene], seconds: float, measures: Sequence[Measure]
) -> dict[str, str]:
    """What a score of each scene is made by: weights, graphs, picture, track and options."""
    common = bundle.spec.model_dump_json(), seconds, [measure.name for measure in measures]
    return {scene.name: identity(*common, files=(scene.image, scene.trajectory)) for scene in scenes}


def measure_scene(
    model: BenchModel,
    scene: BenchScene,
    seconds: float,
    measures: Sequence[Measure],
    made_by: str,
    progress: Progress,
) -> tuple[BenchScore, Frames]:
    """Roll a scene out for at most so long and compare its video with itself; returns the video too, [F, H, W, 3]."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    world, poses = model.begin(scene)
    session = open_session(world, model.bundle)
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
    cost = Cost(
        video_s=(len(frames) - 1) / fps,
        wall_s=time.perf_counter() - started_s,
        cpu_s=time.process_time() - started_cpu_s,
        peak_memory_bytes=peak_memory_bytes(),
    )
    start = min(round(SETTLED_S * fps), len(frames) - 1)
    window = max(1, min(round(WINDOW_S * fps), (len(frames) - start) // 2))
    ends = (frames[start : start + window : 2], frames[-window::2])
    own = max(sharpness(frames[:1]), 1e-6)
    score = BenchScore(
        scene=scene.name,
        category=category_of(scene.name),
        seconds=(len(frames) - 1) / fps,
        revisit=score_revisits({MODEL: frames}, poses, fps, measures),
        sharpness=(sharpness(ends[0]) / own, sharpness(ends[1]) / own),
        cost=cost,
        made_by=made_by,
    )
    return score, frames


def evaluate_bench(
    model: BenchModel,
    scenes: Sequence[BenchScene],
    measures: Sequence[Measure],
    folder: Path,
    seconds: float,
    earlier: Mapping[str, BenchScore],
    progress: Progress,
) -> list[BenchScore]:
    """Measure scenes one after another; `folder` gets tables and a contact sheet of each, whole after every scene.

    Args:
        earlier: What an earlier call measured, by scene; where the video is still there it is not made again.
        progress: Told how many chunks are made, of `bench_chunks` for each scene.
    """
    films = folder / FILMS_FOLDER
    films.mkdir(parents=True, exist_ok=True)
    made_by = scene_identities(model.bundle, scenes, seconds, measures)
    spec, each = model.bundle.spec, bench_chunks(model.bundle, seconds)
    scores: list[BenchScore] = []
    for number, scene in enumerate(scenes):
        path, known = films / f"{scene.name}.mp4", earlier.get(scene.name)
        if known is not None and path.is_file():
            scores.append(known)
            progress((number + 1) * each)
            continue
        score, video = measure_scene(
            model,
            scene,
            seconds,
            measures,
            made_by[scene.name],
            lambda n, before=number * each: progress(before + n),
        )
        with open_video(path, model.known[0].frame_size, spec.fps) as film:
            film.write(video)
        contact_sheet([video], spec.fps, folder / f"{scene.name}.png")
        scores.append(score)
        _write_tables(folder, scores, [earlier[s.name] for s in scenes[number + 1 :] if s.name in earlier])
    _write_tables(folder, scores, [])
    return scores


def _write_tables(folder: Path, scores: Sequence[BenchScore], to_come: Sequence[BenchScore]) -> None:
    """Write what is measured; `to_come` was measured by an earlier call and is not lost when this one is stopped."""
    rows = {ROWS: [asdict(score) for score in (*scores, *to_come)]}
    with replacing(folder / TABLE_FILE) as file:
        file.write_text(json.dumps(rows, indent=1) + "\n")
    with replacing(folder / "bench.md") as file:
        file.write_text(bench_table(scores) + "\n")
    write_costs(folder / FILMS_FOLDER / COSTS_FILE, [score.cost for score in (*scores, *to_come)])


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
