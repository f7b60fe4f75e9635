"""What a benchmark's videos cost to make: time by the clock, processor time, memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.files.atomic import replacing

COSTS_FILE = "costs.json"
"""Beside a folder's videos."""
MAX_COSTS_BYTES = 1 << 16
HOUR_S = 3600.0


@dataclass(frozen=True)
class Cost:
    """Of one video, from its picture to its last frame."""

    video_s: float
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int | None
    """Of the whole process; None where the system does not say."""


class Costs(BaseModel):
    """Of a folder of videos, by whatever model; every field may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    videos_per_hour: float | None = None
    """By the clock."""
    videos_per_cpu_hour: float | None = None
    """By the time of one core."""
    seconds_per_video: float | None = None
    """Length of a video."""
    peak_memory_bytes: int | None = None
    """Of the GPU where there is one, else of the process."""


def write_costs(path: Path, costs: Sequence[Cost]) -> None:
    """Write the means of videos that were made, beside them."""
    if not costs:
        return
    peaks = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    made = Costs(
        videos_per_hour=HOUR_S * len(costs) / sum(cost.wall_s for cost in costs),
        videos_per_cpu_hour=HOUR_S * len(costs) / max(sum(cost.cpu_s for cost in costs), 1e-9),
        seconds_per_video=sum(cost.video_s for cost in costs) / len(costs),
        peak_memory_bytes=max(peaks, default=None),
    )
    with replacing(path) as file:
        file.write_text(made.model_dump_json(indent=1) + "\n")


def read_costs(folder: Path) -> Costs:
    """Read what the videos of a folder cost; nothing where nothing says so.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / COSTS_FILE
    if not path.is_file():
        return Costs()
    try:
        with path.open("rb") as file:
            return Costs.model_validate(json.loads(file.read(MAX_COSTS_BYTES)))
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise ValueError(
            f"{path} is no JSON object with {', '.join(Costs.model_fields)}; write it again or remove it"
        ) from error
