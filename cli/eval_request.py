"""What every kind of `flaneur eval` is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class TracksChoice(StrEnum):
    """The way that a rollout takes."""

    WALKS = "walks"
    SIMPLE = "simple"
    HARD = "hard"


@dataclass(frozen=True)
class Asked:
    """What every kind of evaluation is told."""

    tracks: TracksChoice
    walks: int | None
    """Tracks of each world, or scenes of each category; None for one track, or all scenes."""
    seconds: float
    metrics: tuple[str, ...] | None
    """None for all."""
    output: Path
    overwrite: bool
    as_json: bool
    pyiqa_python: Path | None = None
    vbench_python: Path | None = None
