"""A small random SANA-WM in the layout of the release, and a world for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from engine.files.world import World, WorldInfo
from model.checkpoint import to_official, weights_sha256
from model.config import ModelConfig, sana_wm
from model.vae.ltx import LtxAutoencoder
from model.vae.ltx_config import LtxAutoencoderConfig
from tests.models import random_model

CONFIG = replace(
    sana_wm(),
    in_channels=6,
    hidden_size=32,
    num_heads=2,
    num_layers=2,
    softmax_every_n=2,
    text_dim=16,
    text_length=9,
    frame_height=64,
    frame_width=96,
)
AUTOENCODER = LtxAutoencoderConfig(
    latent_channels=6,
    block_out_channels=(8, 8, 16, 16),
    layers_per_block=(1,) * 5,
    decoder_block_out_channels=(8, 16, 32),
    decoder_layers_per_block=(1,) * 4,
)


def write_release(folder: Path, config: ModelConfig = CONFIG) -> str:
    """Write the streaming release: the student's training container and the causal autoencoder.

    Returns:
        The hash of the network's weights.
    """
    torch.manual_seed(0)
    network = random_model(config)
    official = {f"model.{name}": tensor for name, tensor in to_official(network.state_dict()).items()}
    (folder / "sana_dit").mkdir(parents=True)
    torch.save({"generator": official, "critic": {}}, folder / "sana_dit" / "model.pt")
    vae = folder / "ltx2_causal_vae"
    vae.mkdir()
    (vae / "config.json").write_text(
        json.dumps({"_class_name": "AutoencoderKLLTX2Video", **AUTOENCODER.model_dump()})
    )
    save_file(LtxAutoencoder(AUTOENCODER).state_dict(), vae / "diffusion_pytorch_model.safetensors")
    return weights_sha256(network)


def world_for(weights: str, config: ModelConfig = CONFIG) -> World:
    """Make a world of random latents for weights of that hash."""
    rng = np.random.default_rng(0)
    grid = config.in_channels, config.latent_height, config.latent_width
    width, height = config.frame_width, config.frame_height
    return World(
        WorldInfo(name="harbour", title="A harbour", licence="none", model=weights, caption="noise"),
        rng.standard_normal(grid, np.float32),
        rng.integers(0, 256, (height, width, 3), np.uint8),
        rng.standard_normal((config.text_length, config.text_dim), np.float32),
        np.ones(config.text_length, np.float32),
        np.array([width, width, width / 2, height / 2], np.float32),
        np.eye(4),
    )
