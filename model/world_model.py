"""The world model: latents, timesteps, text and cameras in, velocity out.

Whole clips (`forward`), training windows (`window`) and streaming (`step`) are three doors to one `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from model.attention.gdn import Chunks
from model.attention.mask import Reaches, attention_mask, chunk_ranges, clip_reaches
from model.attention.rotary import HeadMap, conjugate, rotary_table
from model.attention.self_attention import SequenceContext
from model.attention.sharding import Timeline
from model.attention.softmax import rms_norm
from model.block import Block
from model.camera import (
    plucker_maps,
    ray_transforms,
    relative_poses,
    scale_translations,
    ucpe_poses,
    window_frames,
)
from model.config import ModelConfig
from model.embedding import FinalLayer, TextEmbedder, TimestepEmbedder, VoxelEmbedder
from model.initialise import initialise
from model.precision import full_precision, wide, wide_dtype
from model.rollout import NUM_FRAMES, RolloutState
from model.scene_memory import split_memory

MAX_TIMESTEP = 1000.0
"""Of pure noise."""


class WorldModel(nn.Module):
    """The denoiser. Attribute names follow the official checkpoint."""

    def __init__(self, config: ModelConfig, fresh: bool = False) -> None:
        """Build with random weights.

        Args:
            fresh: Start both camera branches small instead of silent, for training from nothing.
        """
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.open_timeline: Callable[[Chunks], Timeline] = Timeline
        """Says which frames of a clip a pass without a state holds; the others' are asked for on the way."""
        self.x_embedder = VoxelEmbedder(config.in_channels, size)
        self.t_embedder = TimestepEmbedder(config)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))
        self.y_embedder = TextEmbedder(config)
        self.attention_y_norm = nn.RMSNorm(size, eps=1e-5)
        self.plucker_embedder = VoxelEmbedder(config.plucker_channels, size)
        self.raymap_embedder = VoxelEmbedder(3, size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_layer = FinalLayer(config)
        initialise(self, fresh)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_mask: Tensor,
        c2w: Tensor,
        intrinsics: Tensor,
        mode: Literal["chunk_causal", "bidirectional"] = "chunk_causal",
    ) -> Tensor:
        """Predict the velocity of a whole clip.

        Args:
            latents: Noisy latents, [B, C, T, H, W]; frame 0 is the clean conditioning frame.
            timesteps: Per latent frame, 0..1000, [B, T].
            text: [B, L, text_dim]; the scene's memory, where the model has one, in front.
            text_mask: 1 for real tokens, [B, L].
            c2w: Of the F = 1 + temporal_stride * (T - 1) video frames, in any common frame, [B, F, 4, 4].
            intrinsics: In frame pixels, [B, F, 4].

        Returns:
            [B, C, T, H, W].
        """
        batch, frames = timesteps.shape
        needed = 1 + self.config.temporal_stride * (frames - 1)
        if min(c2w.shape[1], intrinsics.shape[1]) < needed:
            raise ValueError(
                f"{frames} latent frames need the cameras of {needed} video frames; {c2w.shape[1]} poses and "
                f"{intrinsics.shape[1]} intrinsics were given"
            )
        order = window_frames(frames, self.config.temporal_stride, c2w.shape[1])
        with full_precision(c2w):
            poses = relative_poses(c2w)[:, order]
        index = torch.arange(frames, device=latents.device).expand(batch, frames)
        chunks = [(0, frames)] if mode == "bidirectional" else chunk_ranges(self.config, frames, starts=True)
        velocity, _ = self.run(
            latents,
            timesteps,
            text,
            text_mask,
            poses,
            intrinsics[:, order],
            index,
            chunks,
            None,
            streaming=False,
        )
        return velocity

    def window(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_mask: Tensor,
        c2w_windows: Tensor,
        intrinsics: Tensor,
        frame_index: Tensor,
        state: RolloutState | None = None,
        keep_state: bool = True,
    ) -> tuple[Tensor, RolloutState | None]:
        """Predict several chunks at once, each seeing what streaming would let it see of the ones before.

        Args:
            latents: [B, C, T, H, W].
            timesteps: [B, T].
            text, text_mask: [B, L, text_dim], [B, L].
            c2w_windows: Relative poses in packed windows, [B, T * temporal_stride, 4, 4].
            intrinsics: [B, T * temporal_stride, 4].
            frame_index: Absolute latent frame of each latent, int64 [B, T]; it may jump.
            state: After the frames before these; None when the first chunk is the conditioning one.
            keep_state: Whether to compute the state after these frames.

        Returns:
            Velocity [B, C, T, H, W] and the state after these frames, where it is kept.
        """
        chunks = chunk_ranges(self.config, latents.shape[2], starts=state is None)
        return self.run(
            latents,
            timesteps,
            text,
            text_mask,
            c2w_windows,
            intrinsics,
            frame_index,
            chunks,
            state,
            keep_state=keep_state,
        )

    def step(
        self,
        latents: Tensor,
        timesteps: Tensor,
        c2w_windows: Tensor,
        intrinsics: Tensor,
        start_frame: Tensor,
        text: Tensor,
        text_mask: Tensor,
        state: RolloutState | None = None,
    ) -> tuple[Tensor, RolloutState]:
        """Predict one chunk against a rollout state; the same graph serves every chunk of this length.

        Args:
            start_frame: Absolute index of the chunk's first latent frame, int64 [B].
            state: None for the first chunk.

        Other arguments and results are those of `window`.
        """
        frames = latents.shape[2]
        if state is None:
            config = self.config.for_grid(*latents.shape[-2:])
            dtype = wide_dtype(self.x_embedder.proj.weight.dtype)
            state = RolloutState.zeros(config, latents.shape[0], latents.device, dtype)
        index = start_frame[:, None] + torch.arange(frames, device=latents.device)
        velocity, after = self.run(
            latents, timesteps, text, text_mask, c2w_windows, intrinsics, index, [(0, frames)], state
        )
        assert after is not None
        return velocity, after

    def run(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_mask: Tensor,
        c2w_windows: Tensor,
        intrinsics: Tensor,
        frame_index: Tensor,
        chunks: Chunks,
        state: RolloutState | None,
        streaming: bool = True,
        keep_state: bool = True,
    ) -> tuple[Tensor, RolloutState | None]:
        """Run the network over chunks of frames that follow `state`.

        Args:
            chunks: Frame ranges that see one another in both directions.
            streaming: Whether softmax blocks forget and camera key convolutions stop at chunk borders, and whether
                there is a state.
            keep_state: Whether the state afterwards is computed.
        """
        dtype = self.x_embedder.proj.weight.dtype
        keep_state = streaming and keep_state
        # Rollouts are short and serial: whoever has one makes it whole.
        is_whole = keep_state or state is not None
        timeline = Timeline(chunks) if is_whole else self.open_timeline(chunks)
        latents, timesteps, frame_index = (
            timeline.cut(tensor, dim) for tensor, dim in ((latents, 2), (timesteps, 1), (frame_index, 1))
        )
        with full_precision(c2w_windows):
            config = self.config.for_grid(*latents.shape[-2:])
            stride = config.temporal_stride
            poses = timeline.cut(c2w_windows, 1, stride).to(wide_dtype(dtype))
            poses = scale_translations(poses, config.translation_scale)
            cameras = timeline.cut(intrinsics, 1, stride).to(poses.dtype)
            committed = None if state is None else state.tensors[NUM_FRAMES]
            mask = attention_mask(config, chunks, committed, frame_index.device) if streaming else None
            if mask is not None and not is_whole:
                mask = timeline.cut(mask, 2, config.tokens_per_frame)
            reaches = None if streaming else clip_reaches(chunks, timeline.held)
            context = _context(
                config, poses, cameras, frame_index, timeline, mask, reaches, committed, keep_state
            )
            maps = plucker_maps(config, poses, cameras)
        plucker = self.plucker_embedder(maps.to(dtype))
        time = self.t_embedder(timesteps)
        modulation = self.t_block(time).unflatten(-1, (6, -1))
        memory, rows = split_memory(self.config, text)
        caption = self.y_embedder(text[:, rows:])
        caption = rms_norm(caption, self.attention_y_norm).to(caption.dtype)
        caption_mask = torch.where(text_mask[:, rows:] > 0, 0.0, -1e4)[:, None, None, :]
        heard = latents
        if self.config.latent_fade:
            heard = latents * (1.0 - timesteps / MAX_TIMESTEP)[:, None, :, None, None]
        x = self.x_embedder(heard.permute(0, 2, 3, 4, 1).flatten(2, 3).to(dtype))
        after: dict[str, Tensor] = {}
        if context.keep_state:
            count = 0.0 if state is None else state.tensors[NUM_FRAMES]
            after[NUM_FRAMES] = torch.zeros_like(timesteps[:, 0]) + count + latents.shape[2]
        for layer, block in enumerate(self.blocks):
            before = None if state is None else state.block(layer)
            own = None if memory is None else memory[:, layer].to(dtype)
            x, new = block(x, modulation, caption, caption_mask, plucker, own, context, before)
            after |= {f"blocks.{layer}.{name}": tensor for name, tensor in new.items()}
        output = wide(self.final_layer(x, time)).transpose(-1, -2)
        velocity = output.unflatten(-1, latents.shape[-2:]).transpose(1, 2)
        if self.config.velocity_skip:
            velocity = velocity + self.config.velocity_skip * latents
        return timeline.join(velocity, 2), RolloutState(after) if context.keep_state else None


def _context(
    config: ModelConfig,
    c2w_windows: Tensor,
    intrinsics: Tensor,
    frame_index: Tensor,
    timeline: Timeline,
    mask: Tensor | None,
    reaches: Reaches | None,
    committed: Tensor | None,
    keep_state: bool,
) -> SequenceContext:
    """Build what all blocks share; the config is that of the latents' grid, translations are scaled already."""
    poses = ucpe_poses(config, c2w_windows, frame_index)
    to_ray, to_world = ray_transforms(config, poses, ucpe_poses(config, intrinsics, frame_index))
    dtype = c2w_windows.dtype
    table = rotary_table(config, frame_index, config.head_dim // 2, dtype).unsqueeze(3)
    maps = [
        HeadMap(rotary_table(config, frame_index, dtype=dtype).unsqueeze(3)),
        HeadMap(table, to_ray),
        HeadMap(table, to_world.transpose(-1, -2)),
        HeadMap(conjugate(table), to_ray.transpose(-1, -2)),
    ]
    if torch.compiler.is_exporting():
        maps = [head_map.dense() for head_map in maps]
    return SequenceContext(
        grid=(config.latent_height, config.latent_width),
        timeline=timeline,
        rope=maps[0],
        ray_query=maps[1],
        ray_key=maps[2],
        ray_read=maps[3],
        mask=mask,
        reaches=reaches,
        camera_conv_history=reaches is not None,
        is_first=None if committed is None else committed == 0,
        keep_state=keep_state,
    )
