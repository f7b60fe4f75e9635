"""Layers that the refiner and its text connectors share; attribute names follow the release."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention.softmax import rms_norm, softmax_attention
from model.precision import wide
from model.refiner.config import RopeType
from model.refiner.rotary import RotaryTable, rotate

EPS = 1e-6
"""Of every norm."""


def normalise(x: Tensor) -> Tensor:
    """Divide by the root mean square over all channels, in float32 at least."""
    return functional.rms_norm(wide(x), x.shape[-1:], None, EPS).to(x.dtype)


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
        return self._heads(self._norm(self.to_q(x), self.norm_q))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project x [B, N, C] to keys, not yet rotated, and values, [B, h, N, D] each."""
        return self._heads(self._norm(self.to_k(x), self.norm_k)), self._heads(self.to_v(x))

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
        key, value = torch.cat(list(keys), 2), torch.cat(list(values), 2)
        out = softmax_attention(queries, key, value, mask, queries.shape[-1] ** -0.5)
        if self.to_gate_logits is not None:
            gates = 2 * torch.sigmoid(self.to_gate_logits(x))
            out = out * gates.transpose(1, 2)[..., None]
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    @staticmethod
    def _norm(x: Tensor, norm: nn.RMSNorm) -> Tensor:
        return rms_norm(x, norm).to(x.dtype)

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
