"""Clips that a generator makes, chunk by chunk, as a session does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.rollout import RolloutState
from model.sampler import commit_chunk, denoise_chunk
from training.data.batches import WindowBatch
from training.stages.flow_matching import text_of
from training.stages.scenic_model import ScenicModel


@torch.no_grad()
def make_again(
    generator: ScenicModel, batch: WindowBatch, timesteps: Sequence[float], noise: Tensor
) -> Tensor:
    """Generate clips chunk by chunk from their first latent frame, [B, C, T, h, w], as a session does."""
    text = text_of(generator, batch)
    made: list[Tensor] = []
    state: RolloutState | None = None
    for start, stop in generator.world.config.chunk_ranges(batch.frame_index.shape[1]):
        conditioning = batch.conditioning(*text, slice(start, stop))
        clean = batch.latents[:, :, :1] if start == 0 else None
        if start == 0 and stop == 1:
            made.append(batch.latents[:, :, :1])
        else:
            made.append(
                denoise_chunk(generator.world, noise[:, :, start:stop], conditioning, state, timesteps, clean)
            )
        state = commit_chunk(generator.world, made[-1], conditioning, state)
    return torch.cat(made, 2)
