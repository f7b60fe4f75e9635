"""Walks through holodeck places as training data: rendered once, and encoded once by each autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holodeck import place_names
from model.config import ModelConfig
from model.vae.guided import GuidedAutoencoder
from training.data.clip import FPS
from training.data.holodeck.rendering import RenderJob, is_rendered, render_walks
from training.data.latents import LatentWalk, encode_walks
from training.progress import RecipeProgress

RENDERING = "rendering walks"
"""Name of the phase."""
INTRINSICS = (208.0, 208.0, 160.0, 96.0)
"""fx, fy, cx, cy in pixels: 75 degrees across 320 pixels."""


@dataclass(frozen=True)
class WalkSettings:
    """Which walks there are."""

    places: tuple[str, ...] = ()
    """Of the holodeck; all where empty."""
    num_walks: int = 13
    """For each place."""
    num_autoencoder_walks: int = 4
    """For each place, of those, what an autoencoder is trained on."""
    walk_frames: int = 961
    """One minute each."""
    intrinsics: tuple[float, float, float, float] = INTRINSICS


class WalkSet:
    """The walks of one run folder."""

    def __init__(self, settings: WalkSettings, config: ModelConfig, folder: Path) -> None:
        """Prepare; `config` says how large frames are, `folder` gets frames, poses and latents."""
        self.settings, self.config, self.folder = settings, config, folder
        self.places = list(settings.places) or place_names()

    def jobs(self, seeds: range | None = None) -> list[RenderJob]:
        """Walks to render, one for each seed in every place; the set's own where None."""
        size = self.config.frame_width, self.config.frame_height
        frames, intrinsics = self.settings.walk_frames, self.settings.intrinsics
        chosen = range(self.settings.num_walks) if seeds is None else seeds
        return [
            RenderJob(place, seed, frames, *size, FPS, intrinsics) for seed in chosen for place in self.places
        ]

    def render(
        self, progress: RecipeProgress, num_workers: int, num_walks: int | None = None
    ) -> list[RenderJob]:
        """Render the first walks of each place that are missing; all where None."""
        jobs = self.jobs(None if num_walks is None else range(num_walks))
        if missing := [job for job in jobs if not is_rendered(job, self.folder)]:
            for _ in progress.over(RENDERING, render_walks(missing, self.folder, num_workers), len(missing)):
                pass
        return jobs

    def encode(
        self, autoencoder: GuidedAutoencoder, progress: RecipeProgress, phase: str
    ) -> list[LatentWalk]:
        """Encode all walks, which must be rendered, where that was not done before."""
        jobs = self.jobs()
        return list(
            progress.over(phase, encode_walks(jobs, self.places, autoencoder, self.folder), len(jobs))
        )
