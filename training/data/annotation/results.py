"""What became of one clip, kept on the disk so that a stopped annotation goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.files.array_files import read_npz
from engine.files.atomic import replacing

MAX_RESULT_BYTES = 1 << 20
MAX_CAMERA_ELEMENTS = 1 << 24
CLIPS_FOLDER, SECONDS_FOLDER = "clips", "seconds"
"""Of a set: what became of each clip, and how long each took, which alone differs between two runs."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ClipResult(BaseModel):
    """What became of one clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    settings: str
    """Hash of everything that the result depends on."""
    key: str
    source: str
    start_s: Finite
    end_s: Finite
    num_frames: int
    reasons: list[str]
    """Why it is rejected; empty where it is kept."""
    scores: dict[str, Finite]
    method: str = ""
    """Which solution its poses are."""
    scale_from: str = ""
    """What says how long the unit of its poses is."""
    caption: str = ""

    @property
    def kept(self) -> bool:
        return not self.reasons


class StepSeconds(BaseModel):
    """How long each step of a clip took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_s: dict[str, float]
    """By the clock."""
    cpu_s: dict[str, float]
    """Of processors, which other work on the machine does not change."""


def result_path(folder: Path, key: str) -> Path:
    """Where the result of a clip lies in a set."""
    return folder / CLIPS_FOLDER / f"{key}.json"


def camera_path(folder: Path, key: str) -> Path:
    """Where the cameras of a clip lie: `c2w` [F, 4, 4], `intrinsics` [F, 4] in pixels of the source, `size`, `fps`, `start_s`."""
    return folder / CLIPS_FOLDER / f"{key}.npz"


def picture_path(folder: Path, key: str) -> Path:
    """Where a strip of a clip's frames lies."""
    return folder / CLIPS_FOLDER / f"{key}.jpg"


def read_result(folder: Path, key: str) -> ClipResult | None:
    """Read what became of a clip; None where nothing whole is there."""
    path = result_path(folder, key)
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            return None
        return ClipResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_result(folder: Path, result: ClipResult, seconds: StepSeconds) -> None:
    """Write what became of a clip; it comes last of the clip's files and says that they are whole."""
    (folder / SECONDS_FOLDER).mkdir(parents=True, exist_ok=True)
    with replacing(folder / SECONDS_FOLDER / f"{result.key}.json") as file:
        file.write_text(seconds.model_dump_json() + "\n")
    with replacing(result_path(folder, result.key)) as file:
        file.write_text(result.model_dump_json(indent=1) + "\n")


def write_camera(
    folder: Path,
    key: str,
    c2w: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
    size: tuple[int, int],
    fps: float,
    start_s: float,
) -> None:
    """Write the cameras of a clip, whole or not at all."""
    with replacing(camera_path(folder, key)) as file:
        np.savez(file, c2w=c2w, intrinsics=intrinsics, size=np.array(size), fps=fps, start_s=start_s)


def read_camera(folder: Path, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Read the cameras of a clip: poses [F, 4, 4], intrinsics [F, 4], and the size these are in pixels of."""
    arrays = read_npz(camera_path(folder, key), ("c2w", "intrinsics", "size"), (), MAX_CAMERA_ELEMENTS)
    width, height = (int(side) for side in arrays["size"])
    return arrays["c2w"].astype(np.float64), arrays["intrinsics"].astype(np.float64), (width, height)


def read_seconds(folder: Path, key: str) -> StepSeconds:
    """Read how long each step of a clip took; empty where nothing says so."""
    try:
        return StepSeconds.model_validate_json((folder / SECONDS_FOLDER / f"{key}.json").read_bytes())
    except (OSError, ValidationError):
        return StepSeconds(wall_s={}, cpu_s={})


def digest(*parts: object) -> str:
    """Hash what a result depends on; parts are told by their text."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:16]
