"""Scenes to roll a model out in: worlds with a walk, whole rollouts in PyTorch, and single passes of them to compare twins on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.files.bundle import MEMORY
from engine.files.world import World
from engine.memory.renderer import MemoryRenderer
from engine.memory.rendering import MemoryRendering
from evaluation.rollouts import place_of
from evaluation.worlds import fitting_worlds, held_out_walk
from model.camera import window_frames
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.rollout import RolloutState
from model.sampler import commit_chunk, denoise_chunk
from model.world_model import WorldModel

Frames = NDArray[np.uint8]
Encode = Callable[[Frames], Tensor]
"""Encodes the frames of a latent frame, [R, H, W, 3], to a normalised latent [1, C, 1, h, w]."""
Render = Callable[[NDArray[np.float64]], Frames]
"""Draws what is truly seen from a pose, camera-to-world [4, 4] metres, as [H, W, 3]."""


@dataclass(frozen=True)
class SceneMemory:
    """A world's spatial memory, and what makes of its renderings what a model reads."""

    renderer: MemoryRenderer
    encode: Encode
    frame_size: tuple[int, int]
    """Width and height of frames, pixels."""

    def render(self, c2w: NDArray[np.float64], intrinsics: NDArray[np.float32]) -> MemoryRendering:
        """Render for poses [F, 4, 4] of one lens."""
        return self.renderer.render(c2w, np.repeat(intrinsics[None], len(c2w), 0), *self.frame_size)

    def conditioning(self, rendering: MemoryRendering, config: ModelConfig) -> Tensor:
        """Encode a rendering of packed windows as the model reads it, [1, memory_channels, T, h, w]."""
        stride, parts = config.temporal_stride, []
        for first in range(0, len(rendering.color), stride):
            frames = slice(first, first + stride)
            cells = rendering.coverage[frames].reshape(
                stride, config.latent_height, config.spatial_stride, config.latent_width, -1
            )
            coverage = torch.from_numpy(cells.mean((0, 2, 4)))[None, None, None]
            parts.append(torch.cat([self.encode(rendering.color[frames]), coverage], 1))
        return torch.cat(parts, 2)


@dataclass(frozen=True)
class Scene:
    """Where a walk begins, what the model is told, and the way."""

    name: str
    first_latent: Tensor
    """[1, C, 1, H, W]."""
    text: Tensor
    """[1, L, text_dim]."""
    text_mask: Tensor
    """[1, L]."""
    intrinsics: NDArray[np.float32]
    """fx, fy, cx, cy of every frame, pixels, [4]."""
    c2w: NDArray[np.float64]
    """Of every video frame, world frame, metres, [F, 4, 4]; the first is the world's own."""
    render: Render | None = None
    """The truth, where it is known."""
    memory: SceneMemory | None = None
    """For models that read one."""
    made: dict[tuple[int, int], Conditioning] = field(default_factory=dict, compare=False, repr=False)
    """Conditionings by first latent frame and number, since memories are slow to render."""

    def window(self, config: ModelConfig, start: int, frames: int) -> NDArray[np.float64]:
        """Poses of the video frames behind latent frames, world frame, [R * frames, 4, 4]."""
        stride = config.temporal_stride
        last = stride * (start + frames - 1)
        return self.c2w[window_frames(start + frames, stride, 1 + last)[start * stride :]]

    def guides(self, config: ModelConfig, num_latent_frames: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield what a decoder is shown of every latent frame, as its graph takes it; nothing to one that reads no memory."""
        size = (config.temporal_stride, config.frame_height, config.frame_width)
        for number in range(num_latent_frames):
            if self.memory is None:
                nothing = (torch.zeros(*size, 3, dtype=torch.uint8), torch.zeros(size), torch.zeros(size))
                yield nothing if config.memory_channels else ()
                continue
            shown = self.memory.render(self.window(config, number, 1), self.intrinsics)
            yield tuple(map(torch.from_numpy, (shown.color, shown.coverage, shown.inverse_depth)))

    def conditioning(self, config: ModelConfig, start: int, frames: int) -> Conditioning:
        """Return what `frames` latent frames from the absolute index `start` on are generated from."""
        if (start, frames) not in self.made:
            self.made[start, frames] = self._conditioning(config, start, frames)
        return self.made[start, frames]

    def _conditioning(self, config: ModelConfig, start: int, frames: int) -> Conditioning:
        window = self.window(config, start, frames)
        relative = np.linalg.inv(self.c2w[0]) @ window
        poses = torch.from_numpy(relative.astype(np.float32))[None]
        intrinsics = torch.from_numpy(np.tile(self.intrinsics, (1, len(window), 1)).astype(np.float32))
        memory = None
        if config.memory_channels:
            grid = (config.latent_height, config.latent_width)
            memory = torch.zeros(1, config.memory_channels, frames, *grid)
        if self.memory is not None:
            memory = self.memory.conditioning(self.memory.render(window, self.intrinsics), config)
        return Conditioning(self.text, self.text_mask, poses, intrinsics, torch.tensor([start]), memory)


def graph_inputs(latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> dict[str, NDArray[Any]]:
    """Name what `WorldModel.step` takes, without the state, as a step graph's inputs are named."""
    assert conditioning.start_frame is not None
    memory = {} if conditioning.memory is None else {MEMORY: conditioning.memory.numpy()}
    return {
        **memory,
        "latents": latents.numpy(),
        "timesteps": timesteps.numpy(),
        "c2w": conditioning.c2w.numpy(),
        "intrinsics": conditioning.intrinsics.numpy(),
        "start_frame": conditioning.start_frame.numpy(),
        "text": conditioning.text.numpy(),
        "text_mask": conditioning.text_mask.numpy(),
        **memory,
    }


def held_out_scenes(
    weights_sha256: str, num_frames: int, fps: float, encode: Encode | None = None
) -> list[Scene]:
    """Draw one walk through every shipped world of a model.

    Args:
        encode: Of models that read a spatial memory.

    Raises:
        ValueError: There is no such world.
    """
    fitting = fitting_worlds(weights_sha256)
    if not fitting:
        raise ValueError(
            "no world here was made for the bundle's weights; quality can be measured for the pocket bundle"
        )
    return [held_out_scene(world, num_frames, fps, encode) for world in fitting]


def held_out_scene(world: World, num_frames: int, fps: float, encode: Encode | None = None) -> Scene:
    """Draw a walk that nothing was trained on."""
    return scene_of(world, held_out_walk(world, num_frames, fps), encode)


def scene_of(world: World, c2w: NDArray[np.float64], encode: Encode | None = None) -> Scene:
    """Return a walk through a world, its poses camera-to-world in metres, [F, 4, 4].

    Raises:
        ValueError: The world was not made from a holodeck place.
    """
    place = place_of(world)
    height, width = world.first_frame.shape[:2]
    memory = None
    if encode is not None:
        memory = SceneMemory(MemoryRenderer(world.keyframes), encode, (width, height))
    return Scene(
        name=world.name,
        first_latent=torch.from_numpy(world.first_latent)[None, :, None],
        text=torch.from_numpy(world.text)[None],
        text_mask=torch.from_numpy(world.text_mask)[None],
        intrinsics=world.intrinsics,
        c2w=c2w,
        render=lambda c2w: place.render(c2w, world.intrinsics, width, height),
        memory=memory,
    )


@dataclass(frozen=True)
class Pass:
    """One call of the network in a rollout."""

    latents: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    state: RolloutState

    def velocity(self, model: WorldModel) -> Tensor:
        return model.step(self.latents, self.timesteps, self.conditioning, self.state)[0]


@torch.no_grad()
def roll(
    model: WorldModel, scene: Scene, timesteps: Sequence[float], num_chunks: int, seed: int
) -> Iterator[tuple[Tensor, Conditioning, RolloutState]]:
    """Generate a scene chunk by chunk, the conditioning chunk first.

    Yields:
        The chunk's latents [1, C, T, H, W], its conditioning, and the state it was generated from.
    """
    config = model.config
    state = RolloutState.zeros(config)
    generator = torch.Generator().manual_seed(seed)
    start = 0
    for index in range(num_chunks + 1):
        frames = config.first_chunk_size if index == 0 else config.chunk_size
        conditioning = scene.conditioning(config, start, frames)
        grid = (config.latent_height, config.latent_width)
        noise = torch.randn(1, config.in_channels, frames, *grid, generator=generator)
        clean = scene.first_latent if index == 0 else None
        if index == 0 and frames == 1:
            latents = scene.first_latent
        else:
            latents = denoise_chunk(model, noise, conditioning, state, timesteps, clean)
        yield latents, conditioning, state
        state = commit_chunk(model, latents, conditioning, state)
        start += frames


def passes(
    model: WorldModel, scene: Scene, timesteps: Sequence[float], num_chunks: int, seed: int
) -> list[Pass]:
    """Return the first denoising pass of every generated chunk of a rollout."""
    found = []
    generator = torch.Generator().manual_seed(seed + 1)
    for latents, conditioning, state in roll(model, scene, timesteps, num_chunks, seed):
        noise = torch.randn(latents.shape, generator=generator)
        sigma = timesteps[0] / 1000
        noisy = sigma * noise + (1 - sigma) * latents
        levels = torch.full((1, latents.shape[2]), timesteps[0])
        found.append(Pass(noisy, levels, conditioning, state))
    return found[1:]


@torch.no_grad()
def decode(
    decoder: nn.Module,
    latents: Sequence[Tensor],
    caches: tuple[Tensor, ...],
    guides: Iterable[tuple[Tensor, ...]] | None = None,
) -> Frames:
    """Decode chunks one latent frame at a time; the first latent gives one frame, as it is shown.

    Args:
        caches: The decoder's caches before anything was decoded.
        guides: What it is shown of every latent frame besides; nothing where None.
    """
    parts = []
    for latent, guide in zip(
        torch.cat(list(latents), dim=2).split(1, dim=2), guides or repeat(()), strict=False
    ):
        pictures, *made = decoder(latent.contiguous(), *guide, *caches)
        # With a guide the decoder gives depth too, before its caches.
        caches = tuple(made[len(made) - len(caches) :])
        parts.append(pictures.numpy())
    parts[0] = parts[0][-1:]
    return np.concatenate(parts)
