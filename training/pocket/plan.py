"""What making the pocket world takes: every step, its numbers, what lies on the disk already, and the minutes that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch

from model.vae.guided import load_autoencoder_weights
from training.checkpoint import read_values
from training.data.clip import FPS
from training.data.latents import weights_tag
from training.loop import LoopConfig
from training.pocket.build import checked_start
from training.pocket.clip_jobs import Job
from training.pocket.publish import CHECKPOINTS, STAGED_PREFIX
from training.pocket.recipe import (
    AUTOENCODER,
    DECODER,
    DEPTH,
    GENERATOR,
    OWN_HISTORY,
    UNLIMITED_STEPS,
    PocketStage,
)
from training.pocket.run import (
    CLIPS,
    ENCODING,
    KEYFRAMES,
    MEASURING,
    PUBLISHING,
    ROLLING_OUT,
    VIEWS,
    PocketRun,
)
from training.progress import as_duration

KEYFRAMES_S = 100.0
"""Choosing and rendering one place's keyframes."""
RENDERED_PER_S, ENCODED_PER_S, ROLLED_OUT_PER_S = 9.0, 60.0, 120.0
"""Frames of 320x192 on one core; rendering includes the memory's."""
VIEWED_PER_S = 12.0
"""Pictures with depth on one core."""
PUBLISHING_S, MEASURED_WALK_S = 90.0, 60.0
"""Exporting the pocket; generating, rendering and encoding a held-out walk. On two cores."""


SKIPPED_MARK = "skipped: "
"""Stands before the reason."""
SKIPPED = f"{SKIPPED_MARK}the recipe gives it no time"


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    name: str
    purpose: str
    numbers: dict[str, Any]
    on_disk: str
    left_s: float | None
    """None where only steps say when a stage ends and none was taken yet."""


def make_plan(run: PocketRun) -> list[Step]:
    """List the steps of a run in their order.

    Raises:
        ValueError: The folder holds a training that began with other weights.
    """
    # Where a publishing was killed there may be no weights until the run mends it.
    start = run.start_from
    if start is None or (start / CHECKPOINTS).is_dir() or not any(start.glob(f"{STAGED_PREFIX}*")):
        checked_start(run)
    own = {name: _stage(run, name, stage) for name, stage in run.stages.items()}
    return [
        _keyframes(run),
        _clips(run),
        own[AUTOENCODER],
        _encoding(run),
        own[GENERATOR],
        own[OWN_HISTORY],
        _rolling_out(run),
        own[DECODER],
        *_views(run),
        own[DEPTH],
        *_ending(run),
    ]


def expected_s(plan: list[Step]) -> dict[str, float]:
    """Seconds that each phase will take, for progress bars; what is unknown counts as nothing."""
    return {step.name: step.left_s or 0.0 for step in plan}


def _keyframes(run: PocketRun) -> Step:
    done, missing = _standing_of(run, run.keyframe_jobs())
    numbers = {"places": len(run.places), "most_per_place": run.recipe.placement.most}
    left_s = missing * KEYFRAMES_S / torch.get_num_threads()
    return Step(KEYFRAMES, "place keyframes where they show most", numbers, f"{done} places", left_s)


def _clips(run: PocketRun) -> Step:
    done, missing = _standing_of(run, run.clip_jobs())
    counts = run.recipe.counts
    numbers = {
        "per_place": counts.files * counts.clips_per_file,
        "generated_places": counts.generated_places,
        "frames": run.recipe.clips.num_frames,
    }
    left_s = missing * _frames_of_file(run) / (RENDERED_PER_S * torch.get_num_threads())
    return Step(CLIPS, "render walks and what a memory shows of them", numbers, f"{done} files", left_s)


def _views(run: PocketRun) -> list[Step]:
    jobs, counts = run.view_jobs(), run.recipe.counts
    if not jobs:
        return []
    done, missing = _standing_of(run, jobs)
    numbers = {
        "places": counts.viewed_places,
        "still_lifes": counts.still_lifes,
        "per_place": counts.views_per_place,
    }
    left_s = (
        missing * counts.viewed_per_file * counts.views_per_place / (VIEWED_PER_S * torch.get_num_threads())
    )
    return [Step(VIEWS, "render pictures with their depth", numbers, f"{done} files", left_s)]


def _standing_of(run: PocketRun, jobs: Sequence[Job]) -> tuple[str, int]:
    """How many jobs are done, for people, and how many are missing."""
    missing = sum(not job.is_made(run.data) for job in jobs)
    return f"{len(jobs) - missing} of {len(jobs)}", missing


def _frames_of_file(run: PocketRun) -> float:
    return run.recipe.counts.clips_per_file * run.recipe.clips.num_frames


def _encoding(run: PocketRun) -> Step:
    jobs, num_done = run.clip_jobs(), 0
    if run.autoencoder_path.exists():
        tag = weights_tag(load_autoencoder_weights(run.autoencoder_path))
        num_done = sum(run.latents_path(job, tag).exists() for job in jobs)
    left_s = 2 * (len(jobs) - num_done) * _frames_of_file(run) / (ENCODED_PER_S * torch.get_num_threads())
    numbers = {"latent_channels": run.autoencoder_config.latent_channels}
    done = f"{num_done} of {len(jobs)} files"
    return Step(ENCODING, "clips and renderings to latents, each once", numbers, done, left_s)


def _rolling_out(run: PocketRun) -> Step:
    loop, jobs = run.stages[DECODER].loop, run.clip_jobs()
    numbers = {"timesteps": list(run.recipe.timesteps)}
    step = Step(ROLLING_OUT, "generate every clip again, each once", numbers, "made when it is needed", 0.0)
    if loop.progress(0, 0.0) >= 1.0:
        return replace(step, on_disk=SKIPPED)
    left_s = len(jobs) * _frames_of_file(run) / (ROLLED_OUT_PER_S * torch.get_num_threads())
    return replace(step, left_s=left_s)


def _stage(run: PocketRun, name: str, stage: PocketStage) -> Step:
    loop, optimizer = stage.loop, stage.optimizer
    numbers: dict[str, Any] = {}
    if math.isfinite(loop.max_minutes):
        numbers["minutes"] = round(loop.max_minutes, 2)
    if loop.num_steps != UNLIMITED_STEPS:
        numbers["steps"] = loop.num_steps
    numbers |= {"batch": stage.batch_size, "adam_lr": optimizer.adam_lr}
    if optimizer.min_side < run.config.hidden_size:
        numbers["muon_lr"] = optimizer.muon_lr
    if run.start_from is not None and name == AUTOENCODER:
        return Step(name, stage.purpose, numbers, f"{SKIPPED_MARK}taken from {run.start_from}", 0.0)
    return _standing(Step(name, stage.purpose, numbers, "", None), loop, run.directory)


def _standing(step: Step, loop: LoopConfig, directory: Path) -> Step:
    """Say how far a stage has come."""
    if loop.max_minutes == 0 or loop.num_steps == 0:
        return replace(step, on_disk=SKIPPED, left_s=0.0)
    on_disk, taken, trained_s, finished = "not begun", 0, 0.0, False
    path = directory / f"{step.name}.state.safetensors"
    if path.exists():
        state = read_values(path)
        taken, trained_s, finished = state["step"], state["trained_s"], state["finished"]
        on_disk = f"{'finished, ' if finished else ''}{taken} steps in {as_duration(trained_s)}"
    left_s = 0.0 if finished else loop.left_s(taken, trained_s)
    return replace(step, on_disk=on_disk, left_s=left_s if math.isfinite(left_s) else None)


def _ending(run: PocketRun) -> list[Step]:
    num_walks = run.recipe.num_measured_walks * len(run.places)
    numbers = {"timesteps": list(run.recipe.timesteps), "worlds": len(run.places)}
    return [
        Step(PUBLISHING, "bundle, checkpoints and worlds", numbers, "made anew each time", PUBLISHING_S),
        Step(
            MEASURING,
            "held-out walks beside the truth, and the report",
            {"walks_per_place": run.recipe.num_measured_walks, "fps": FPS},
            "made anew each time",
            num_walks * MEASURED_WALK_S,
        ),
    ]


def as_json(run: PocketRun, plan: list[Step]) -> dict[str, Any]:
    """The plan as JSON values."""
    left_s = sum(step.left_s or 0.0 for step in plan)
    return {
        "runs": str(run.directory),
        "model": run.config.to_dict(),
        "steps": [asdict(step) for step in plan],
        "left_s": round(left_s, 1),
    }


def as_text(plan: list[Step], width: int) -> str:
    """The plan for people, in lines of so many characters; what is skipped comes last, by its reason."""
    left_s = sum(step.left_s or 0.0 for step in plan)
    at_least = "at least" if any(step.left_s is None for step in plan) else "about"
    skipped: dict[str, list[str]] = {}
    rows = [("step", "on disk", "left", "")]
    for step in plan:
        if step.on_disk.startswith(SKIPPED_MARK):
            skipped.setdefault(step.on_disk.removeprefix(SKIPPED_MARK), []).append(step.name)
            continue
        left = "unknown" if step.left_s is None else as_duration(step.left_s)
        numbers = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in step.numbers.items())
        rows.append((step.name, step.on_disk, left, f"{step.purpose}: {numbers}"))
    names, disks, lefts = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"The pocket world: {at_least} {as_duration(left_s)} left", ""]
    for name, on_disk, left, told in rows:
        lines.append(f"{name:<{names}}  {on_disk:<{disks}}  {left:>{lefts}}")
        lines += wrap(told, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    for why, its in skipped.items():
        lines += ["", *wrap(f"skipped ({why}): {', '.join(its)}", width, break_on_hyphens=False)]
    return "\n".join(lines)
