"""The pocket's recipe: its data, its stages in their order, and the numbers of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.pocket.clips import ClipSettings
from training.pocket.keyframes import Placement
from training.precision import PrecisionName

UNLIMITED_STEPS = 1_000_000
AUTOENCODER, GENERATOR, OWN_HISTORY = "autoencoder", "generator", "own-history"
DECODER, DEPTH = "decoder", "depth"
"""The stages."""


@dataclass(frozen=True)
class ClipCounts:
    """How many clips there are."""

    places: tuple[str, ...] = ()
    """Of the holodeck, hand-made, whose worlds are published; all where empty."""
    files: int = 2
    """Of each place."""
    clips_per_file: int = 16
    generated_places: int = 216
    generated_per_file: int = 8
    clips_per_generated: int = 2
    first_generated_seed: int = 1000
    viewed_places: int = 720
    """Generated places whose views, pictures with depth, are drawn beside the clips."""
    first_viewed_seed: int = 6000
    still_lifes: int = 480
    """Small things on tables, which are viewed from near as photos show them."""
    first_still_life_seed: int = 100
    viewed_per_file: int = 8
    """Places or still lifes."""
    views_per_place: int = 20
    """Or still life."""


@dataclass(frozen=True)
class Batches:
    """How much of the data a step of each stage takes."""

    crops: int = 8
    """Of the autoencoder and the decoder."""
    crop: tuple[int, int] = (96, 160)
    """Height and width in pixels."""
    clips: int = 12
    """Of the generator."""
    pictures: int = 8
    """Of the depth network."""


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

    placement: Placement = field(default_factory=Placement)
    counts: ClipCounts = field(default_factory=ClipCounts)
    clips: ClipSettings = field(default_factory=ClipSettings)
    autoencoder_minutes: float = 60.0
    generator_minutes: float = 45.0
    own_history_minutes: float = 10.0
    """Generator on histories that it generated."""
    generator_lr: float = 1.0
    """Factor on the generator's learning rates."""
    decoder_minutes: float = 60.0
    """Decoder on latents that the generator made."""
    decoder_lr: float = 1.0
    """Factor on the decoder's learning rates."""
    depth_minutes: float = 90.0
    """Depth network on single pictures."""
    depth_lr: float = 1.0
    """Factor on the depth network's learning rates."""
    num_steps: int = UNLIMITED_STEPS
    """At which every stage ends, even if minutes are left."""
    batches: Batches = field(default_factory=Batches)
    timesteps: tuple[int, ...] = (1000,)
    """Step schedule of rollouts in training and of the bundle."""
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

    def only(self, name: str) -> PocketRecipe:
        """The same recipe with time for one stage alone.

        Raises:
            ValueError: There is no such stage, or it is the autoencoder, whose latents all others depend on.
        """
        minutes = {
            GENERATOR: "generator_minutes",
            OWN_HISTORY: "own_history_minutes",
            DECODER: "decoder_minutes",
            DEPTH: "depth_minutes",
        }
        if name not in minutes:
            raise ValueError(f"{name} cannot be trained alone; choose from {', '.join(minutes)}")
        none = dict.fromkeys(("autoencoder_minutes", *minutes.values()), 0.0)
        return replace(self, **none | {minutes[name]: getattr(self, minutes[name])})

    def stages(self) -> dict[str, PocketStage]:
        """All stages by name, in their order."""
        brisk = OptimizerConfig(muon_lr=0.02, adam_lr=2e-3, ema_decay=0.99)
        middling = OptimizerConfig(muon_lr=0.012, adam_lr=1.5e-3, ema_decay=0.999)
        gentle = OptimizerConfig(muon_lr=0.004, adam_lr=4e-4, ema_decay=0.99)
        batches = self.batches
        return {
            AUTOENCODER: PocketStage(
                "reconstruct frames from latents and the memory's rendering",
                batches.crops,
                self._loop(self.autoencoder_minutes, 0.6, 0.02),
                replace(brisk, ema_decay=0.999),
            ),
            GENERATOR: PocketStage(
                "generate latents from the memory, the past, scene and camera",
                batches.clips,
                self._loop(self.generator_minutes, 0.6, 0.02),
                _scaled(brisk, self.generator_lr),
            ),
            OWN_HISTORY: PocketStage(
                "go on from what was generated",
                batches.clips,
                self._loop(self.own_history_minutes, 0.8, 0.02),
                gentle,
            ),
            DECODER: PocketStage(
                "decode what was generated",
                batches.crops,
                self._loop(self.decoder_minutes, 0.8, 0.02),
                _scaled(middling, self.decoder_lr),
            ),
            DEPTH: PocketStage(
                "tell the depth of single pictures",
                batches.pictures,
                self._loop(self.depth_minutes, 0.6, 0.02),
                replace(_scaled(brisk, self.depth_lr), ema_decay=0.998),
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


def _scaled(optimizer: OptimizerConfig, factor: float) -> OptimizerConfig:
    """An optimizer with its learning rates times a factor."""
    return replace(optimizer, muon_lr=factor * optimizer.muon_lr, adam_lr=factor * optimizer.adam_lr)
