"""Picture quality by DOVER, in an environment of its own: a clone of its repository with its weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.files.video import open_video
from evaluation.environments.other_python import OtherPython
from evaluation.poses.estimator import Frames

CHUNK_S = 5.0
"""Of the pieces whose scores are averaged (the paper's)."""


class QualityScorer(Protocol):
    """Scores the picture quality of clips."""

    @property
    def needs_gpu(self) -> bool: ...

    def score(self, frames: Frames, fps: float) -> float:
        """Return 0 to 1 for frames [F, H, W, 3].

        Raises:
            ValueError: What scores is not there, or failed.
        """
        ...


@dataclass(frozen=True)
class Dover:
    """A clone of DOVER and the Python that runs it."""

    folder: Path
    """Of the clone, with `dover.yml` and the weights that it names."""
    python: Path
    needs_gpu: bool = True

    def score(self, frames: Frames, fps: float) -> float:
        """Mean over pieces of CHUNK_S; what is left at the end is scored where it is half as long or longer."""
        length = round(CHUNK_S * fps)
        starts = [n for n in range(0, len(frames), length) if n == 0 or len(frames) - n >= length / 2]
        scorer = _scorer(self.folder.resolve(), self.python)
        with tempfile.TemporaryDirectory(prefix="flaneur-dover-") as folder:
            scores = []
            for start in starts:
                path = Path(folder) / f"{start}.mp4"
                height, width = frames.shape[1:3]
                with open_video(path, (width, height), fps) as writer:
                    writer.write(frames[start : start + length])
                scores.append(float(scorer.ask({"video": str(path)})["dover"]))
        return float(np.mean(scores))


@cache
def _scorer(folder: Path, python: Path) -> OtherPython:
    """Start its process once; it ends with this one, whose end of the pipe closes."""
    return OtherPython(python, "dover_scores", "DOVER", {"folder": str(folder)})
