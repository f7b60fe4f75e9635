"""A world model with the text embeddings of the scenes that it is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.world_model import WorldModel

NO_SCENE = -1
"""Number of what is no scene of its own: its text is zeros, as that of worlds which nobody described."""


class ScenicModel(nn.Module):
    """A world model and the tokens that it attends to in each scene."""

    def __init__(self, config: ModelConfig, num_scenes: int) -> None:
        super().__init__()
        self.world = WorldModel(config, fresh=True)
        self.scenes = nn.Parameter(torch.randn(num_scenes, config.text_length, config.text_dim))
        """[num_scenes, L, D]."""

    def text(self, scene: Tensor) -> tuple[Tensor, Tensor]:
        """Text and mask of the scenes in a batch: [B, L, D] and [B, L]; zeros for NO_SCENE."""
        known = (scene != NO_SCENE).to(self.scenes.dtype)[:, None, None]
        text = self.scenes[scene.clamp_min(0)] * known
        return text, torch.ones(text.shape[:2], device=text.device)

    @torch.no_grad()
    def set_text(self, scene: int, text: Tensor) -> None:
        """Put a scene's text [L, D], as `text` gives it, back.

        Raises:
            ValueError: It is of another size.
        """
        if text.shape != self.scenes.shape[1:]:
            raise ValueError(f"a scene's text has the shape {list(text.shape)}, which is not this model's")
        self.scenes[scene] = text


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a weight: the blocks' own matrices, neither embedders nor the output layer nor scene tokens."""
    return ".blocks." in name and parameter.ndim >= 2 and "scale_shift" not in name
