"""A benchmark with a truth: scenes of generated places in SANA-WM-Bench's file layout, and the videos that need no world model.

Scenes have fixed seeds, so the set is the same wherever it is made. Beside what the layout has, the manifest names the place of a
scene: whoever has the holodeck can draw what is truly seen along a track.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.camera.tracks import at_fps, cover, map_intrinsics
from engine.files.atomic import replacing
from engine.files.video import open_video
from evaluation.baselines import first_frame_repeated, first_frame_reprojected
from evaluation.bench_films import BENCH_SIZE
from evaluation.bench_layout import EXPORT_FOLDER, MANIFEST_FILE, PAIRS_FILE, SCENE_LIST, SPLITS, BenchScene
from evaluation.benchmark_tracks import hard_track, simple_track
from evaluation.consistency import revisit_pairs
from evaluation.rollouts import Frames, Poses
from holodeck import Place, get_place
from holodeck.compiled import render_rgbd
from holodeck.generator import generated_name, place_kind

CATEGORIES = {
    "indoor": ("rooms", "hall"),
    "outdoor-city": ("square", "street", "colonnade", "harbour"),
    "outdoor-nature": ("garden", "canyon", "plain"),
    "game": ("mixture", "ruins"),
}
"""Kinds of generated places by category; the categories are the published ones."""
FIRST_SEED = 3_000_000_000
"""Scenes have the first seeds from here on whose places have room for their tracks; nothing is trained on such seeds."""
SCENES_PER_CATEGORY = 20
SIZE = (1280, 720)
LENS = np.array([832.0, 832.0, 640.0, 360.0], np.float32)
"""fx, fy, cx, cy in pixels: 75 degrees across."""
FPS, NUM_FRAMES = 16, 961
LAY = {"simple": simple_track, "hard": hard_track}
KINDS = ("truth", "first-frame", "reprojected")
"""What is truly seen; the first frame for ever; the first frame as seen from every later camera, on flat ground."""


@dataclass(frozen=True, eq=False)
class MadeScene:
    """One scene: its place and the tracks through it."""

    name: str
    category: str
    place: Place
    tracks: dict[str, Poses]
    """By split: camera-to-world, metres, in the place's own frame, [NUM_FRAMES, 4, 4]."""


def choose_scenes(per_category: int = SCENES_PER_CATEGORY) -> Iterator[MadeScene]:
    """Yield so many scenes of every category, category by category; a place without room for its tracks is passed over."""
    for category, kinds in CATEGORIES.items():
        seed, number = FIRST_SEED, 1
        while number <= per_category:
            seed += 1
            if place_kind(seed) not in kinds:
                continue
            place = get_place(generated_name(seed))
            try:
                tracks = {split: lay(place, NUM_FRAMES, FPS, number - 1) for split, lay in LAY.items()}
            except ValueError:
                continue
            yield MadeScene(f"{category}_{number:03d}", category, place, tracks)
            number += 1


def make_bench_set(folder: Path, per_category: int, advance: Callable[[int], None]) -> int:
    """Write the benchmark; a second call writes the same files.

    Args:
        advance: Told how many scenes are written.

    Returns:
        How many scenes there are.
    """
    for name in ("images", SCENE_LIST.parent, *(Path(SPLITS[split][0]) / EXPORT_FOLDER for split in LAY)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in LAY}
    pairs: dict[str, dict[str, object]] = {split: {} for split in LAY}
    names = []
    for done, scene in enumerate(choose_scenes(per_category), 1):
        image = Path("images") / f"{scene.name}.png"
        _write_picture(folder / image, scene.place)
        for split, poses in scene.tracks.items():
            camera = Path(SPLITS[split][0]) / EXPORT_FOLDER / f"{scene.name}.npz"
            _write_track(folder / camera, scene.place, poses)
            rows[split].append(
                {
                    "id": scene.name,
                    "image_path": image.as_posix(),
                    "camera_path": camera.as_posix(),
                    "prompt": scene.place.caption,
                    "scene_type": scene.category,
                    "place": scene.place.name,
                }
            )
            pairs[split][scene.name] = {"evaluation_pairs": _pairs(poses)}
        names.append(scene.name)
        advance(done)
    for split in LAY:
        tracks = folder / SPLITS[split][0]
        with replacing(tracks / MANIFEST_FILE) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
        with replacing(tracks / PAIRS_FILE) as file:
            file.write_text(json.dumps(pairs[split]) + "\n")
    # The list comes last: with it, the set is whole.
    with replacing(folder / SCENE_LIST) as file:
        file.write_text("\n".join(names) + "\n")
    return len(names)


def _write_picture(path: Path, place: Place) -> None:
    picture = place.render(place.spawn, LENS, *SIZE)
    ok, encoded = cv2.imencode(".png", picture[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())


def _write_track(path: Path, place: Place, poses: Poses) -> None:
    """Write a track relative to its first frame, as the published ones are."""
    fx, fy, cx, cy = LENS
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
    intrinsics = np.repeat(matrix[None], len(poses), 0)
    relative = np.linalg.inv(place.spawn) @ poses
    with replacing(path) as file:
        np.savez(file, c2w=relative, intrinsics=intrinsics, fps=FPS, num_frames=len(poses))


def _pairs(poses: Poses) -> list[dict[str, float]]:
    """Revisit pairs of a track, the closest returns first."""
    found = []
    for first, second in revisit_pairs(poses, FPS).tolist():
        apart = float(np.linalg.norm(poses[first, :3, 3] - poses[second, :3, 3]))
        found.append({"frame_i": first, "frame_j": second, "quality_score": round(apart, 4)})
    return sorted(found, key=lambda pair: (pair["quality_score"], pair["frame_i"]))


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
    track = at_fps(scene.track(), float(FPS))
    assert track.intrinsics is not None, "the scene checks its track"
    lens = map_intrinsics(track.intrinsics[:1], BENCH_SIZE, size)[0].astype(np.float32)
    c2w = place.spawn @ track.c2w[: 1 + round(seconds * FPS)]
    with open_video(path, size, float(FPS)) as film:
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
