"""What every stage of training is given: data, lengths, rates, noise and rollouts; `stage_presets` has the figures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.stages.noise import ONE_LEVEL, ChunkMixture

Cut = Literal["front", "anywhere"]
"""Latents of a clip that is longer than a stage wants: those it begins with, or its first and some from anywhere behind."""


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels of flow matching."""

    mixture: ChunkMixture = ONE_LEVEL
    shift: float = 9.95
    """Pushes levels towards full noise; the more tokens a frame has, the further."""
    image_conditioning: float = 0.9
    """Chance that a clip's first frame is given: clean, and no part of the loss."""
    caption_dropout: float = 0.1
    """Chance that a clip's text is the null caption, so that guidance has something to push away from."""


@dataclass(frozen=True)
class DistillationConfig:
    """How a few-step student is made and judged."""

    timesteps: tuple[int, ...] = (1000, 967, 908, 764)
    """The student's steps; 0 follows."""
    teacher_steps_between: int = 15
    """Euler steps of the teacher between two of them."""
    guidance: float = 3.0
    """Of the teacher: r + guidance (r - r_null)."""
    num_trajectories: int = 0
    """Clips whose trajectories are stored before regression begins."""
    generator_every: int = 5
    """The critic learns at every step, the student at every one of these."""
    critic: OptimizerConfig = field(default_factory=OptimizerConfig)
    score_shift: float = 10.0
    score_range: tuple[float, float] = (20.0, 980.0)
    """Least and greatest timestep at which student and critic are compared with the teacher."""
    num_cached_chunks: int | None = None
    """Past chunks that softmax blocks keep, the sink included; all where None, without a sink."""
    sink: bool = False


@dataclass(frozen=True)
class StageConfig:
    """One stage."""

    stage: str
    """What the command line and files call it."""
    purpose: str
    starts_from: str | None
    """Stage whose weights it takes over; None begins with random ones."""
    data: str
    num_latent_frames: int
    """Latents of a clip, the conditioning one included."""
    batch_size: int
    """Clips a step, over all processes."""
    optimizer: OptimizerConfig
    loop: LoopConfig
    loss: str
    context_parallel: int = 1
    """Processes that share one clip."""
    cut: Cut = "front"
    """What is taken of longer clips of a set; walks of the pocket world are cut anywhere."""
    crop: tuple[int, int] | None = None
    """Height and width in pixels that an autoencoder's clips are cut to; whole frames where None."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    distillation: DistillationConfig | None = None
    seed: int = 3407

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an unlimited time is None."""
        values = asdict(self)
        if math.isinf(self.loop.max_minutes):
            values["loop"]["max_minutes"] = None
        return values
