"""Videos of holodeck places, each rendered to disk once: an array of frames and one of poses."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import holodeck
from engine.files.atomic import replacing
from holodeck import Place, get_place
from holodeck.compiled import render_rgbd
from training.data.clip import Clip, ClipRejected, LeftOut
from training.data.clip_quality import BLANK_FRAMES, EMPTY_TILES, blank_share
from training.data.holodeck import families
from training.data.holodeck.families import draw_poses

T = TypeVar("T")


@dataclass(frozen=True)
class RenderJob:
    """One video to render."""

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
        settings, code = asdict(self), rendering_code()
        if (self.family, self.revisit) == ("walk", False):
            # Walks were drawn before there were families; their videos keep their names.
            del settings["family"], settings["revisit"]
        else:
            code += Path(families.__file__).read_bytes()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + code)
        return f"{self.place}-{self.seed:05d}-{digest.hexdigest()[:8]}"


@cache
def rendering_code() -> bytes:
    """Hash of everything that decides what a walk looks like."""
    digest = hashlib.sha256()
    for file in sorted(Path(holodeck.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.digest()


def is_rendered(job: RenderJob, directory: Path) -> bool:
    """Whether a walk lies in `directory`, whole."""
    return (directory / f"{job.stem}.c2w.npy").exists()


def render_walk(job: RenderJob, directory: Path) -> Path:
    """Render one video to `directory`, unless it is there already.

    Returns:
        Path of the poses, [F, 4, 4] float64; frames, [F, H, W, 3] uint8, lie beside them as `*.frames.npy`.

    Raises:
        ClipRejected: The place has no room for the camera family.
    """
    poses_path = directory / f"{job.stem}.c2w.npy"
    if is_rendered(job, directory):
        return poses_path
    place = get_place(job.place)
    poses = draw_poses(job.family, place, job.num_frames, job.fps, job.seed, job.revisit)
    intrinsics = np.array(job.intrinsics, np.float32)
    frames = np.stack([render_rgbd(place, c2w, intrinsics, job.width, job.height)[0] for c2w in poses])
    save_array(directory / f"{job.stem}.frames.npy", frames)
    # The poses are written last: their presence says that the frames are whole.
    save_array(poses_path, poses)
    return poses_path


def render_walks(jobs: Sequence[RenderJob], directory: Path, num_workers: int) -> Iterator[Path | None]:
    """Render many videos in parallel; yields each as it is finished, None where its place has no room for it."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not is_rendered(job, directory)]
    if not missing:
        return
    yield from in_parallel([partial(_render_if_possible, job, directory) for job in missing], num_workers)


def in_parallel(calls: Sequence[Callable[[], T]], num_workers: int) -> Iterator[T]:
    """Make calls in processes, one alone in this process; yields what each returns as it is done."""
    if num_workers == 1:
        yield from (call() for call in calls)
        return
    # Forked workers would hold this process's locks and could wait for its threads for ever.
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), _work_for_parent)
    try:
        for future in as_completed([pool.submit(call) for call in calls]):
            yield future.result()
    finally:
        # What was not begun is dropped.
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


def caption(place: Place) -> str:
    """What a place looks like, in its own words."""
    return f"{place.title}. {place.caption}"


def rendered_clip(job: RenderJob, directory: Path) -> Clip:
    """Open a rendered video as a clip; its frames stay on the disk until they are read."""
    frames, poses = load_walk(job, directory)
    place = get_place(job.place)
    return Clip(
        name=job.label,
        source="holodeck",
        scene=job.place,
        caption=caption(place),
        c2w=poses,
        intrinsics=np.tile(np.array(job.intrinsics), (len(poses), 1)),
        frame_size=(job.width, job.height),
        fps=float(job.fps),
        frames=frames,
    )


class HolodeckClips:
    """Videos of holodeck places as a source of clips; those not rendered yet are when they are asked for."""

    name = "holodeck"

    def __init__(self, jobs: Sequence[RenderJob], directory: Path, most_empty: float = EMPTY_TILES) -> None:
        """Prepare; a frame is nearly blank where more than `most_empty` of its tiles are empty."""
        self.jobs, self.directory, self.most_empty = jobs, directory, most_empty
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Clip:
        """Render or open one video.

        Raises:
            ClipRejected: The place has no room for the camera family, or hardly anything is to be seen.
        """
        job = self.jobs[index]
        self.directory.mkdir(parents=True, exist_ok=True)
        render_walk(job, self.directory)
        clip = rendered_clip(job, self.directory)
        assert clip.frames is not None, "a rendered clip has frames"
        if (share := blank_share(clip.frames, self.most_empty)) > BLANK_FRAMES:
            raise ClipRejected(f"{job.label} is nearly blank in {share:.0%} of its frames")
        return clip

    def label(self, index: int) -> str:
        return self.jobs[index].label

    def content(self, index: int) -> str:
        """Name of all that a video is drawn and judged from."""
        stem = self.jobs[index].stem
        return stem if self.most_empty == EMPTY_TILES else f"{stem} {self.most_empty}"


def family_jobs(
    places: Sequence[str],
    camera_families: Sequence[str],
    num_clips: int,
    revisit_share: float,
    video: RenderJob,
) -> list[RenderJob]:
    """Spread clips evenly over places and families.

    Args:
        num_clips: In all.
        revisit_share: Share of clips, in [0, 1], whose camera comes back the way it went.
        video: Length, size, rate, lens and first seed of every clip.
    """
    jobs = []
    for n in range(num_clips):
        # Diagonally, so that a few clips already show every place and every family.
        row, column = divmod(n, len(places))
        place, family = places[column], camera_families[(row + column) % len(camera_families)]
        seed = video.seed + n
        revisit = bool(np.random.default_rng([seed, 1]).random() < revisit_share)
        jobs.append(replace(video, place=place, family=family, seed=seed, revisit=revisit))
    return jobs
