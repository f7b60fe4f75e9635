"""Self-attention over space and time (gated delta net or softmax, each with its camera path).

Letters in comments: B batch, T latent frames, S tokens a frame, C width, h heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention.gdn import delta_rule, frame_attention
from model.attention.mask import PrefixMask
from model.attention.rotary import HeadMap
from model.attention.sharding import FrameShard
from model.attention.short_convolution import last_frames, short_convolution
from model.attention.softmax import padded_width, rms_norm, softmax_attention
from model.config import ModelConfig
from model.precision import casts, full_precision, in_place, wide

State = Mapping[str, Tensor]
"""One block's rollout tensors, by the part of their name after `blocks.{i}.`."""


@dataclass(frozen=True)
class SequenceContext:
    """What every block of one forward pass shares."""

    grid: tuple[int, int]
    """Rows and columns of tokens in a frame."""
    shard: FrameShard
    """The frames held, their chunks, and the way to the frames beside them."""
    rope: HeadMap
    """Rotary positions of the main path."""
    ray_query: HeadMap
    """Camera queries to where ray frames cancel: P^T, and rotations on the second half."""
    ray_key: HeadMap
    """The same for camera keys and values: P^-1."""
    ray_read: HeadMap
    """Camera outputs back into their own ray frames: P, and the opposite rotations."""
    mask: Tensor | None
    """Additive softmax mask over [sink, window, current] tokens, broadcastable to [B, 1, T * S, keys]; None shows everything."""
    prefixes: PrefixMask | None
    """The mask of a whole clip, in place of an additive one; the camera key convolution then crosses chunk borders."""
    is_first: Tensor | None
    """Where there is a state, whether it is still empty, [B] bool."""
    keeps_state: bool = True
    """Whether blocks give their state after the pass; most passes of a rollout only read it."""


def square_sum(x: Tensor) -> Tensor:
    """Sum the squares of each vector, [..., D] to [..., 1]; without gradients and graphs no square goes to memory."""
    if in_place(x):
        return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
    return x.square().sum(-1, keepdim=True)


def shrink_to(x: Tensor, reference: Tensor) -> Tensor:
    """Scale each head vector down to the reference's root mean square; never up."""
    before = square_sum(reference) / x.shape[-1]
    after = square_sum(x) / x.shape[-1]
    return x * torch.sqrt((before + 1e-6) / (after + 1e-6)).clamp(max=1)


class SelfAttention(nn.Module):
    """One block's self-attention; softmax blocks also carry the delta net's gates, unused, as the checkpoint does."""

    recall_gate: Tensor

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_heads
        self.config = config
        self.is_softmax = config.is_softmax(layer)
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.proj = nn.Linear(size, size)
        self.q_norm = nn.RMSNorm(size, eps=1e-5)
        self.k_norm = nn.RMSNorm(size, eps=1e-5)
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.dt_bias = nn.Parameter(torch.full((heads,), -5.0))
        self.beta_proj = nn.Linear(size, heads)
        self.gate_proj = nn.Linear(size, heads)
        self.register_buffer("recall_gate", torch.zeros(1))
        self.output_gate = nn.Linear(size, size)
        self.q_proj_cam = nn.Linear(size, size)
        self.k_proj_cam = nn.Linear(size, size)
        self.v_proj_cam = nn.Linear(size, size)
        self.out_proj_cam = nn.Linear(size, size)
        self.q_norm_cam = nn.RMSNorm(size, eps=1e-5)
        self.k_norm_cam = nn.RMSNorm(size, eps=1e-5)
        if not self.is_softmax:
            self.conv_k = nn.Conv1d(size, size, config.conv_kernel, groups=size, bias=False)
            self.conv_k_cam = nn.Conv1d(size, size, config.conv_kernel, groups=size, bias=False)

    def forward(
        self, x: Tensor, context: SequenceContext, state: State | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Attend; [B, T, S, C] in and out, and this block's state tensors before and after."""
        path = self._softmax if self.is_softmax else self._delta_net
        main, camera, after = path(x, context, state)
        gate = functional.silu(wide(self.output_gate(x)))
        merged = (main + wide(self.out_proj_cam(camera.to(x.dtype)))) * gate
        return self.proj(merged.to(x.dtype)), after

    def _heads(self, x: Tensor) -> Tensor:
        return wide(x).unflatten(-1, (self.config.num_heads, -1))

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Write strength [B, T, h, S] and frame decay [B, T, h], at least float32; all ones in linear attention."""
        if self.config.linear_attention:
            batch, frames, tokens = x.shape[:3]
            ones = wide(x.new_ones(batch, frames, self.config.num_heads, tokens))
            return ones, ones[..., 0]
        beta = wide(self.beta_proj(x)).sigmoid().transpose(-1, -2)
        raw = wide(self.gate_proj(x.mean(dim=2)))
        decay = torch.exp(-wide(self.A_log).exp() * functional.softplus(raw + wide(self.dt_bias)))
        return beta, decay

    def _delta_net(
        self, x: Tensor, context: SequenceContext, state: State | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        scale = {
            "frame": (self.config.head_dim * x.shape[2]) ** -0.5,
            "head": self.config.head_dim**-0.5,
            "none": 1.0,
        }
        key_scale = scale[self.config.key_scale]
        q, raw_key, v = self.qkv(x).chunk(3, dim=-1)
        history = None if state is None else state["key_history"]
        k = self._short_convolution(raw_key, self.conv_k, context, history, across=True)
        beta, decay = self._gates(x)
        with full_precision(x):
            query = self._heads(rms_norm(q, self.q_norm)).relu()
            key = self._heads(rms_norm(k, self.k_norm, key_scale)).relu()
            before = None if state is None else (state["numerator"], state["normaliser"])
            vectors = (query, key, context.rope(query), context.rope(key), self._heads(v))
            q_head, k_head, q_rot, k_rot, v_head = (tensor.transpose(2, 3) for tensor in vectors)
            main, after = frame_attention(
                q_head, k_head, q_rot, k_rot, v_head, beta, decay, initial=before, **self._rule(context)
            )
        camera, camera_after = self._camera_delta_net(x, context, beta, decay, key_scale, state)
        new: dict[str, Tensor] = {}
        if state is not None and context.keeps_state:
            new = {"numerator": after[0], "normaliser": after[1], "camera_numerator": camera_after}
            new["key_history"] = last_frames(raw_key, state["key_history"])
        return main.transpose(2, 3).flatten(-2), camera, new

    def _camera_delta_net(
        self,
        x: Tensor,
        context: SequenceContext,
        beta: Tensor,
        decay: Tensor,
        key_scale: float,
        state: State | None,
    ) -> tuple[Tensor, Tensor]:
        k = self.k_proj_cam(x)
        k = self._short_convolution(k, self.conv_k_cam, context, None, across=context.prefixes is not None)
        q, v = self.q_proj_cam(x), self.v_proj_cam(x)
        initial = None if state is None else state["camera_numerator"]
        with full_precision(x):
            query = self._heads(rms_norm(q, self.q_norm_cam)).relu()
            key = self._heads(rms_norm(k, self.k_norm_cam, key_scale)).relu()
            ray_q, ray_k, ray_v = self._to_ray(query, key, self._heads(v), context)
            with torch.no_grad():
                ratio = square_sum(ray_k).clamp_min(1e-12) / square_sum(key).clamp_min(1e-12)
                discount = ratio[..., 0].mean(2).clamp_min(1)[..., None]
            ray_q, ray_k, ray_v = (tensor.transpose(2, 3) for tensor in (ray_q, ray_k, ray_v))
            states, last = delta_rule(
                ray_k, ray_v, beta / discount, decay, initial=initial, **self._rule(context)
            )
            read = (ray_q @ states).transpose(2, 3)
            return context.ray_read(read).flatten(-2), last

    def _rule(self, context: SequenceContext) -> dict[str, Any]:
        """Give the arguments that both delta rules share."""
        return {
            "chunks": context.shard.chunks,
            "write_limit": self.config.write_limit,
            "erases": not self.config.linear_attention,
            "borders": context.shard.border_states,
        }

    def _short_convolution(
        self, key: Tensor, conv: nn.Conv1d, context: SequenceContext, history: Tensor | None, across: bool
    ) -> Tensor:
        reach = self.config.conv_kernel - 1
        wider, chunks = context.shard.add_halo(key, reach)
        filtered = short_convolution(wider, conv.weight, chunks, history, across)
        return context.shard.drop_halo(filtered, reach)

    def _to_ray(
        self, q: Tensor, k: Tensor, v: Tensor, context: SequenceContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        moved = context.ray_query(q), context.ray_key(k), context.ray_key(v)
        on = self.config.downscale_softmax if self.is_softmax else self.config.downscale_gdn
        if on:
            return shrink_to(moved[0], q), shrink_to(moved[1], k), shrink_to(moved[2], v)
        return moved

    def _softmax(
        self, x: Tensor, context: SequenceContext, state: State | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        camera_q, camera_k = self.q_proj_cam(x), self.k_proj_cam(x)
        camera_v = self._heads(self.v_proj_cam(x))
        with full_precision(x):
            query = context.rope(self._heads(rms_norm(q, self.q_norm)))
            key = context.rope(self._heads(rms_norm(k, self.k_norm)))
            camera_query = self._heads(rms_norm(camera_q, self.q_norm_cam))
            camera_key = self._heads(rms_norm(camera_k, self.k_norm_cam))
            camera = self._to_ray(camera_query, camera_key, camera_v, context)
        main, new = self._attend(query, key, self._heads(v), context, state, "", self.config.head_dim)
        width = self.config.head_dim
        if self.config.camera_softmax_scale == "padded":
            width = padded_width(width)
        read, camera_new = self._attend(*camera, context, state, "camera_", width)
        with full_precision(x):
            read = context.ray_read(wide(read))
        return wide(main).flatten(-2), read.flatten(-2), new | camera_new

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: SequenceContext,
        state: State | None,
        part: str,
        width: int,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Attend over the sink, the window and the current frames; [B, T, S, h, D] in and out."""
        tokens = q.shape[2]
        q, k, v = (tensor.flatten(1, 2).transpose(1, 2) for tensor in (q, k, v))
        new: dict[str, Tensor] = {}
        keys, values = [k], [v]
        if state is not None:
            parts = ("sink", "window") if self.config.sink else ("window",)
            keys = [state[f"{name}_{part}key"] for name in parts] + keys
            values = [state[f"{name}_{part}value"] for name in parts] + values
            for name, tensor in (("key", k), ("value", v)) if context.keeps_state else ():
                new |= self._cache(part + name, tensor, context, state)
        all_k, all_v = torch.cat(keys, dim=2), torch.cat(values, dim=2)
        dtype = self.qkv.weight.dtype
        if casts(q):
            dtype = torch.get_autocast_dtype(q.device.type)
        all_k, all_v = (context.shard.all_gather(tensor.to(dtype), 2) for tensor in (all_k, all_v))
        out = _masked_attention(q.to(dtype), all_k, all_v, context, tokens, 1 / math.sqrt(width))
        return out.transpose(1, 2).unflatten(1, (-1, tokens)), new

    def _cache(self, name: str, tensor: Tensor, context: SequenceContext, state: State) -> dict[str, Tensor]:
        """Shift the window, and write the sink at the first chunk, in the state's precision; tensor [B, h, T * S, D]."""
        tensor = tensor.to(state["window_" + name].dtype)
        tokens = context.grid[0] * context.grid[1]
        size = self.config.window_frames * tokens
        length = tensor.shape[2]
        window = tensor[:, :, -size:]
        if length < size:
            window = torch.cat([state["window_" + name][:, :, length:], tensor], dim=2)
        new = {"window_" + name: window}
        if self.config.sink:
            sink, head = state["sink_" + name], tensor[:, :, : self.config.sink_frames * tokens]
            if head.shape == sink.shape:
                assert context.is_first is not None
                sink = torch.where(context.is_first[:, None, None, None], head, sink)
            new["sink_" + name] = sink
        return new


def _masked_attention(
    q: Tensor, k: Tensor, v: Tensor, context: SequenceContext, tokens: int, scale: float
) -> Tensor:
    """Attend over [B, h, frames * tokens, D] under the context's mask."""
    if context.prefixes is None:
        return softmax_attention(q, k, v, context.mask, scale)
    parts = []
    for start, stop, visible in context.prefixes:
        own, seen = slice(start * tokens, stop * tokens), slice(visible * tokens)
        parts.append(softmax_attention(q[:, :, own], k[:, :, seen], v[:, :, seen], None, scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
