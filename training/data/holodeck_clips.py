"""Films of holodeck places as a source of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from holodeck import Place, get_place
from training.data.clip import Clip, ClipRejected, LeftOut
from training.data.judging import BLANK_FRAMES, blank_share
from training.data.render import RenderJob, load_walk, render_walk


def caption(place: Place) -> str:
    """What a place looks like, in its own words."""
    return f"{place.title}. {place.caption}"


def rendered_clip(job: RenderJob, directory: Path) -> Clip:
    """Open a rendered film as a clip; its frames stay on the disk until they are read."""
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
    """Films of holodeck places as a source of clips; those not rendered yet are when they are asked for."""

    name = "holodeck"

    def __init__(self, jobs: Sequence[RenderJob], directory: Path) -> None:
        self.jobs, self.directory = jobs, directory
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Clip:
        """Render or open one film.

        Raises:
            ClipRejected: The place has no room for the camera family, or hardly anything is to be seen.
        """
        job = self.jobs[index]
        self.directory.mkdir(parents=True, exist_ok=True)
        render_walk(job, self.directory)
        clip = rendered_clip(job, self.directory)
        assert clip.frames is not None, "a rendered clip has frames"
        if (share := blank_share(clip.frames)) > BLANK_FRAMES:
            raise ClipRejected(f"{job.label} is nearly blank in {share:.0%} of its frames")
        return clip

    def label(self, index: int) -> str:
        return self.jobs[index].label

    def content(self, index: int) -> str:
        """Name of all that a film is drawn from."""
        return self.jobs[index].stem


def family_jobs(
    places: Sequence[str],
    camera_families: Sequence[str],
    num_clips: int,
    revisit_share: float,
    film: RenderJob,
) -> list[RenderJob]:
    """Spread clips evenly over places and families.

    Args:
        num_clips: In all.
        revisit_share: Share of clips, in [0, 1], whose camera comes back the way it went.
        film: Length, size, rate, lens and first seed of every clip.
    """
    jobs = []
    for n in range(num_clips):
        # Diagonally, so that a few clips already show every place and every family.
        row, column = divmod(n, len(places))
        place, family = places[column], camera_families[(row + column) % len(camera_families)]
        seed = film.seed + n
        revisit = bool(np.random.default_rng([seed, 1]).random() < revisit_share)
        jobs.append(replace(film, place=place, family=family, seed=seed, revisit=revisit))
    return jobs
