"""Linear maps on the head vectors of each token: rotary positions and ray frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.rotary import rotate

DENSE_LIMIT = 1 << 22
"""Numbers in a dense map above which a graph keeps the sparse form."""


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
