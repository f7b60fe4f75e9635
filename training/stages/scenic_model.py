"""A world model with the text embeddings of the scenes that it is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.scene_memory import random_memory
from model.world_model import WorldModel


class ScenicModel(nn.Module):
    """A world model and what it is trained with for each scene: tokens to attend to, and a memory."""

    def __init__(self, config: ModelConfig, num_scenes: int) -> None:
        super().__init__()
        self.world = WorldModel(config, fresh=True)
        self.scenes = nn.Parameter(torch.randn(num_scenes, config.text_length, config.text_dim))
        """[num_scenes, L, D]."""
        fresh = [random_memory(config) for _ in range(num_scenes)] if config.memory_rows else []
        self.memories = nn.ParameterList(matrix for memory in fresh for matrix in memory.flatten(0, 1))
        """Keys and values [U, D] of each scene, of each block: matrices of their own, as optimisers take them."""

    def memory(self) -> Tensor:
        """The memories of all scenes, [num_scenes, num_layers, 2, U, D]."""
        return torch.stack(list(self.memories)).unflatten(0, (len(self.scenes), -1, 2))

    def text(self, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Text and mask of the scenes in a batch, memory in front: [B, L, D] and [B, L]."""
        text = self.scenes[scene]
        if len(self.memories):
            text = torch.cat([self.memory()[scene].flatten(1, 3), text], dim=1)
        return text, torch.ones(text.shape[:2], device=text.device)

    @torch.no_grad()
    def set_text(self, scene: int, text: Tensor) -> None:
        """Put a scene's text [L, D], as `text` gives it, back.

        Raises:
            ValueError: It is of another size.
        """
        rows = self.world.config.memory_rows
        if text.shape != (rows + self.scenes.shape[1], self.scenes.shape[2]):
            raise ValueError(f"a scene's text has the shape {list(text.shape)}, which is not this model's")
        self.scenes[scene] = text[rows:]
        if rows:
            matrices = text[:rows].unflatten(0, (len(self.memories) // len(self.scenes), -1))
            for own, matrix in zip(self.memories[scene * len(matrices) :], matrices, strict=False):
                own.copy_(matrix)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a weight: the blocks' own matrices, neither embedders nor the output layer nor scene tokens."""
    return ".blocks." in name and parameter.ndim >= 2 and "scale_shift" not in name
