"""Clips along walks through worlds that were made for a model: everything but latents, which rollouts of the model make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from engine.files.world import World
from evaluation.rollouts import place_of
from export.scenes import Encode, scene_of
from holodeck.walks import walk
from model.config import ModelConfig
from training.data.batches import WindowBatch, draw_window, side_by_side

FIRST_SEED = 500_000
"""Of the walks; held-out ones have others."""
WALK_LATENTS = 60
"""Latent frames of each walk, which clips are cut from anywhere."""


class WorldClips:
    """A number of clips, each rendered when it is first drawn and kept: memories are slow to render."""

    def __init__(
        self,
        worlds: Sequence[World],
        config: ModelConfig,
        encode: Encode | None,
        fps: float,
        num_clips: int,
        seed: int,
    ) -> None:
        """Prepare.

        Args:
            encode: Of models that read a spatial memory.
        """
        self.worlds, self.config, self.encode, self.fps = worlds, config, encode, fps
        self.num_clips, self.seed = num_clips, seed
        self._made: dict[tuple[int, int], WindowBatch] = {}

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        """Draw clips; of their latents only frame 0 is there, the others are zero."""
        numbers = rng.integers(self.num_clips, size=batch_size).tolist()
        return side_by_side([self._clip(number, num_latent_frames) for number in numbers])

    def seek(self, number: int) -> None:
        """Do nothing: clips come in no order."""

    def position(self) -> dict[str, Any]:
        return {}

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Do nothing: clips come in no order."""

    def _clip(self, number: int, length: int) -> WindowBatch:
        if (number, length) not in self._made:
            self._made[number, length] = self._render(number, length)
        return self._made[number, length]

    @torch.no_grad()
    def _render(self, number: int, length: int) -> WindowBatch:
        config, world = self.config, self.worlds[number % len(self.worlds)]
        rng = np.random.default_rng((self.seed, number))
        num_frames = 1 + config.temporal_stride * WALK_LATENTS
        poses = walk(place_of(world), num_frames, round(self.fps), FIRST_SEED + number)
        scene = scene_of(world, poses, self.encode)
        window, told = draw_window(1 + WALK_LATENTS, length - 1, rng)
        shown = [scene.conditioning(config, frame, 1) for frame in (0, *range(window.start, window.stop))]
        latents = torch.zeros(1, config.in_channels, length, config.latent_height, config.latent_width)
        latents[:, :, :1] = scene.first_latent
        memory = [part.memory for part in shown if part.memory is not None]
        return WindowBatch(
            scene=torch.zeros(1, dtype=torch.int64),
            latents=latents,
            c2w=torch.cat([part.c2w for part in shown], 1),
            intrinsics=torch.cat([part.intrinsics for part in shown], 1),
            frame_index=told[None],
            text=scene.text,
            text_mask=scene.text_mask,
            memory=torch.cat(memory, 2) if memory else None,
        )
