"""SANA-WM-Bench: its file layout, and rollouts from its images along its tracks, scored by revisits and sharpness.

Poses of these rollouts are not recovered: that takes the depth of a place, which is known for holodeck places alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.camera.formats.track_files import load_track
from engine.camera.tracks import Track, at_fps, map_intrinsics
from engine.files.atomic import replacing
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.session.opening import open_session
from evaluation.baselines import MODEL
from evaluation.consistency import SETTLED_S, WINDOW_S, Revisits, score_revisits, sharpness
from evaluation.image_metrics import Measure
from evaluation.rollouts import Frames, Poses, Progress, num_chunks, stream
from evaluation.scores import contact_sheet, table
from evaluation.worlds import begin_world
from model.vae.guided import GuidedAutoencoder

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


SPLITS = {
    "simple": ("benchmark_v2_smooth_60s", "simple_60s"),
    "hard": ("benchmark_v2_hard_60s", "hard_60s"),
}
"""Folders of each split; the first that is there is taken."""
EXPORT_FOLDER = "sanawm_export_v2"
SCENE_LIST = Path("scene_set") / "kept_scenes.txt"
MAX_LIST_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*_[0-9]{1,6}")
"""Of a scene: its category, which may hold underscores, and a number."""


@dataclass(frozen=True)
class BenchScene:
    """One first frame and the track that is to be followed from it."""

    name: str
    image: Path
    trajectory: Path

    @property
    def category(self) -> str:
        """Such as `outdoor-nature` or `game_style`."""
        return category_of(self.name)

    def track(self) -> Track:
        """Read the track.

        Raises:
            ValueError: It is damaged, or lacks intrinsics or frame rate.
        """
        track = load_track(self.trajectory)
        if track.intrinsics is None or track.fps is None:
            raise ValueError(f"{self.trajectory} lacks intrinsics or fps; take the file as it is published")
        return track


def read_bench(folder: Path, split: str) -> tuple[list[BenchScene], list[str]]:
    """List the scenes of a split.

    Returns:
        Scenes in the order of their list, and the names of those whose image or track is missing.

    Raises:
        ValueError: The folder is not laid out like the benchmark, or no scene is whole.
    """
    tracks = next((folder / name for name in SPLITS[split] if (folder / name).is_dir()), None)
    if tracks is None:
        raise ValueError(
            f"{folder} has no folder {SPLITS[split][0]}; name the folder SANA-WM-Bench was put into"
        )
    scenes, broken = [], []
    for name in _names(folder / SCENE_LIST):
        image, trajectory = folder / "images" / f"{name}.png", tracks / EXPORT_FOLDER / f"{name}.npz"
        if image.is_file() and trajectory.is_file():
            scenes.append(BenchScene(name, image, trajectory))
        else:
            broken.append(name)
    if not scenes:
        raise ValueError(
            f"no scene in {folder / SCENE_LIST} has both an image and a track; fetch the files again"
        )
    return scenes, broken


def category_of(name: str) -> str:
    """Return the category of a scene: what stands before its number."""
    return name.rpartition("_")[0]


def _names(path: Path) -> list[str]:
    """Read the list of scenes; a name is checked, since it becomes part of a path."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise ValueError(f"{path} is too long for a list of scenes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text; it lists one scene a line") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if bad := next((name for name in names if not NAME.fullmatch(name)), None):
        raise ValueError(f"{path} names the scene {bad[:80]!r}; names look like outdoor-city_001")
    return list(dict.fromkeys(names))


def first_of_each(scenes: Sequence[BenchScene], count: int) -> list[BenchScene]:
    """Return the first `count` scenes of every category, in their order."""
    taken: Counter[str] = Counter()
    chosen = []
    for scene in scenes:
        taken[scene.category] += 1
        if taken[scene.category] <= count:
            chosen.append(scene)
    return chosen
