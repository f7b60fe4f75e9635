"""Depth of one picture: what a world that begins with a photo knows of the shape of what it shows.

A small network of convolutions at a quarter, an eighth and a sixteenth of the picture's resolution. It is given where each pixel
lies beside the picture itself, since ground is near at the bottom, and was trained through one lens; through another the depth is
the same times the ratio of focal lengths (as in Metric3D, arXiv 2307.10984).

Letters: N pictures, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.vae.guided import RGB, STEM, ChannelNorm, ResidualBlock

FAR = 0.01
"""Inverse depth, 1/m, that is added before the logarithm is taken: beyond a hundred metres differences hardly count."""
SKY = 0.003
"""Inverse depth below which a pixel is taken for sky."""
FINISH_WIDTH = 12
"""Channels of the last layers, at the picture's own resolution."""


@dataclass(frozen=True)
class DepthConfig:
    """Sizes of the network."""

    widths: tuple[int, int, int] = (40, 80, 160)
    """Channels at a quarter, an eighth and a sixteenth of the picture's resolution."""
    dilations: tuple[int, ...] = (1, 2, 4) * 5 + (1,)
    """Of the blocks at a sixteenth of the resolution: together they see the whole picture."""


class BottleneckBlock(nn.Module):
    """x + expand(silu(conv(silu(reduce(norm(x)))))), the convolution dilated and half as wide."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        inner = channels // 2
        self.norm = ChannelNorm(channels)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.conv = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)
        self.expand = nn.Conv2d(inner, channels, 1)
        nn.init.normal_(self.expand.weight, std=0.2 / inner**0.5)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(functional.silu(self.reduce(self.norm(x))))
        return x + self.expand(functional.silu(seen))


class DepthNetwork(nn.Module):
    """A picture to the logarithm of its inverse depth."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        wide, deep, deepest = config.widths
        self.conv_in = nn.Conv2d(RGB * STEM**2 + 2, wide, 3, padding=1)
        self.block_in = ResidualBlock(wide)
        self.down = nn.Conv2d(4 * wide, deep, 1)
        self.deep_in = ResidualBlock(deep)
        self.deeper = nn.Conv2d(4 * deep, deepest, 1)
        self.deepest = nn.Sequential(*[BottleneckBlock(deepest, dilation) for dilation in config.dilations])
        self.up = nn.Conv2d(deepest, 4 * deep, 1)
        self.deep_out = ResidualBlock(deep)
        self.rise = nn.Conv2d(deep, 4 * wide, 1)
        self.block_out = ResidualBlock(wide)
        self.norm = ChannelNorm(wide)
        self.conv_out = nn.Conv2d(wide, STEM**2, 3, padding=1)
        self.finish_in = nn.Conv2d(RGB + 1, FINISH_WIDTH, 3, padding=1)
        self.finish_mid = nn.Conv2d(FINISH_WIDTH, FINISH_WIDTH, 3, padding=2, dilation=2)
        self.finish_out = nn.Conv2d(FINISH_WIDTH, 1, 3, padding=1)
        nn.init.zeros_(self.finish_out.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        """Tell depth.

        Args:
            pictures: In [-1, 1], sides multiples of 16, [N, 3, H, W].

        Returns:
            log(inverse depth + FAR), [N, H, W].
        """
        folded = functional.pixel_unshuffle(pictures, STEM)
        quarter = self.block_in(self.conv_in(torch.cat([folded, _positions(folded)], 1)))
        eighth = self.deep_in(self.down(functional.pixel_unshuffle(quarter, 2)))
        x = self.deepest(self.deeper(functional.pixel_unshuffle(eighth, 2)))
        x = self.deep_out(eighth + functional.pixel_shuffle(self.up(x), 2))
        x = self.block_out(quarter + functional.pixel_shuffle(self.rise(x), 2))
        told = functional.pixel_shuffle(self.conv_out(functional.silu(self.norm(x))), STEM)
        # At full size: the steps of silhouettes follow the picture's own edges.
        x = functional.silu(self.finish_in(torch.cat([pictures, told], 1)))
        return (told + self.finish_out(functional.silu(self.finish_mid(x))))[:, 0]


def _positions(folded: Tensor) -> Tensor:
    """Where the cells of [N, C, h, w] lie, down and across, in [-1, 1], [N, 2, h, w]."""
    height, width = folded.shape[-2:]
    down = torch.linspace(-1, 1, height, dtype=folded.dtype, device=folded.device)[:, None].expand(-1, width)
    across = torch.linspace(-1, 1, width, dtype=folded.dtype, device=folded.device).expand(height, -1)
    return torch.stack([down, across]).expand(len(folded), -1, -1, -1)


class DepthGraph(nn.Module):
    """The network as a graph: one picture in, its inverse depth out."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        """Tell the inverse depth, 1/m, 0 for sky, [H, W], of a picture, uint8 [H, W, 3], through the lens of the training."""
        dtype = self.network.conv_in.weight.dtype
        told = self.network(picture.to(dtype).permute(2, 0, 1)[None] / 127.5 - 1.0)[0].float()
        inverse = told.exp() - FAR
        return torch.where(inverse < SKY, 0.0, inverse)
