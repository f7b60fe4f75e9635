"""Annotation by Ray: the same files as by one process, a killed worker included."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")
pytest.importorskip("ray")

from evaluation.poses.estimator import CameraEstimate
from tests.test_annotation import GivenCameras, no_bar, plan_for, small_encoder
from tests.test_annotation import films as films
from training.data.annotation import ray_runner
from training.data.annotation.annotate import annotate
from training.data.annotation.ray_runner import in_ray

pytestmark = [
    pytest.mark.slow,
    # Ray's own shutdown leaves sockets and processes to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@dataclass(frozen=True)
class Killed(GivenCameras):
    """Kills its own worker the first time that it is asked."""

    marker: str = ""

    def __repr__(self) -> str:
        # Results must not depend on who judged them.
        return repr(GivenCameras())

    def estimate(self, frames: np.ndarray, fps: float, lens: np.ndarray | None = None) -> CameraEstimate:
        path = Path(self.marker)
        if not path.exists():
            path.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().estimate(frames, fps, lens)


def set_files(folder: Path) -> dict[str, bytes]:
    """Everything that a set holds but for how long each step took."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "seconds" not in path.parts
    }


def test_two_workers_one_of_them_killed_make_the_files_that_one_process_makes(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Ray's workers give way to everything else, and on a busy machine they would never begin.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    alone = plan_for(films, tmp_path / "alone" / "set")
    annotate(alone, small_encoder(), no_bar)
    marker = tmp_path / "marker"
    shared = plan_for(films, tmp_path / "shared" / "set", Killed(marker=str(marker)))
    done = annotate(shared, small_encoder(), no_bar, in_ray("local", 2))
    assert marker.read_text() == "killed"
    assert [clip.kept for clip in done.clips].count(True) == 2
    assert set_files(shared.folder) == set_files(alone.folder)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("local", "take --workers without --ray"), ("10.0.0.1:6379", "no Ray cluster answers")],
)
def test_ray_that_does_not_start_is_one_sentence(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    def broken(**options: object) -> None:
        raise Exception("The node timed out.\nmore")

    monkeypatch.setattr(ray_runner.ray, "init", broken)
    with pytest.raises(ValueError, match=sentence):
        next(iter(in_ray(address, 2)([])))
