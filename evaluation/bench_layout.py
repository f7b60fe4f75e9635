"""The file layout of SANA-WM-Bench: first frames, scene names, and one camera track per scene and split.

    images/NAME.png
    scene_set/kept_scenes.txt
    benchmark_v2_smooth_60s/sanawm_export_v2/NAME.npz      the simple split
    benchmark_v2_hard_60s/sanawm_export_v2/NAME.npz        the hard split

Names end in a number: what is before it is the category. The splits also hold `scene_trajectories_v2.json` and
`run_manifest.jsonl`; their keys are not documented and they are not read. Revisit pairs are found in the tracks instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.camera.formats.track_files import load_track
from engine.camera.tracks import Track

SPLITS = {
    "simple": ("benchmark_v2_smooth_60s", "simple_60s"),
    "hard": ("benchmark_v2_hard_60s", "hard_60s"),
}
"""Folders of each split; the first that is there is taken."""
EXPORT_FOLDER = "sanawm_export_v2"
SCENE_LIST = Path("scene_set") / "kept_scenes.txt"
MAX_LIST_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*_[0-9]{1,6}")


@dataclass(frozen=True)
class BenchScene:
    """One first frame and the track that is to be followed from it."""

    name: str
    image: Path
    trajectory: Path

    @property
    def category(self) -> str:
        """Such as `outdoor-nature`."""
        return self.name.rpartition("_")[0]

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


def _names(path: Path) -> list[str]:
    """Read the list of scenes; a name is checked, since it becomes part of a path."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise ValueError(f"{path} is too long for a list of scenes")
        text = path.read_text(encoding="utf-8")
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
