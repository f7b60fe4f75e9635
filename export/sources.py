"""What there is to export: a model and its decoder, by name or from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.machine.assets import bundle_names, checkpoints_dir, find_bundle
from model.checkpoint import load_checkpoint, load_ltx_autoencoder
from model.config import ModelConfig, pocket, sana_wm
from model.vae.guided import (
    AUTOENCODER_FILE,
    GuidedAutoencoder,
    GuidedAutoencoderConfig,
    GuidedStreamingDecoder,
    StreamingEncoder,
    load_autoencoder_weights,
)
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_config import LtxAutoencoderConfig
from model.world_model import WorldModel

PRESETS = {"pocket": pocket, "sana-wm": sana_wm}
LTX_FOLDERS = ("ltx2_causal_vae", "vae")
SEED = 0
"""Of random weights."""
RANDOM_WEIGHTS = "random weights"
"""What the description of a bundle made from them notes."""


def open_source(
    name: str, random_weights: bool, frame_size: tuple[int, int] | None = None
) -> tuple[WorldModel, nn.Module]:
    """Return a model and its streaming decoder, float32, in evaluation mode.

    Args:
        name: `pocket` or `sana-wm`, or the path of a checkpoint with its autoencoder beside it: `autoencoder.safetensors`, or
            for the released model a folder `vae` or `ltx2_causal_vae` there or one level up.
        random_weights: Take a preset's sizes with weights drawn from a fixed seed.
        frame_size: Width and height to generate at, pixels; the weights fit all. None keeps the model's own.

    Raises:
        ValueError: There is no such model, or its latents do not divide such frames.
    """
    model, decoder = _open_source(name, random_weights)
    # Without gradients nothing needs to be copied before it is exported.
    for module in (model, decoder):
        module.requires_grad_(False)
    if frame_size is not None:
        width, height = frame_size
        model.config = replace(model.config, frame_width=width, frame_height=height)
    return model, decoder


def shipped(model: str, random_weights: bool) -> tuple[str, list[float] | None]:
    """Return the checkpoint that a name stands for, and the schedule of its bundle, where both come with Flaneur."""
    checkpoint = checkpoints_dir() / f"{model}.safetensors"
    if random_weights or model not in bundle_names() or not checkpoint.is_file():
        return model, None
    return str(checkpoint), list(find_bundle(model, verify=False).spec.timesteps)


def _open_source(name: str, random_weights: bool) -> tuple[WorldModel, nn.Module]:
    if name in PRESETS:
        if not random_weights:
            raise ValueError(
                f"{name} names the sizes of a model, not its weights; name a checkpoint file, or add --random-weights"
            )
        torch.manual_seed(SEED)
        config = PRESETS[name]()
        decoder = new_decoder(config)
        return WorldModel(config, fresh=True).eval(), decoder
    path = Path(name)
    if random_weights:
        raise ValueError(f"--random-weights goes with {' or '.join(PRESETS)}, not with {name!r}")
    if not path.exists():
        raise ValueError(f"there is no model {name!r}; use {', '.join(PRESETS)} or the path of a checkpoint")
    # Official files carry no config, and there is one released model.
    model = load_checkpoint(path, sana_wm(), torch.float32).eval()
    return model, _decoder_beside(path, model.config)


def encoder_of(decoder: nn.Module) -> StreamingEncoder | None:
    """The encoder that goes with a decoder of `open_source`, for bundles; None where worlds are encoded elsewhere."""
    if isinstance(decoder, GuidedStreamingDecoder):
        return StreamingEncoder(decoder.autoencoder).eval().requires_grad_(False)
    return None


def picture_encoder(encoder: StreamingEncoder | None) -> Callable[[NDArray[np.uint8]], Tensor] | None:
    """An encoder as a function of frames [R, H, W, 3] to a latent [1, C, 1, h, w]; None for none."""
    if encoder is None:
        return None
    return lambda frames: encoder(torch.from_numpy(np.ascontiguousarray(frames)))


def _decoder_beside(path: Path, config: ModelConfig) -> nn.Module:
    if config.memory_channels:
        weights = path.parent / AUTOENCODER_FILE
        try:
            autoencoder = load_autoencoder_weights(weights)
        except ValueError as error:
            raise ValueError(f"{error}; it belongs beside the checkpoint it was trained with") from None
        _check_fit(config, autoencoder.config)
        return GuidedStreamingDecoder(autoencoder).eval()
    folders = [base / name for base in (path.parent, path.parent.parent) for name in LTX_FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    autoencoder = load_ltx_autoencoder(folder, torch.float32)
    if not autoencoder.config.decoder_causal:
        raise ValueError(
            f"the decoder in {folder} was trained to look ahead and cannot be streamed; fetch ltx2_causal_vae"
        )
    return _ltx_decoder(autoencoder)


def new_decoder(config: ModelConfig) -> nn.Module:
    if not config.memory_channels:
        return _ltx_decoder(LtxAutoencoder(LtxAutoencoderConfig()))
    sizes = GuidedAutoencoderConfig(config.in_channels, config.temporal_stride)
    _check_fit(config, sizes)
    return GuidedStreamingDecoder(GuidedAutoencoder(sizes)).eval()


def _ltx_decoder(autoencoder: LtxAutoencoder) -> nn.Module:
    # Nothing here encodes, and the encoder is the larger half: 2.6 GiB.
    del autoencoder.encoder
    return LtxStreamingDecoder(autoencoder).eval()


def _check_fit(config: ModelConfig, sizes: GuidedAutoencoderConfig) -> None:
    wanted = config.in_channels, config.temporal_stride, config.spatial_stride
    if (sizes.latent_channels, sizes.temporal_stride, sizes.spatial_stride) != wanted:
        raise ValueError(
            "there is no decoder for {}, whose latents have {} channels for {} frames and {} pixels a side".format(
                config.name, *wanted
            )
        )
