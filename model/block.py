"""One block of the world model: what every token passes between its embedding and the velocity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention.self_attention import SelfAttention, SequenceContext, State
from model.attention.sharding import FrameShard
from model.attention.softmax import CrossAttention
from model.config import ModelConfig
from model.embedding import modulate
from model.precision import in_place, own

OPEN_GATE_BIAS = 1.278464542761074
"""SiLU of this is 1, so output gates begin fully open."""
CAMERA_GAIN = 0.1
"""Share of a Xavier initialisation that a fresh model's ray-frame branch gets."""


class PointConvolution(nn.Module):
    """A 1x1 convolution written as a linear layer, under the checkpoint's name `conv`."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DepthConvolution(nn.Module):
    """A depthwise 3x3 convolution over channels-last frames [N, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FeedForward(nn.Module):
    """Per-frame gated convolution, then y + t_conv(y) along time."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner = config.inner_size
        self.inverted_conv = PointConvolution(config.hidden_size, 2 * inner, bias=True)
        self.depth_conv = DepthConvolution(2 * inner)
        self.point_conv = PointConvolution(inner, config.hidden_size, bias=False)
        self.t_conv = nn.Conv2d(config.hidden_size, config.hidden_size, (3, 1), padding=(1, 0), bias=False)

    def forward(
        self, x: Tensor, grid: tuple[int, int], shard: FrameShard, history: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Transform tokens.

        Args:
            x: [B, T, S, C].
            grid: Rows and columns of the S tokens.
            history: Last frame of y before x, [B, 1, S, C]; None for zeros.

        Returns:
            Tokens [B, T, S, C] and the last frame of y, the input of the temporal convolution, [B, 1, S, C].
        """
        freely = in_place(x, self.t_conv.weight)
        inner = functional.silu(self.inverted_conv(x), inplace=freely)
        inner = self.depth_conv(inner.flatten(0, 1).unflatten(1, grid))
        value, gate = inner.chunk(2, dim=-1)
        gated = functional.silu(gate).mul_(value) if freely else value * functional.silu(gate)
        y = self.point_conv(gated).reshape(x.shape)
        return self._over_time(y, shard, history), y[:, -1:]

    def _over_time(self, y: Tensor, shard: FrameShard, history: Tensor | None) -> Tensor:
        y, chunks = shard.add_halo(y, 1)
        past, present, future = self.t_conv.weight[..., 0].unbind(-1)
        before = torch.zeros_like(y[:, :1]) if history is None else history.to(y.dtype)
        previous = torch.cat([before, y[:, :-1]], dim=1)
        following = None
        if any(stop - start > 1 for start, stop in chunks):
            after = [functional.pad(y[:, start + 1 : stop], (0, 0, 0, 0, 0, 1)) for start, stop in chunks]
            following = torch.cat(after, dim=1)
        if in_place(y, self.t_conv.weight):
            rows = y.flatten(0, -2)
            output = torch.addmm(rows, rows, present.t()).addmm_(previous.flatten(0, -2), past.t())
            if following is not None:
                output.addmm_(following.flatten(0, -2), future.t())
            return shard.drop_halo(output.view_as(y), 1)
        output = y + functional.linear(y, present) + functional.linear(previous, past)
        if following is not None:
            output = output + functional.linear(following, future)
        return shard.drop_halo(output, 1)


class Block(nn.Module):
    """Self-attention, Pluecker term, cross-attention, feed-forward."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.scale_shift_table = nn.Parameter(torch.randn(6, size) / size**0.5)
        self.attn = SelfAttention(config, layer)
        self.plucker_proj = nn.Linear(size, size)
        self.cross_attn = CrossAttention(config)
        self.mlp = FeedForward(config)

    @torch.no_grad()
    def initialise(self, fresh: bool) -> None:
        """Set the weights that do not start as Xavier's; `fresh` gives the camera branches small weights for zeros."""
        attn = self.attn
        nn.init.zeros_(attn.beta_proj.weight)
        nn.init.constant_(attn.beta_proj.bias, 5.0)
        nn.init.zeros_(attn.gate_proj.weight)
        nn.init.zeros_(attn.output_gate.weight)
        nn.init.constant_(attn.output_gate.bias, OPEN_GATE_BIAS)
        nn.init.zeros_(self.mlp.t_conv.weight)
        rows = attn.qkv.weight.chunk(3)
        for linear, row in zip((attn.q_proj_cam, attn.k_proj_cam, attn.v_proj_cam), rows, strict=True):
            linear.weight.copy_(row)
        if not attn.is_softmax:
            for convolution in (attn.conv_k, attn.conv_k_cam):
                nn.init.zeros_(convolution.weight)
                convolution.weight[..., -1] = 1
        for linear, gain in ((self.plucker_proj, 1.0), (attn.out_proj_cam, CAMERA_GAIN)):
            if fresh:
                nn.init.xavier_uniform_(linear.weight, gain=gain)
            else:
                nn.init.zeros_(linear.weight)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        text_mask: Tensor,
        plucker: Tensor,
        context: SequenceContext,
        state: State | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Transform tokens x [B, T, S, C].

        Args:
            modulation: [B, T, 6, C].
            text: [B, L, C].
            plucker: [B, T, S, C].
        """
        table = (self.scale_shift_table + modulation).to(x.dtype)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = table.chunk(6, dim=2)
        attended, after = self.attn(modulate(x, shift_a, scale_a), context, state)
        x = torch.addcmul(x, gate_a, attended.to(x.dtype))
        x = x + self.plucker_proj(plucker)
        x = x + self.cross_attn(x.flatten(1, 2), text, text_mask).view_as(x)
        history = None if state is None else state["ffn_history"]
        fed, last = self.mlp(modulate(x, shift_f, scale_f), context.grid, context.shard, history)
        if history is not None and context.keeps_state:
            after["ffn_history"] = own(last).to(history.dtype)
        return torch.addcmul(x, gate_f, fed.to(x.dtype)), after
