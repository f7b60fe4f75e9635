"""Own-history stage of the pocket: the generator goes on from what it generated itself.

A light form of self-forcing. The places are known, so the target stays the true latent and no critic is needed; what changes is
the history, which is no longer the truth with some noise but a rollout of the network as it stands, as in a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.conditioning import Conditioning
from model.rollout import RolloutState
from model.sampler import commit_chunk, denoise_chunk
from model.world_model import WorldModel
from training.optimizer import OptimizerConfig
from training.pocket.generator import GeneratorStage, LatentBatch, LatentClips
from training.stages.scenic_model import ScenicModel


@torch.no_grad()
def roll_out(
    world: WorldModel,
    first: Tensor,
    noise: Tensor,
    conditioning: Conditioning,
    timesteps: Sequence[float],
) -> Tensor:
    """Generate clips chunk by chunk, a latent frame each, as a session does.

    Args:
        first: Clean first latent frames, [B, C, 1, h, w].
        noise: Of all T latent frames; the first is not used, [B, C, T, h, w].
        conditioning: Of the whole clips, in the packed form.
        timesteps: Decreasing from at most 1000, without the final 0.

    Returns:
        Clean latents, [B, C, T, h, w].
    """
    made: list[Tensor] = [first]
    state: RolloutState | None = None
    for number, chunk in enumerate(_chunks(world, conditioning, noise.shape[2])):
        if number:
            start = noise[:, :, number : number + 1]
            made.append(denoise_chunk(world, start, chunk, state, timesteps))
        state = commit_chunk(world, made[-1], chunk, state)
    return torch.cat(made, 2)


def _chunks(world: WorldModel, conditioning: Conditioning, num_frames: int) -> Iterator[Conditioning]:
    """Cut a conditioning into those of its latent frames."""
    stride, start = world.config.temporal_stride, conditioning.start_frame
    assert start is not None, "rollouts take the packed form"
    for number in range(num_frames):
        window = slice(stride * number, stride * (number + 1))
        memory = conditioning.memory
        yield replace(
            conditioning,
            c2w=conditioning.c2w[:, window],
            intrinsics=conditioning.intrinsics[:, window],
            start_frame=start + number,
            memory=None if memory is None else memory[:, :, number : number + 1],
        )


class OwnHistoryStage(GeneratorStage):
    """The generator's stage on histories that it generated."""

    def __init__(
        self,
        model: ScenicModel,
        clips: Sequence[LatentClips],
        intrinsics: tuple[float, float, float, float],
        timesteps: Sequence[float],
        batch_size: int = 12,
        name: str = "own-history",
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Prepare the stage; `timesteps` are those of the rollouts, without the final 0."""
        super().__init__(model, clips, intrinsics, batch_size, name, history_sigma=0.0, optimizer=optimizer)
        self.timesteps = tuple(timesteps)

    def history(self, batch: LatentBatch, trained: Tensor, rng: np.random.Generator) -> Tensor:
        """The truth where frames are trained, and what was generated before them."""
        latents = batch.latents
        length = int((~trained).sum(1).max())
        packed = batch.conditioning
        window = slice(0, self.model.world.config.temporal_stride * length)
        memory = packed.memory
        shown = replace(
            packed,
            text=packed.text.detach(),
            c2w=packed.c2w[:, window],
            intrinsics=packed.intrinsics[:, window],
            memory=None if memory is None else memory[:, :, :length],
        )
        noise = torch.randn_like(latents[:, :, :length])
        own = roll_out(self.model.world, latents[:, :, :1], noise, shown, self.timesteps).to(latents.dtype)
        own = torch.cat([own, latents[:, :, length:]], 2)
        return torch.where(trained[:, None, :, None, None], latents, own)
