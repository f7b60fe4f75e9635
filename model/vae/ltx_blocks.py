"""Parts of the LTX-2 autoencoder: causal convolutions with explicit caches, residual blocks, samplers.

Letters: B batch, F frames, C channels, H x W pixels or cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.precision import own
from model.vae.ltx_config import STRIDES, LtxAutoencoderConfig, PaddingMode

TAPS = 3
"""Of every causal convolution, along time and space."""
NORM_EPS = 1e-8


class Stream:
    """The caches of one streaming call, taken and given back in the order in which convolutions run."""

    def __init__(self, caches: Sequence[Tensor], started: Tensor) -> None:
        """Begin a call; `started` [1] is 0 in the first call of a stream and 1 later."""
        self._before = iter(caches)
        self.after: list[Tensor] = []
        self.started = started

    def join(self, x: Tensor) -> Tensor:
        """Return x [B, C, F, H, W] behind the frames before it, and keep the last ones for the next call."""
        repeated = x[:, :, :1].expand(-1, -1, TAPS - 1, -1, -1)
        joined = torch.cat([torch.where(self.started > 0, next(self._before), repeated), x], dim=2)
        self.after.append(own(joined[:, :, 1 - TAPS :]))
        return joined

    def without_lead(self, x: Tensor) -> Tensor:
        """Let all frames of a first call be its last: it stands for one frame, whatever the graph's fixed length."""
        return torch.where(self.started > 0, x, x[:, :, -1:])


def once_started(started: Tensor) -> Tensor:
    """Return ones, by way of the cache [1] of 0 or 1: some graph runtimes refuse an output that no input leads to."""
    return (started + 1.0).clamp_max(1.0)


def normalise_channels(x: Tensor) -> Tensor:
    """Divide each pixel's channel vector by its root mean square: no statistics over time or space."""
    return x / torch.sqrt(x.square().mean(1, keepdim=True) + NORM_EPS)


class CausalConv(nn.Module):
    """A 3x3x3 convolution that never looks ahead."""

    def __init__(self, in_channels: int, out_channels: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, TAPS, padding=(0, 1, 1), padding_mode=padding_mode)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        if stream is not None:
            return self.conv(stream.join(x))
        return self.conv(torch.cat([x[:, :, :1].expand(-1, -1, TAPS - 1, -1, -1), x], dim=2))


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a normed linear shortcut where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, eps: float, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.conv1 = CausalConv(in_channels, out_channels, padding_mode)
        self.conv2 = CausalConv(out_channels, out_channels, padding_mode)
        self.changes_width = in_channels != out_channels
        if self.changes_width:
            self.norm3 = nn.LayerNorm(in_channels, eps=eps)
            self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        inner = self.conv1(functional.silu(normalise_channels(x)), stream)
        inner = self.conv2(functional.silu(normalise_channels(inner)), stream)
        if self.changes_width:
            x = self.conv_shortcut(self.norm3(x.movedim(1, -1)).movedim(-1, 1))
        return inner + x


def fold(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Move blocks of t x h x w cells into channels, [B, C * t * h * w, F / t, H / h, W / w]."""
    for axis, step in zip((2, 3, 4), stride, strict=True):
        # Unflattening splits an axis in two; what was folded before keeps its place among the channels.
        x = x.unflatten(axis, (-1, step)).movedim(axis + 1, 2).flatten(1, 2)
    return x


def unfold(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Undo `fold`."""
    for axis, step in zip((4, 3, 2), stride[::-1], strict=True):
        x = x.unflatten(1, (-1, step)).movedim(2, axis + 1).flatten(axis, axis + 1)
    return x


class Downsampler(nn.Module):
    """A convolution folded into channels, plus the means of the folded input."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int], padding_mode: PaddingMode
    ) -> None:
        super().__init__()
        self.stride = stride
        volume = stride[0] * stride[1] * stride[2]
        self.group = in_channels * volume // out_channels
        self.conv = CausalConv(in_channels, out_channels // volume, padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :, : self.stride[0] - 1], x], dim=2)
        mean = fold(x, self.stride).unflatten(1, (-1, self.group)).mean(2)
        return fold(self.conv(x, None), self.stride) + mean


class Upsampler(nn.Module):
    """A convolution unfolded from channels, plus the unfolded input repeated."""

    def __init__(
        self,
        in_channels: int,
        stride: tuple[int, int, int],
        residual: bool,
        factor: int,
        padding_mode: PaddingMode,
    ) -> None:
        super().__init__()
        self.stride, self.residual = stride, residual
        volume = stride[0] * stride[1] * stride[2]
        self.repeats = volume // factor
        self.conv = CausalConv(in_channels, in_channels * volume // factor, padding_mode)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        out = unfold(self.conv(x, stream), self.stride)
        if self.residual:
            out = out + unfold(x, self.stride).repeat(1, self.repeats, 1, 1, 1)
        if self.stride[0] == 1:
            return out
        return out[:, :, self.stride[0] - 1 :] if stream is None else stream.without_lead(out)


class MidBlock(nn.Module):
    """Blocks of one width."""

    def __init__(self, channels: int, num_layers: int, eps: float, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(channels, channels, eps, padding_mode) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for block in self.resnets:
            x = block(x, stream)
        return x


class DownBlock(MidBlock):
    """Blocks of one width, then a downsampler to the next."""

    def __init__(self, config: LtxAutoencoderConfig, stage: int, in_channels: int) -> None:
        mode = config.encoder_spatial_padding_mode
        super().__init__(in_channels, config.layers_per_block[stage], config.resnet_norm_eps, mode)
        self.downsamplers = nn.ModuleList()
        if config.spatio_temporal_scaling[stage]:
            stride = STRIDES[config.downsample_type[stage]]
            self.downsamplers.append(Downsampler(in_channels, config.block_out_channels[stage], stride, mode))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = super().forward(x, stream)
        for sampler in self.downsamplers:
            x = sampler(x)
        return x


class UpBlock(nn.Module):
    """An upsampler, then blocks of its width. Stages count from the latent; parts are listed in the order they run."""

    def __init__(self, config: LtxAutoencoderConfig, stage: int, in_channels: int) -> None:
        super().__init__()
        mode, eps = config.decoder_spatial_padding_mode, config.resnet_norm_eps
        factor = config.upsample_factor[::-1][stage]
        width = config.decoder_block_out_channels[::-1][stage] // factor
        changes_width = in_channels // factor != width
        self.conv_in = ResnetBlock(in_channels // factor, width, eps, mode) if changes_width else None
        self.upsamplers = nn.ModuleList()
        if config.decoder_spatio_temporal_scaling[::-1][stage]:
            stride = STRIDES[config.upsample_type[stage]]
            residual = config.upsample_residual[::-1][stage]
            self.upsamplers.append(Upsampler(width * factor, stride, residual, factor, mode))
        layers = config.decoder_layers_per_block[::-1][stage + 1]
        self.resnets = nn.ModuleList(ResnetBlock(width, width, eps, mode) for _ in range(layers))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.conv_in is not None:
            x = self.conv_in(x, stream)
        for module in (*self.upsamplers, *self.resnets):
            x = module(x, stream)
        return x
