"""Scene memory: a small network per block whose weights a scene brings along, as rows of its text.

Feed-forward layers are key-value memories (Geva et al., 2021); here keys and values belong to the scene, so that one model can
know many places by heart without any of them taking room in the weights of others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import ModelConfig


class SceneMemory(nn.Module):
    """One block's reading of the scene's memory: gelu(norm(x) K^T) V."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Read the memory for tokens x [B, N, C]; keys and values [B, U, C]."""
        return functional.gelu(self.norm(x) @ keys.transpose(1, 2), approximate="tanh") @ values


def split_memory(config: ModelConfig, text: Tensor) -> tuple[Tensor | None, int]:
    """Find the scene's memory in its text [B, L, D].

    The first `memory_rows` of the text are the memory: keys, then values, of block 0, of block 1, and so on.

    Returns:
        The memory, [B, num_layers, 2, U, D] (None where the model has none), and how many rows of the text it takes.
    """
    rows = config.memory_rows
    if not rows:
        return None, 0
    memory = text[:, :rows].unflatten(1, (config.num_layers, 2, config.scene_units))
    return memory, rows


def random_memory(config: ModelConfig) -> Tensor:
    """Make a memory to learn from: [num_layers, 2, U, D]; what all blocks add together is about as large as a token."""
    shape = (config.num_layers, config.scene_units, config.text_dim)
    keys = torch.randn(shape) * config.text_dim**-0.5
    values = torch.randn(shape) * 0.5 * config.scene_units**-0.5
    return torch.stack([keys, values], dim=1)
