"""Settings of every stage: data, lengths, rates, noise and rollouts; `presets` has the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model.config import ModelConfig
from model.refiner import RefinerConfig
from model.refiner.streaming import BLOCK_SIZE, SIGMAS
from model.sampler import STREAMING_TIMESTEPS
from model.vae.depth import DepthConfig
from model.vae.guided import GuidedAutoencoderConfig
from training.data.batches import Cut
from training.data.holodeck.walk_set import WalkSettings
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.stages.noise import ONE_LEVEL, ChunkMixture
from training.stages.table import STAGES


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
class RefiningConfig:
    """How a refiner is made."""

    network: RefinerConfig
    rank: int | None = None
    """Of adapters on a network that is there already; None trains all weights of a new one."""
    num_pairs: int = 0
    """Clips that the first stage makes again before the stage begins."""
    timesteps: tuple[float, ...] = STREAMING_TIMESTEPS
    """Steps of the first stage in them."""
    sigmas: tuple[float, ...] = SIGMAS
    """Where sampling starts, and what each of its steps leads to; training knows the first alone."""
    block_size: int = BLOCK_SIZE
    fps: float = 16.0
    degraded_share: float = 0.25
    """Of samples in which a clip of less detail stands for what the first stage made."""
    rough_history: float = 0.25
    """Chance that what was refined before is the first stage's: a refiner's own is never quite the truth."""


@dataclass(frozen=True)
class StageConfig:
    """One stage."""

    stage: str
    """What the command line and files call it."""
    data: str
    num_latent_frames: int
    """Latents of a clip, the conditioning one included."""
    batch_size: int
    """Clips a step, over all processes."""
    optimizer: OptimizerConfig
    loop: LoopConfig
    context_parallel: int = 1
    """Processes that share one clip."""
    cut: Cut = "front"
    """What is taken of longer clips of a set; walks of the pocket world are cut anywhere."""
    crop: tuple[int, int] | None = None
    """Height and width in pixels that an autoencoder's clips are cut to; whole frames where None."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    distillation: DistillationConfig | None = None
    refining: RefiningConfig | None = None
    quantization: Literal["nvfp4", "fp8", "int8"] | None = None
    """Precision of the student's large layers."""
    seed: int = 3407


@dataclass(frozen=True)
class Preset:
    """The stages at one size."""

    name: str
    model: ModelConfig
    """Of the finished world model."""
    stages: Mapping[str, StageConfig]
    autoencoder: GuidedAutoencoderConfig
    base_autoencoder: GuidedAutoencoderConfig
    """Of the base model, which the swap replaces."""
    walks: WalkSettings | None
    """Training data where none is named; None where some must be."""
    best_share: float = 0.25
    """Of the walks, for the fine-tuning on the best."""
    trains_what_is_needed: bool = False
    """Whether the stages before are trained too where their checkpoints are missing, since that takes seconds."""
    one_clip_at_a_time: bool = False
    """Whether a process takes the clips of a step one after another, since they do not fit side by side."""
    depth: DepthConfig = field(default_factory=DepthConfig)
    """Of the network that tells the depth of single pictures."""

    def stage(self, name: str) -> StageConfig:
        """Return a stage.

        Raises:
            ValueError: There is no such stage, or it is not trained at this size.
        """
        if name not in STAGES:
            raise ValueError(f"there is no stage {name}; choose one of {', '.join(STAGES)}")
        if name not in self.stages:
            raise ValueError(
                f"{self.name} does not train {name}: it takes a released model; use --preset pocket for it"
            )
        return self.stages[name]
