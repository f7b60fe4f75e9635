"""The world model: latents, timesteps, text and cameras in, velocity out; `forward` takes a clip, `step` a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from model.attention.gdn import Chunks
from model.attention.mask import PrefixMask, prefix_mask, step_mask, streaming_mask
from model.attention.self_attention import SequenceContext
from model.attention.sharding import FrameShard
from model.attention.softmax import rms_norm
from model.block import Block
from model.camera import head_maps, plucker_maps, scale_translations
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.embedding import FinalLayer, TextEmbedder, TimestepEmbedder, VoxelEmbedder
from model.precision import full_precision, wide, wide_dtype
from model.rollout import NUM_FRAMES, RolloutState

MAX_TIMESTEP = 1000.0
"""Of pure noise."""
LATENT_GAIN = 0.1
"""Share of a Xavier initialisation that a fresh model's latent embedder gets, so that pose and scene are learned first."""

Mode = Literal["bidirectional", "chunk_causal", "streaming"]
"""What a clip's frames attend to: all of it; their own chunk and all before; the chunks that a rollout remembers."""


class WorldModel(nn.Module):
    """The denoiser. Attribute names follow the official checkpoint."""

    def __init__(self, config: ModelConfig, fresh: bool = False) -> None:
        """Build with random weights.

        Args:
            fresh: Start both camera branches with small weights, for training from nothing, in place of zeros.
        """
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.open_shard: Callable[[Chunks], FrameShard] = FrameShard
        """Makes the shard of a clip that a pass of `forward` holds."""
        self.x_embedder = VoxelEmbedder(config.in_channels, size)
        self.memory_embedder = VoxelEmbedder(config.memory_channels, size) if config.memory_channels else None
        self.t_embedder = TimestepEmbedder(config)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))
        self.y_embedder = TextEmbedder(config)
        self.attention_y_norm = nn.RMSNorm(size, eps=1e-5)
        self.plucker_embedder = VoxelEmbedder(config.plucker_channels, size)
        self.raymap_embedder = VoxelEmbedder(3, size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_layer = FinalLayer(config)
        self._initialise(fresh)

    @torch.no_grad()
    def _initialise(self, fresh: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        text = self.y_embedder.y_proj
        for linear in (self.t_embedder.mlp[0], self.t_embedder.mlp[2], self.t_block[1], text.fc1, text.fc2):
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=0.02)
        # The released model inherits captions from a text-to-video model; a fresh one needs them from the start.
        nn.init.constant_(self.attention_y_norm.weight, 1.0 if fresh else 0.01)
        nn.init.zeros_(self.raymap_embedder.proj.weight)
        if self.memory_embedder is not None:
            nn.init.zeros_(self.memory_embedder.proj.weight)
        if fresh:
            self.x_embedder.proj.weight.mul_(LATENT_GAIN)
        for block in self.blocks:
            cast("Block", block).initialise(fresh)

    def forward(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning, mode: Mode) -> Tensor:
        """Predict the velocity of a whole clip.

        Args:
            latents: Noisy latents, [B, C, T, H, W]; frame 0 is the clean conditioning frame.
            timesteps: Per latent frame, 0..1000, [B, T].
            conditioning: In either form.

        Returns:
            [B, C, T, H, W].
        """
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; use one of {', '.join(map(repr, get_args(Mode)))}")
        num_frames = latents.shape[2]
        bidirectional = mode == "bidirectional"
        chunks = [(0, num_frames)] if bidirectional else self.config.chunk_ranges(num_frames)
        shard = self.open_shard(chunks)
        config = self.config.for_grid(*latents.shape[-2:])
        packed = conditioning.pack(num_frames, config.temporal_stride)
        mask = prefixes = None
        if mode == "streaming":
            mask = streaming_mask(config, chunks, latents.device)
            mask = None if mask is None else shard.shard(mask, 2, config.tokens_per_frame)
        else:
            prefixes = prefix_mask(chunks, shard.frames)
        context, plucker = self._cameras(config, packed, num_frames, shard, mask, prefixes, None)
        latents, timesteps = shard.shard(latents, 2), shard.shard(timesteps, 1)
        velocity, _ = self._predict(latents, timesteps, packed, context, plucker, None)
        return shard.all_gather(velocity, 2)

    def step(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        state: RolloutState | None = None,
        keep_state: bool = True,
    ) -> tuple[Tensor, RolloutState]:
        """Predict one chunk against a rollout state; the same graph serves every chunk of this length.

        Args:
            latents: [B, C, T, H, W].
            timesteps: [B, T].
            conditioning: Of this chunk, in the packed form.
            state: After the chunks before; None for the first.
            keep_state: Whether the chunk is committed; a pass that only denoises saves what the state costs.

        Returns:
            Velocity [B, C, T, H, W] and the state after this chunk, or the state as it was.
        """
        config = self.config.for_grid(*latents.shape[-2:])
        if state is None:
            dtype = wide_dtype(self.x_embedder.proj.weight.dtype)
            state = RolloutState.zeros(config, latents.shape[0], latents.device, dtype)
        num_frames = latents.shape[2]
        committed = state.tensors[NUM_FRAMES]
        with full_precision(latents):
            mask = step_mask(config, committed, num_frames)
        shard = FrameShard([(0, num_frames)])
        context, plucker = self._cameras(config, conditioning, num_frames, shard, mask, None, committed == 0)
        context = replace(context, keeps_state=keep_state)
        velocity, tensors = self._predict(latents, timesteps, conditioning, context, plucker, state)
        if not keep_state:
            return velocity, state
        count = torch.zeros_like(timesteps[:, 0]) + committed + num_frames
        return velocity, RolloutState({NUM_FRAMES: count, **tensors})

    def _cameras(
        self,
        config: ModelConfig,
        conditioning: Conditioning,
        num_frames: int,
        shard: FrameShard,
        mask: Tensor | None,
        prefixes: PrefixMask | None,
        is_first: Tensor | None,
    ) -> tuple[SequenceContext, Tensor]:
        """Build what all blocks share, and the embedded Pluecker map [B, T, S, C]; config of the latents' grid."""
        dtype, stride = self.x_embedder.proj.weight.dtype, config.temporal_stride
        index = shard.shard(conditioning.frame_index(num_frames), 1)
        with full_precision(conditioning.c2w):
            poses = shard.shard(conditioning.c2w, 1, stride).to(wide_dtype(dtype))
            poses = scale_translations(poses, config.translation_scale)
            intrinsics = shard.shard(conditioning.intrinsics, 1, stride).to(poses.dtype)
            rope, ray_query, ray_key, ray_read = head_maps(config, poses, intrinsics, index)
            maps = plucker_maps(config, poses, intrinsics)
        context = SequenceContext(
            grid=(config.latent_height, config.latent_width),
            shard=shard,
            rope=rope,
            ray_query=ray_query,
            ray_key=ray_key,
            ray_read=ray_read,
            mask=mask,
            prefixes=prefixes,
            is_first=is_first,
        )
        return context, self.plucker_embedder(maps.to(dtype))

    def _predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        context: SequenceContext,
        plucker: Tensor,
        state: RolloutState | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the network on the held frames; give the velocity and, where there is a state, the blocks' new tensors."""
        dtype = self.x_embedder.proj.weight.dtype
        time = self.t_embedder(timesteps)
        modulation = self.t_block(time).unflatten(-1, (6, -1))
        caption = self.y_embedder(conditioning.text)
        caption = rms_norm(caption, self.attention_y_norm).to(caption.dtype)
        mask = torch.where(conditioning.text_mask > 0, 0.0, -1e4)[:, None, None, :]
        x = self.x_embedder(latents.permute(0, 2, 3, 4, 1).flatten(2, 3).to(dtype))
        if self.memory_embedder is not None:
            x = x + self.memory_embedder(self._memory(latents, conditioning, context).to(dtype))
        tensors: dict[str, Tensor] = {}
        for layer, block in enumerate(self.blocks):
            before = None if state is None else state.block(layer)
            x, new = block(x, modulation, caption, mask, plucker, context, before)
            tensors |= {f"blocks.{layer}.{name}": tensor for name, tensor in new.items()}
        output = wide(self.final_layer(x, time)).transpose(-1, -2)
        return output.unflatten(-1, latents.shape[-2:]).transpose(1, 2), tensors

    def _memory(self, latents: Tensor, conditioning: Conditioning, context: SequenceContext) -> Tensor:
        """What the memory shows of the held frames, [B, T, S, memory_channels]; zeros where there is none."""
        if conditioning.memory is None:
            batch, _, frames = latents.shape[:3]
            return latents.new_zeros(batch, frames, latents[0, 0, 0].numel(), self.config.memory_channels)
        return context.shard.shard(conditioning.memory, 2).permute(0, 2, 3, 4, 1).flatten(2, 3)
