"""Small models whose every weight matters."""

from __future__ import annotations

import torch
from torch import nn

from model.config import ModelConfig
from model.world_model import WorldModel


def random_model(config: ModelConfig) -> WorldModel:
    """Build a model from torch's random numbers, none of its weights zero or one."""
    model = WorldModel(config, fresh=True)
    perturb(model)
    return model.eval()


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    """Move every weight a little, those that start silent too."""
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
