"""Small models whose every weight matters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.vae.guided import GuidedAutoencoderConfig
from model.world_model import WorldModel


def small_autoencoder(latent_channels: int, temporal_stride: int, width: int = 8) -> GuidedAutoencoderConfig:
    """Sizes of an autoencoder that takes no time; frames are still multiples of 32 pixels."""
    widths = (width, width, width)
    return GuidedAutoencoderConfig(latent_channels, temporal_stride, widths, width, widths, (1, 1, 1))


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


class SmallDecoder(nn.Module):
    """A decoder with one cache, in the form that the exporter expects; it is shown no guide."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.in_channels
        self.shape = (config.temporal_stride, config.spatial_stride, config.spatial_stride, 3)
        self.spread = nn.Linear(2 * self.channels, 3 * config.temporal_stride * config.spatial_stride**2)

    def cache_spec(self, latent_height: int, latent_width: int) -> list[tuple[str, tuple[int, ...]]]:
        return [("past", (1, self.channels, 1, latent_height, latent_width))]

    def forward(self, latent: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([latent, past], 1)[0, :, 0].permute(1, 2, 0)
        cells = self.spread(both).unflatten(-1, self.shape)
        frames = cells.permute(2, 0, 3, 1, 4, 5).flatten(1, 2).flatten(2, 3)
        return ((frames.tanh() + 1) * 127.5).round().to(torch.uint8), latent + 0.5 * past
