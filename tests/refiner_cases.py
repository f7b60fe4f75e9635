"""Small random refiners, with diffusers' implementation beside ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.refiner import (
    Refiner,
    RefinerConfig,
    TextConnectors,
    connectors_from_diffusers,
    from_diffusers,
)

CHANNELS = 6
CAPTION_WIDTH = 10
FPS = 16.0


def refiner_config(**changes: Any) -> dict[str, Any]:
    """Config of a small transformer, audio path included, as diffusers writes it."""
    return {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "num_layers": 3,
        "caption_channels": CAPTION_WIDTH,
        "audio_in_channels": 4,
        "audio_out_channels": 4,
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 4,
        "audio_cross_attention_dim": 8,
        "rope_type": "split",
        **changes,
    }


def connector_config(**changes: Any) -> dict[str, Any]:
    """Config of small connectors, as diffusers writes it."""
    return {
        "caption_channels": 24,
        "text_proj_in_factor": 5,
        "video_connector_num_attention_heads": 3,
        "video_connector_attention_head_dim": 8,
        "video_connector_num_layers": 2,
        "video_connector_num_learnable_registers": 4,
        "audio_connector_num_attention_heads": 3,
        "audio_connector_attention_head_dim": 8,
        "audio_connector_num_layers": 1,
        "audio_connector_num_learnable_registers": 4,
        "rope_type": "split",
        **changes,
    }


def randomise(module: nn.Module, seed: int) -> None:
    """Draw every parameter, tables and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)


def reference_refiner(dtype: torch.dtype, **changes: Any) -> Any:
    """Diffusers' transformer with random weights."""
    module = pytest.importorskip("diffusers.models.transformers.transformer_sana_wm_refiner")
    reference = module.SanaWMLTX2RefinerTransformer3DModel(**refiner_config(**changes)).eval()
    randomise(reference, 1)
    return reference.to(dtype)


def refiner_pair(dtype: torch.dtype, **changes: Any) -> tuple[Any, Refiner]:
    """Diffusers' transformer and ours with the same weights."""
    reference = reference_refiner(dtype, **changes)
    return reference, from_diffusers(dict(reference.config), reference.state_dict())


def connector_pair(dtype: torch.dtype, **changes: Any) -> tuple[Any, TextConnectors]:
    """Diffusers' connectors and ours with the same weights."""
    module = pytest.importorskip("diffusers.pipelines.ltx2.connectors")
    reference = module.LTX2TextConnectors(**connector_config(**changes)).eval()
    randomise(reference, 2)
    reference = reference.to(dtype)
    return reference, connectors_from_diffusers(dict(reference.config), reference.state_dict())


def small_refiner(dtype: torch.dtype = torch.float64, **changes: Any) -> Refiner:
    """Our transformer with random weights, without diffusers."""
    refiner = Refiner(RefinerConfig.from_dict(refiner_config(**changes))).eval()
    randomise(refiner, 3)
    return refiner.to(dtype).requires_grad_(False)


def random_clip(num_frames: int, dtype: torch.dtype, grid: tuple[int, int] = (3, 4)) -> Tensor:
    """Latents [1, C, T, H, W]."""
    generator = torch.Generator().manual_seed(num_frames)
    return torch.randn(1, CHANNELS, num_frames, *grid, generator=generator, dtype=dtype)


def random_text(dtype: torch.dtype, length: int = 7, valid: int = 5) -> tuple[Tensor, Tensor]:
    """Text [1, L, D] and a mask [1, L] that hides its first tokens."""
    generator = torch.Generator().manual_seed(length)
    text = torch.randn(1, length, CAPTION_WIDTH, generator=generator, dtype=dtype)
    mask = (torch.arange(length) >= length - valid).to(dtype)[None]
    return text, mask


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference beside the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
