"""Held-out walks through worlds, with the truth beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from engine.files.bundle import Bundle
from engine.files.world import World, list_worlds, read_world
from engine.machine.assets import worlds_dir
from evaluation.ceiling import reconstruct
from evaluation.evaluating import EvaluationPlan, evaluate
from evaluation.rollouts import HELD_OUT_SEED, place_of
from evaluation.table import EvaluationReport
from export.rollouts import Scene
from model.vae.pocket import Autoencoder
from training.data.holodeck.walks import walk

PICTURE_METRICS = ("psnr", "gmsd")
"""Measured at the end of a training: they need no library and no time to speak of."""


def evaluate_worlds(
    bundle: Bundle,
    worlds: Path,
    report: Path,
    autoencoder: Autoencoder,
    walks: int = 3,
    seconds: float = 15.0,
    metrics: tuple[str, ...] = PICTURE_METRICS,
    progress: Callable[[float], None] | None = None,
) -> EvaluationReport:
    """Measure every world of a folder that fits a bundle on held-out walks; see `evaluation.evaluating.evaluate`.

    Args:
        progress: Told which share is done.
    """
    found = tuple((world, place_of(world)) for world in fitting_worlds(bundle.spec.weights_sha256, worlds))
    plan = EvaluationPlan("walks", walk, found, walks, seconds, metrics)
    num_steps = plan.num_steps(bundle.spec.fps, bundle.spec.chunk_size * bundle.spec.temporal_stride)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done / num_steps)

    return evaluate(bundle, plan, report, lambda frames: reconstruct(autoencoder, frames), tell)


def held_out_scenes(weights_sha256: str, num_frames: int, fps: float) -> list[Scene]:
    """Draw one walk through every shipped world of a model.

    Raises:
        ValueError: There is no such world.
    """
    fitting = fitting_worlds(weights_sha256)
    if not fitting:
        raise ValueError(
            "no world here was made for the bundle's weights; quality can be measured for the pocket bundle"
        )
    return [held_out_scene(world, num_frames, fps) for world in fitting]


def fitting_worlds(weights_sha256: str, folder: Path | None = None) -> list[World]:
    """Return the worlds of a folder, the shipped ones by default, that were made for some weights."""
    entries = list_worlds([folder or worlds_dir()])
    worlds = [read_world(entry.path) for entry in entries if not entry.problem]
    return [world for world in worlds if world.info.model == weights_sha256]


def held_out_scene(world: World, num_frames: int, fps: float, seed: int = HELD_OUT_SEED) -> Scene:
    """Draw a walk that nothing was trained on.

    Raises:
        ValueError: The world was not made from a holodeck place.
    """
    place = place_of(world)
    height, width = world.first_frame.shape[:2]
    return Scene(
        name=world.name,
        first_latent=torch.from_numpy(world.first_latent)[None, :, None],
        text=torch.from_numpy(world.text)[None],
        text_mask=torch.from_numpy(world.text_mask)[None],
        intrinsics=world.intrinsics,
        c2w=walk(place, num_frames, round(fps), seed),
        render=lambda c2w: place.render(c2w, world.intrinsics, width, height),
    )
