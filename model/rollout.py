"""The rollout state that a chunk passes to the next: named tensors of fixed size, float32 (float64 in a float64 network).

Caches and histories are rounded to the network's precision wherever they are read, so they may be kept in it: `ROUNDED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig

NUM_FRAMES = "num_frames"
"""State tensor that counts the committed latent frames of each sample, and so which cached keys are real."""


ROUNDED = ("key", "value", "camera_key", "camera_value", "key_history", "ffn_history")
"""Ends of the names of state tensors that may be kept in the network's own precision without changing anything."""


def is_rounded(name: str) -> bool:
    """Whether a state tensor is rounded to the network's precision wherever it is read."""
    part = name.rpartition(".")[2]
    return part in ROUNDED or part.partition("_")[2] in ROUNDED


def state_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """List every state tensor's shape, without the batch axis, in the order graphs take them."""
    heads, width, tokens = config.num_heads, config.head_dim, config.tokens_per_frame
    shapes: dict[str, tuple[int, ...]] = {NUM_FRAMES: ()}
    for layer in range(config.num_layers):
        prefix = f"blocks.{layer}."
        if config.is_softmax(layer):
            kept = {"sink": config.sink_frames, "window": config.window_frames}
            for part, frames in kept.items():
                for name in ("key", "value", "camera_key", "camera_value"):
                    if frames:
                        shapes[f"{prefix}{part}_{name}"] = (heads, frames * tokens, width)
        else:
            shapes[prefix + "numerator"] = (heads, width, width)
            shapes[prefix + "normaliser"] = (heads, width)
            shapes[prefix + "camera_numerator"] = (heads, width, width)
            shapes[prefix + "key_history"] = (config.conv_kernel - 1, tokens, config.hidden_size)
        shapes[prefix + "ffn_history"] = (1, tokens, config.hidden_size)
    return shapes


@dataclass(frozen=True)
class RolloutState:
    """Recurrent states and key-value caches after some committed chunks; never changed in place."""

    tensors: Mapping[str, Tensor]
    """By name, each [B, ...]; names and shapes are `state_shapes`."""

    @classmethod
    def zeros(
        cls,
        config: ModelConfig,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> RolloutState:
        """Make the state before anything was committed."""
        return cls(
            {
                n: torch.zeros(batch, *shape, device=device, dtype=dtype)
                for n, shape in state_shapes(config).items()
            }
        )

    def block(self, layer: int) -> dict[str, Tensor]:
        """Pick one block's tensors, named without their prefix."""
        prefix = f"blocks.{layer}."
        return {n.removeprefix(prefix): tensor for n, tensor in self.tensors.items() if n.startswith(prefix)}

    def detach(self) -> RolloutState:
        """Cut the graph, so that the next window's gradient stops here."""
        return RolloutState({name: tensor.detach() for name, tensor in self.tensors.items()})
