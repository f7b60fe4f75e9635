"""The pocket's recipe: its data, its stages in their order, and the numbers of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from training.data.holodeck.walk_set import WalkSettings
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.precision import PrecisionName

UNLIMITED_STEPS = 1_000_000


@dataclass(frozen=True)
class Batches:
    """How much of the data a step of each stage takes."""

    autoencoder_crops: int = 10
    crop: tuple[int, int] = (48, 80)
    """Height and width in pixels."""
    autoencoder_frames: int = 4
    memory_tokens: int = 24576
    pose_windows: int = 10
    pose_window: int = 5
    """Latents of a window, without the first."""
    rollouts: int = 144
    """Under way at the same time."""
    rollouts_per_step: int = 12


@dataclass(frozen=True)
class PocketStage:
    """One stage of the recipe."""

    purpose: str
    batch_size: int
    loop: LoopConfig
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class PocketRecipe:
    """How the pocket world is made; minutes are of training, on whatever machine this is."""

    walks: WalkSettings = field(default_factory=WalkSettings)
    num_glimpsed_walks: int = 84
    """Further walks per place, of which the generator sees sparse frames."""
    autoencoder_minutes: float = 20.0
    """On crops."""
    autoencoder_whole_minutes: float = 14.0
    """Then on whole frames."""
    memory_minutes: float = 80.0
    """Generator, token by token: places learned by heart."""
    pose_minutes: float = 0.0
    """Generator, whole pictures, mostly from pose and scene alone: tokens learn to hear one another. None by default, nor for
    what follows: minutes of either changed nothing that shows, and each is worth more to the memory (`docs/log.md`)."""
    self_forcing_minutes: float = 0.0
    """Generator on its own frames."""
    num_steps: int = UNLIMITED_STEPS
    """At which every stage ends, even if minutes are left."""
    batches: Batches = field(default_factory=Batches)
    timesteps: tuple[int, ...] = (1000,)
    """Step schedule that the last stage trains and the bundle plays."""
    precision: PrecisionName | None = None
    """What stages compute in; None measures what is fastest for each."""
    save_every_s: float = 120.0
    num_measured_walks: int = 3
    """Held-out walks per place."""
    measured_s: float = 15.0
    """Length of each, seconds."""
    seed: int = 0

    def scaled(self, minutes: float) -> PocketRecipe:
        """The same recipe with all training times in proportion, `minutes` in total.

        Raises:
            ValueError: The recipe counts steps, not minutes.
        """
        names = [name for name in self.__dataclass_fields__ if name.endswith("_minutes")]
        total = sum(getattr(self, name) for name in names)
        if not math.isfinite(total):
            raise ValueError(f"minutes is {minutes:g}, but this recipe counts steps; say --steps instead")
        factor = minutes / total
        return replace(self, **{name: getattr(self, name) * factor for name in names})

    def stages(self) -> dict[str, PocketStage]:
        """All stages by name, in their order."""
        gentle = OptimizerConfig(muon_lr=0.002, adam_lr=5e-4)
        brisk = OptimizerConfig(muon_lr=0.04, adam_lr=2e-3, weight_decay=0.05, ema_decay=0.98)
        fast, slow = OptimizerConfig(muon_lr=0.03, adam_lr=2e-3), OptimizerConfig(muon_lr=0.005, adam_lr=4e-4)
        batches = self.batches
        return {
            "autoencoder": PocketStage(
                "reconstruct crops of frames",
                batches.autoencoder_crops,
                self._loop(self.autoencoder_minutes, 0.95, 0.15),
                fast,
            ),
            "autoencoder-whole": PocketStage(
                "reconstruct whole frames",
                batches.autoencoder_frames,
                self._loop(self.autoencoder_whole_minutes, 1.0, 0.01),
                slow,
            ),
            "memory": PocketStage(
                "learn places by heart, token by token",
                batches.memory_tokens,
                self._loop(self.memory_minutes, 0.6, 0.01),
                brisk,
            ),
            "generator-pose": PocketStage(
                "let the tokens of whole pictures hear one another",
                batches.pose_windows,
                self._loop(self.pose_minutes, 0.7, 0.4),
                gentle,
            ),
            "self-forcing": PocketStage(
                "walk on its own frames",
                batches.rollouts_per_step,
                self._loop(self.self_forcing_minutes, 0.8, 0.01),
                gentle,
            ),
        }

    def _loop(self, minutes: float, decay: float, final_lr: float) -> LoopConfig:
        return LoopConfig(
            self.num_steps,
            minutes,
            decay=decay,
            final_lr=final_lr,
            save_every_s=self.save_every_s,
            log_every=min(20, max(1, self.num_steps // 10)),
            precision=self.precision,
        )
