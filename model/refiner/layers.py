"""Layers that the refiner and its text connectors share; attribute names follow the release."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.refiner.config import RopeType
from model.refiner.rotary import RotaryTable, rotate

EPS = 1e-6
"""Of every norm."""


def normalise(x: Tensor, norm: nn.RMSNorm | None = None) -> Tensor:
    """Divide by the root mean square over all channels, in float32 at least; without a norm there is no weight."""
    wide = x if x.dtype == torch.float64 else x.float()
    weight = None if norm is None else norm.weight.to(wide.dtype)
    return functional.rms_norm(wide, x.shape[-1:], weight, EPS).to(x.dtype)


class Attention(nn.Module):
    """Multi-head softmax attention; queries and keys are normalised over all heads together."""

    def __init__(self, width: int, num_heads: int, rope_type: RopeType, gated: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rope_type: RopeType = rope_type
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q = nn.RMSNorm(width, eps=EPS)
        self.norm_k = nn.RMSNorm(width, eps=EPS)
        self.to_gate_logits = nn.Linear(width, num_heads) if gated else None

    def rotate(self, x: Tensor, table: RotaryTable) -> Tensor:
        """Rotate queries or keys [B, h, N, D]."""
        return rotate(x, table, self.rope_type)

    def queries(self, x: Tensor) -> Tensor:
        """Project x [B, N, C] to queries [B, h, N, D], not yet rotated."""
        return self._heads(normalise(self.to_q(x), self.norm_q))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project x [B, N, C] to keys, not yet rotated, and values, [B, h, N, D] each."""
        return self._heads(normalise(self.to_k(x), self.norm_k)), self._heads(self.to_v(x))

    def forward(
        self,
        x: Tensor,
        queries: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend and project.

        Args:
            x: What the queries, and the gates if there are any, come from, [B, N, C].
            queries: [B, h, N, D].
            keys, values: Runs of tokens, [B, h, *, D] each.
            mask: Additive, broadcastable to [B, h, N, keys]; None shows everything.

        Returns:
            [B, N, C].
        """
        mask = None if mask is None else mask.to(queries.dtype)
        out = functional.scaled_dot_product_attention(
            queries, torch.cat(list(keys), 2), torch.cat(list(values), 2), mask
        )
        if self.to_gate_logits is not None:
            gates = 2 * torch.sigmoid(self.to_gate_logits(x))
            out = out * gates.transpose(1, 2)[..., None]
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class _GeluProjection(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Layer 1 is a dropout in the release, which has no weights.
        self.net = nn.ModuleDict({"0": _GeluProjection(width, 4 * width), "2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["2"](self.net["0"](x))
