"""Softmax attention, the norm before it, and cross-attention to the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig
from model.precision import in_place, wide


def rms_norm(x: Tensor, norm: nn.RMSNorm, scale: float = 1.0) -> Tensor:
    """Normalise in float32, with a scale folded into the weight."""
    assert norm.eps is not None
    if torch.compiler.is_exporting():
        # Spelled out in the one form that graph runtimes recognise as a single operator.
        x = wide(x)
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return x / torch.sqrt(mean_square + norm.eps) * (wide(norm.weight) * scale)
    if x.device.type == "cpu" and in_place(x, norm.weight):
        # The norm of its own kernel writes no squares to memory.
        x = wide(x)
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
        return (x * torch.rsqrt(mean_square + norm.eps)).mul_(wide(norm.weight) * scale)
    return functional.rms_norm(wide(x), norm.normalized_shape, wide(norm.weight) * scale, norm.eps)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attend over [B, h, N, D] under an additive mask."""
    mask = None if mask is None else mask.to(q.dtype)
    if q.requires_grad and q.device.type == "cpu":
        # The fused backward pass on CPUs takes up to five times as long as plain products.
        scores = (q * scale) @ k.transpose(-1, -2)
        return (scores if mask is None else scores + mask).softmax(-1) @ v
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def padded_width(width: int) -> int:
    """Return the head width that fused softmax kernels pad to."""
    if width in (32, 64, 128, 256):
        return width
    return width if width > 256 else 128 if width < 128 else 256


class CrossAttention(nn.Module):
    """Image tokens read the text tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.q_linear = nn.Linear(size, size)
        self.kv_linear = nn.Linear(size, 2 * size)
        self.proj = nn.Linear(size, size)
        self.q_norm = nn.RMSNorm(size, eps=1e-6)
        self.k_norm = nn.RMSNorm(size, eps=1e-6)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Attend from x [B, N, C] to text [B, L, C] under an additive mask [B, 1, 1, L]."""
        query = self.q_linear(x)
        dtype = query.dtype
        key, value = self.kv_linear(text).chunk(2, dim=-1)
        query, key = rms_norm(query, self.q_norm).to(dtype), rms_norm(key, self.k_norm).to(dtype)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (query, key, value))
        out = softmax_attention(q, k, v, mask, q.shape[-1] ** -0.5)
        return self.proj(out.transpose(1, 2).flatten(2))
