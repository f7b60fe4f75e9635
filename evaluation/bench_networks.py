"""What networks of other environments say of a benchmark's videos: MUSIQ, LPIPS of revisits, VBench."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.environments.other_python import OtherPython
from evaluation.film_reading import read_frames

VBENCH_DIMENSIONS = (
    "subject_consistency", "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
    "imaging_quality",
)  # fmt: skip
"""Of VBench's, those that take any video; the other three of the paper's nine compare with VBench's own pictures."""


@dataclass(frozen=True)
class NetworkScores:
    """What networks say of one video; empty where they were not asked."""

    musiq: tuple[float, float] | None = None
    """Imaging quality of the first and of the last window, 0 to 100."""
    lpips: float | None = None
    """Mean over revisit pairs; None where there are no pairs."""
    vbench: dict[str, float] = field(default_factory=dict)
    """By dimension, 0 to 1."""


@dataclass(frozen=True)
class Networks:
    """Those that are asked."""

    pyiqa: OtherPython | None = None
    vbench: OtherPython | None = None

    @property
    def names(self) -> list[str]:
        """What a score depends on."""
        return [name for name, asked in (("pyiqa", self.pyiqa), ("vbench", self.vbench)) if asked is not None]

    def score(
        self, path: Path, windows: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]]
    ) -> NetworkScores:
        """Ask for the scores of a video at its own size.

        Args:
            windows: Numbers of the frames of the first and the last window, at the benchmark's rate.
            pairs: Numbers of the frames of revisits.

        Raises:
            ValueError: An environment lacks what it needs, or a network failed.
        """
        musiq, lpips, vbench = None, None, {}
        if self.pyiqa is not None:
            wanted = sorted({n for window in windows for n in window} | {n for pair in pairs for n in pair})
            row = {number: at for at, number in enumerate(wanted)}
            with tempfile.TemporaryDirectory(prefix="flaneur-frames-") as folder:
                frames = Path(folder) / "frames.npy"
                np.save(frames, read_frames(path, wanted))
                answer = self.pyiqa.ask(
                    {
                        "frames": str(frames),
                        "windows": [[row[n] for n in window] for window in windows],
                        "pairs": [[row[i], row[j]] for i, j in pairs],
                    }
                )
            first, last = answer["musiq"]
            musiq, lpips = (float(first), float(last)), answer["lpips"]
        if self.vbench is not None:
            vbench = self.vbench.ask({"video": str(path.resolve())})["scores"]
        return NetworkScores(musiq, lpips, vbench)


@contextmanager
def open_networks(pyiqa_python: Path | None, vbench_python: Path | None) -> Iterator[Networks]:
    """Name the environments of networks; their processes end with the block."""
    pyiqa = None if pyiqa_python is None else OtherPython(pyiqa_python, "pyiqa_scores", "pyiqa")
    dimensions = {"dimensions": list(VBENCH_DIMENSIONS)}
    vbench = (
        None if vbench_python is None else OtherPython(vbench_python, "vbench_scores", "vbench", dimensions)
    )
    try:
        yield Networks(pyiqa, vbench)
    finally:
        for asked in (pyiqa, vbench):
            if asked is not None:
                asked.close()
