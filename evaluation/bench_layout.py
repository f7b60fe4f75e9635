"""SANA-WM-Bench's file layout: scenes, their pictures, tracks, prompts and revisit pairs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.camera.formats.track_files import load_track
from engine.camera.tracks import Track
from holodeck import has_place

SPLITS = {
    "simple": ("benchmark_v2_smooth_60s", "simple_60s"),
    "hard": ("benchmark_v2_hard_60s", "hard_60s"),
}
"""Folders of each split; the first that is there is taken."""
EXPORT_FOLDER = "sanawm_export_v2"
MANIFEST_FILE, PAIRS_FILE = "manifest.jsonl", "scene_trajectories_v2.json"
"""Beside the tracks of a split: rows of id, image_path, camera_path, prompt, scene_type; and revisit pairs by scene."""
MAX_MANIFEST_BYTES = 1 << 26
PAIRS_COUNTED = 5
"""Of a scene's evaluation pairs, the first by quality."""
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
    prompt: str = ""
    place: str | None = None
    """Holodeck place that the scene was drawn from; None where nobody has a truth."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Frames that see the same again, the published choice of them; empty where they are found in the track."""

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
    rows, pairs = _manifest(folder, tracks), _pairs(folder, tracks)
    scenes, broken = [], []
    for name in _names(folder / SCENE_LIST):
        image, trajectory = folder / "images" / f"{name}.png", tracks / EXPORT_FOLDER / f"{name}.npz"
        if image.is_file() and trajectory.is_file():
            row = rows.get(name, {})
            place = row.get("place")
            prompt = str(row.get("prompt", ""))
            place = place if isinstance(place, str) and has_place(place) else None
            scenes.append(BenchScene(name, image, trajectory, prompt, place, pairs.get(name, ())))
        else:
            broken.append(name)
    if not scenes:
        raise ValueError(
            f"no scene in {folder / SCENE_LIST} has both an image and a track; fetch the files again"
        )
    return scenes, broken


def _manifest(folder: Path, tracks: Path) -> dict[str, dict[str, Any]]:
    """Rows of the manifest by scene, JSON lines or one list; empty where there is none."""
    path = next(
        (place / MANIFEST_FILE for place in (tracks, folder) if (place / MANIFEST_FILE).is_file()), None
    )
    if path is None:
        return {}
    text = _small_text(path)
    try:
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(row) for row in text.splitlines() if row]
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON lines; fetch it again") from error
    return {str(row["id"]): row for row in rows if isinstance(row, dict) and "id" in row}


def _pairs(folder: Path, tracks: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """The pairs of frames that count, by scene; empty where no file has any."""
    path = next((place / PAIRS_FILE for place in (tracks, folder) if (place / PAIRS_FILE).is_file()), None)
    if path is None:
        return {}
    try:
        scenes = json.loads(_small_text(path))
        return {
            name: tuple(
                (int(pair["frame_i"]), int(pair["frame_j"]))
                for pair in sorted(scene["evaluation_pairs"], key=lambda pair: float(pair["quality_score"]))[
                    :PAIRS_COUNTED
                ]
            )
            for name, scene in scenes.items()
        }
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} has no evaluation pairs by scene; remove it to find pairs in the tracks"
        ) from error


def _small_text(path: Path) -> str:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"{path} is over {MAX_MANIFEST_BYTES >> 20} MB; it is no manifest")
    return path.read_text(encoding="utf-8-sig")


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
