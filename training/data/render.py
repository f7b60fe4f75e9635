"""Films of holodeck places, each rendered to disk once: an array of frames and one of poses."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import holodeck
from engine.files.atomic import replacing
from evaluation import clearance
from holodeck import get_place
from training.data import families, walks
from training.data.clip import ClipRejected
from training.data.families import draw_poses


@dataclass(frozen=True)
class RenderJob:
    """One film to render."""

    place: str
    seed: int
    num_frames: int
    width: int
    height: int
    fps: int
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels."""
    family: str = "walk"
    """Camera family, one of `families.FAMILIES`."""
    revisit: bool = False
    """Whether the camera comes back the way it went."""

    @property
    def label(self) -> str:
        """Name within the set, for people."""
        return f"{self.place}-{self.family}-{self.seed:05d}{'-back' if self.revisit else ''}"

    @property
    def stem(self) -> str:
        """File name without ending; changes with every setting and with the code that draws, so stale files are never read."""
        settings, code = asdict(self), _drawing_code()
        if (self.family, self.revisit) == ("walk", False):
            # Walks were drawn before there were families; their films keep their names.
            del settings["family"], settings["revisit"]
        else:
            code += Path(families.__file__).read_bytes() + Path(clearance.__file__).read_bytes()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + code)
        return f"{self.place}-{self.seed:05d}-{digest.hexdigest()[:8]}"


@cache
def _drawing_code() -> bytes:
    """Hash of everything that decides what a walk looks like."""
    digest = hashlib.sha256(Path(walks.__file__).read_bytes())
    for file in sorted(Path(holodeck.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


def is_drawn(job: RenderJob, directory: Path) -> bool:
    """Whether a walk lies in `directory`, whole."""
    return (directory / f"{job.stem}.c2w.npy").exists()


def render_walk(job: RenderJob, directory: Path) -> Path:
    """Render one film to `directory`, unless it is there already.

    Returns:
        Path of the poses, [F, 4, 4] float64; frames, [F, H, W, 3] uint8, lie beside them as `*.frames.npy`.

    Raises:
        ClipRejected: The place has no room for the camera family.
    """
    poses_path = directory / f"{job.stem}.c2w.npy"
    if is_drawn(job, directory):
        return poses_path
    place = get_place(job.place)
    poses = draw_poses(job.family, place, job.num_frames, job.fps, job.seed, job.revisit)
    intrinsics = np.array(job.intrinsics, np.float32)
    frames = np.stack([place.render(c2w, intrinsics, job.width, job.height) for c2w in poses])
    save_array(directory / f"{job.stem}.frames.npy", frames)
    # The poses are written last: their presence says that the frames are whole.
    save_array(poses_path, poses)
    return poses_path


def render_walks(jobs: Sequence[RenderJob], directory: Path, num_workers: int) -> Iterator[Path | None]:
    """Render many films in parallel; yields each as it is finished, None where its place has no room for it."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not is_drawn(job, directory)]
    if not missing:
        return
    with worker_pool(num_workers) as pool:
        futures = [pool.submit(_render_if_possible, job, directory) for job in missing]
        for future in as_completed(futures):
            yield future.result()


@contextmanager
def worker_pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes; what was not begun when it closes is dropped."""
    # Forked workers would hold this process's locks and could wait for its threads for ever.
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), _work_for_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _work_for_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it, even where it is killed and can say nothing any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None, "only called in workers"

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _render_if_possible(job: RenderJob, directory: Path) -> Path | None:
    try:
        return render_walk(job, directory)
    except ClipRejected:
        return None


def load_walk(job: RenderJob, directory: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Open a rendered walk: frames (memory-mapped) [F, H, W, 3] and poses [F, 4, 4]."""
    frames = np.load(directory / f"{job.stem}.frames.npy", mmap_mode="r", allow_pickle=False)
    return frames, np.load(directory / f"{job.stem}.c2w.npy", allow_pickle=False)


def save_array(path: Path, array: NDArray) -> None:
    """Write an array whole or not at all.

    Raises:
        ValueError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        np.save(temporary, array, allow_pickle=False)
