"""The streaming decoder, and where there is one the encoder, that goes with a world model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from model.checkpoint import load_ltx_autoencoder
from model.config import ModelConfig
from model.vae.guided import (
    GuidedAutoencoder,
    GuidedAutoencoderConfig,
    GuidedStreamingDecoder,
    StreamingEncoder,
    autoencoder_in,
    load_autoencoder_weights,
)
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_config import LtxAutoencoderConfig

LTX_FOLDERS = ("ltx2_causal_vae", "vae")
"""Where a release keeps its autoencoder, the one that can be streamed first."""


def decoder_beside(checkpoint: Path, config: ModelConfig) -> nn.Module:
    """Load the decoder that lies with a checkpoint, float32, in evaluation mode.

    It is `autoencoder.safetensors` beside the checkpoint or in the bundle that was published with it, or for the released
    model a folder `ltx2_causal_vae` or `vae` beside the checkpoint or one level up.

    Raises:
        ValueError: It is missing or damaged, does not fit the model, or cannot be streamed.
    """
    if config.memory_channels:
        weights = autoencoder_in(checkpoint.parent)
        try:
            autoencoder = load_autoencoder_weights(weights)
        except ValueError as error:
            raise ValueError(f"{error}; it belongs beside the checkpoint it was trained with") from None
        _check_fit(config, autoencoder.config)
        return GuidedStreamingDecoder(autoencoder).eval()
    folder = ltx_folder(checkpoint)
    ltx = load_ltx_autoencoder(folder)
    if not ltx.config.decoder_causal:
        raise ValueError(
            f"the decoder in {folder} was trained to look ahead and cannot be streamed; fetch ltx2_causal_vae"
        )
    _check_fit(config, ltx.config)
    return _streaming(ltx).float()


def ltx_folder(checkpoint: Path) -> Path:
    """Return the folder of the released autoencoder beside a checkpoint, whether it is there or not."""
    folders = [base / name for base in (checkpoint.parent, checkpoint.parent.parent) for name in LTX_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def new_decoder(config: ModelConfig) -> nn.Module:
    """Build the decoder of a preset with random weights."""
    if not config.memory_channels:
        return _streaming(LtxAutoencoder(LtxAutoencoderConfig()))
    sizes = GuidedAutoencoderConfig(config.in_channels, config.temporal_stride)
    _check_fit(config, sizes)
    return GuidedStreamingDecoder(GuidedAutoencoder(sizes)).eval()


def encoder_of(decoder: nn.Module) -> StreamingEncoder | None:
    """The encoder that goes with a decoder; None where worlds are encoded elsewhere."""
    if isinstance(decoder, GuidedStreamingDecoder):
        return StreamingEncoder(decoder.autoencoder).eval().requires_grad_(False)
    return None


def _streaming(autoencoder: LtxAutoencoder) -> LtxStreamingDecoder:
    # Nothing here encodes, and the encoder is the larger half: 2.6 GiB.
    del autoencoder.encoder
    return LtxStreamingDecoder(autoencoder).eval()


def _check_fit(config: ModelConfig, sizes: GuidedAutoencoderConfig | LtxAutoencoderConfig) -> None:
    wanted = config.in_channels, config.temporal_stride, config.spatial_stride
    if (sizes.latent_channels, sizes.temporal_stride, sizes.spatial_stride) != wanted:
        raise ValueError(
            "there is no decoder for {}, whose latents have {} channels for {} frames and {} pixels a side".format(
                config.name, *wanted
            )
        )
