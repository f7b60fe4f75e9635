"""Linear maps on the head vectors of each token: rotary positions over (time, row, column), and ray frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.config import ModelConfig

DENSE_LIMIT = 1 << 22
"""Numbers in a dense map above which a graph keeps the sparse form."""


def axis_pairs(width: int) -> tuple[int, int, int]:
    """Return how many rotary pairs of a head of `width` go to time, row and column."""
    spatial = 2 * (width // 6)
    return (width - 2 * spatial) // 2, spatial // 2, spatial // 2


def _frequencies(
    config: ModelConfig, num_pairs: int, kept: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    exponent = torch.arange(num_pairs, dtype=torch.float64, device=device) / num_pairs
    return (config.rope_theta**-exponent)[:kept].to(dtype)


def rotary_table(
    config: ModelConfig, frame_index: Tensor, width: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Build (cos, sin) of every token's angles, [B, T, S, pairs, 2].

    Args:
        frame_index: Absolute latent frame of each frame, [B, T] integer.
        width: Rotated channels of a head; a part takes the first frequencies of the full head's tables.
    """
    device = frame_index.device
    full = axis_pairs(config.head_dim)
    kept = axis_pairs(width or config.head_dim)
    rows = torch.arange(config.latent_height, device=device).repeat_interleave(config.latent_width)
    columns = torch.arange(config.latent_width, device=device).repeat(config.latent_height)
    bases = [_frequencies(config, full[n], kept[n], device, dtype) for n in range(3)]
    time = frame_index[..., None].to(dtype) * bases[0]
    space = torch.cat(
        [
            rows[:, None].to(dtype) * bases[1],
            columns[:, None].to(dtype) * bases[2],
        ],
        dim=-1,
    )
    shape = (*frame_index.shape, config.tokens_per_frame)
    time_turn = torch.stack([time.cos(), time.sin()], dim=-1)[:, :, None].expand(*shape, -1, 2)
    space_turn = torch.stack([space.cos(), space.sin()], dim=-1).expand(*shape, -1, 2)
    return torch.cat([time_turn, space_turn], dim=-2)


def conjugate(table: Tensor) -> Tensor:
    """Return the table of the opposite rotation."""
    cos, sin = table.unbind(-1)
    return torch.stack([cos, -sin], dim=-1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn each pair (x[2i], x[2i + 1]) of x [..., D] by its angle; table broadcastable to [..., D / 2, 2]."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling() or pairs.stride(-1) != 1:
        return _rotate_real(pairs, table).flatten(-2)
    # In eager mode one complex product is many times faster than four strided real ones.
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)).flatten(-2)


def _rotate_real(pairs: Tensor, table: Tensor) -> Tensor:
    real, imaginary = pairs.unbind(-1)
    cos, sin = table.unbind(-1)
    return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


@dataclass(frozen=True)
class HeadMap:
    """One linear map per token, the same for all heads: y = x M on row vectors.

    The first half of a head goes through 4x4 products in groups of four, where there is a `transform`; the rest is
    rotated pair by pair.
    """

    table: Tensor
    """(cos, sin) of the rotated pairs, [B, T, S, 1, pairs, 2]."""
    transform: Tensor | None = None
    """Applied to each group of four as a row, [B, T, S, 4, 4]."""
    matrix: Tensor | None = None
    """The whole map, [B, T, S, D, D], where one product serves better than many small ones."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map head vectors [B, T, S, h, D]."""
        if self.matrix is not None:
            return x @ self.matrix
        if self.transform is None:
            return rotate(x, self.table)
        half = x.shape[-1] // 2
        groups = x[..., :half].reshape(*x.shape[:3], -1, 4) @ self.transform
        turned = rotate(x[..., half:], self.table)
        return torch.cat([groups.reshape(*x.shape[:-1], half), turned], dim=-1)

    def dense(self) -> HeadMap:
        """Build the matrix, unless it would be too large to be worth it."""
        cos, sin = self.table.squeeze(3).unsqueeze(-1).unbind(-2)
        turns = torch.cat(
            [torch.cat([cos, sin], -1).unsqueeze(-2), torch.cat([-sin, cos], -1).unsqueeze(-2)], -2
        )
        if 4 * turns.numel() * turns.shape[-3] > DENSE_LIMIT:
            return self
        matrix = _block_diagonal(turns)
        if self.transform is not None:
            num_groups = matrix.shape[-1] // 4
            groups = self.transform.unsqueeze(-3).expand(*self.transform.shape[:-2], num_groups, 4, 4)
            moved = _block_diagonal(groups)
            empty = torch.zeros_like(moved)
            matrix = torch.cat([torch.cat([moved, empty], -1), torch.cat([empty, matrix], -1)], -2)
        return replace(self, matrix=matrix)


def _block_diagonal(blocks: Tensor) -> Tensor:
    """Place blocks [..., n, k, k] on the diagonal of [..., n k, n k]."""
    count, size = blocks.shape[-3], blocks.shape[-1]
    places = torch.eye(count, dtype=blocks.dtype, device=blocks.device).reshape(count, 1, count, 1)
    spread = blocks.unsqueeze(-2) * places
    return spread.reshape(*blocks.shape[:-3], count * size, count * size)
