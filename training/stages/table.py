"""The table of stages, in the order of the paper: what each does, what it starts from, its loss.

`builders` has a function for each. The command line reads this table, so it needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["bidirectional", "chunk_causal"]
RECONSTRUCTION = "reconstruction: Charbonnier, squares, gradients, 4x4 means, KL"
VELOCITY = "mean square error of the velocity, noise - x0"
CLEAN_ESTIMATE = "mean square error of the clean estimate"
REFINING = "mean square error of the velocity, from the first stage's latents and noise to the target"
QUANTISED = "square error of the quantised student's velocity, over the square of its own in full precision"
MATCHING = "distribution matching for the student, flow matching for the critic"
TEACHER = "best-clips"
"""Stage whose model, which is bidirectional, teaches the distilled ones."""


@dataclass(frozen=True)
class Stage:
    """One stage, whatever its size."""

    name: str
    purpose: str
    starts_from: str | None
    """Stage whose weights it takes over, or whose model makes a refiner's pairs; None starts from random ones."""
    loss: str
    mode: Mode = "bidirectional"
    """Attention mask of whole clips; students are rolled out chunk by chunk beside it."""

    @property
    def is_autoencoder(self) -> bool:
        return self.loss == RECONSTRUCTION

    @property
    def is_refiner(self) -> bool:
        return self.loss == REFINING

    @property
    def is_quantised(self) -> bool:
        return self.loss == QUANTISED

    @property
    def is_distribution_matching(self) -> bool:
        return self.loss == MATCHING


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "base-autoencoder",
            "train the causal autoencoder of the base model, on crops of videos",
            None,
            RECONSTRUCTION,
        ),
        Stage(
            "base",
            "train a camera-blind model with cumulative linear attention to start from",
            None,
            VELOCITY,
        ),
        Stage("autoencoder", "train the causal autoencoder that stays", None, RECONSTRUCTION),
        Stage(
            "autoencoder-swap",
            "adapt the model to that autoencoder: new patch embedding and output projection, all is trained",
            "base",
            VELOCITY,
        ),
        Stage(
            "framewise-gdn",
            "replace cumulative linear attention by frame-wise gated delta nets",
            "autoencoder-swap",
            VELOCITY,
        ),
        Stage(
            "hybrid-attention",
            "make every 4th block a softmax block that keeps its projections",
            "framewise-gdn",
            VELOCITY,
        ),
        Stage(
            "minute-camera",
            "lengthen clips and add both camera branches, zero-initialised",
            "hybrid-attention",
            VELOCITY,
        ),
        Stage(TEACHER, "fine-tune on the best clips", "minute-camera", VELOCITY),
        Stage(
            "chunk-causal",
            "attend to the own and earlier chunks alone, with a noise level for each chunk",
            TEACHER,
            VELOCITY,
            "chunk_causal",
        ),
        Stage(
            "ode-regression",
            "learn in few steps where the teacher's trajectories end",
            "chunk-causal",
            CLEAN_ESTIMATE,
            "chunk_causal",
        ),
        Stage(
            "self-forcing-short",
            "match the teacher's distribution on own rollouts, with every chunk cached",
            "ode-regression",
            MATCHING,
        ),
        Stage(
            "self-forcing-long",
            "the same at full length, with a sink and a window cached",
            "self-forcing-short",
            MATCHING,
        ),
        Stage(
            "qad",
            "teach the student under NVFP4 what it says in full precision, on its own rollouts",
            "self-forcing-long",
            QUANTISED,
            "chunk_causal",
        ),
        Stage(
            "refiner",
            "train the second stage on clips that the first stage made again",
            "self-forcing-long",
            REFINING,
        ),
    )
}
"""All stages by name."""
