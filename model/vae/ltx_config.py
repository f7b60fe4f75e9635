"""The numbers that define an LTX-2 video autoencoder, read from diffusers' `config.json`; needs no tensor library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
STRIDES = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
"""What a stage of each type halves: time, height, width."""
SUPPORTED_VALUES: dict[str, Any] = {"patch_size_t": 1, "timestep_conditioning": False, "encoder_causal": True}
"""Options of which one value is built."""
IGNORED_KEYS = {"spatial_compression_ratio", "temporal_compression_ratio", "gradient_checkpointing"}
"""Keys that say nothing about the network."""
FLAGS = {
    "spatio_temporal_scaling": "layers_per_block",
    "decoder_spatio_temporal_scaling": "decoder_layers_per_block",
    "upsample_residual": "decoder_layers_per_block",
}
"""Lists that one value may stand for, and the list that says how long they are."""
MAX_CHANNELS, MAX_LAYERS = 1 << 14, 256
"""Beyond this a config is damaged or hostile."""


@dataclass(frozen=True)
class LtxAutoencoderConfig:
    """Sizes of the autoencoder; lists go from the pixels to the latent, but for `upsample_type`."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 128
    block_out_channels: tuple[int, ...] = (256, 512, 1024, 2048)
    decoder_block_out_channels: tuple[int, ...] = (256, 512, 1024)
    layers_per_block: tuple[int, ...] = (4, 6, 6, 2, 2)
    """Residual blocks of each encoder stage, and of the middle."""
    decoder_layers_per_block: tuple[int, ...] = (5, 5, 5, 5)
    spatio_temporal_scaling: tuple[bool, ...] = (True, True, True, True)
    """Whether each encoder stage halves anything."""
    decoder_spatio_temporal_scaling: tuple[bool, ...] = (True, True, True)
    downsample_type: tuple[str, ...] = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    upsample_type: tuple[str, ...] = ("spatiotemporal", "spatiotemporal", "spatiotemporal")
    """From the latent to the pixels, unlike the other lists."""
    upsample_residual: tuple[bool, ...] = (True, True, True)
    upsample_factor: tuple[int, ...] = (2, 2, 2)
    """By how much each decoder stage narrows."""
    patch_size: int = 4
    """Side of the pixel blocks folded into channels."""
    resnet_norm_eps: float = 1e-6
    decoder_causal: bool = True
    """Whether the decoder was trained to see no future frames; only such a one can be streamed."""
    scaling_factor: float = 1.0
    """Multiplies normalised latents."""
    encoder_spatial_padding_mode: PaddingMode = "zeros"
    decoder_spatial_padding_mode: PaddingMode = "reflect"

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_padding(self)
        for side in ("encoder", "decoder"):
            stages = len(self.block_out_channels if side == "encoder" else self.decoder_block_out_channels)
            lists = _stage_lists(self, side)
            wrong = [name for name, (values, extra) in lists.items() if len(values) != stages + extra]
            if wrong:
                raise ValueError(f"{wrong[0]} does not fit the {stages} {side} stages; correct the config")
        unknown = [kind for kind in (*self.downsample_type, *self.upsample_type) if kind not in STRIDES]
        if unknown:
            raise ValueError(
                f"stage type {unknown[0]!r} is not supported; use one of {', '.join(map(repr, STRIDES))}"
            )

    @property
    def temporal_stride(self) -> int:
        """Video frames per latent frame."""
        return self._stride(0)

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return self.patch_size * self._stride(1)

    def _stride(self, axis: int) -> int:
        stride = 1
        for kind, on in zip(self.downsample_type, self.spatio_temporal_scaling, strict=True):
            stride *= STRIDES[kind][axis] if on else 1
        return stride

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LtxAutoencoderConfig:
        """Translate diffusers' config; missing keys take the defaults, keys that begin with "_" are ignored.

        Raises:
            ValueError: An option is unknown or has a value that is not built.
        """
        given = {key: value for key, value in values.items() if not key.startswith("_")}
        for key, only in SUPPORTED_VALUES.items():
            if given.pop(key, only) != only:
                raise ValueError(f"{key} is {values[key]!r}; only {only!r} is supported")
        noise = given.pop("decoder_inject_noise", False)
        if any(noise) if isinstance(noise, list | tuple) else noise:
            raise ValueError("decoder_inject_noise is on; a decoder that draws noise cannot be replayed")
        blocks = given.pop("down_block_types", ())
        if any(kind != "LTX2VideoDownBlock3D" for kind in blocks):
            raise ValueError("down_block_types names a block that is not supported; use LTX2VideoDownBlock3D")
        if "decoder_upsample_type" in given:
            # The causal release lists it from the pixels to the latent, diffusers the other way round.
            given["upsample_type"] = list(given.pop("decoder_upsample_type"))[::-1]
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(given) - set(known) - IGNORED_KEYS)
        if unknown:
            raise ValueError(f"unknown autoencoder settings {unknown}; the file is of another version")
        chosen = {key: value for key, value in given.items() if key in known}
        for key, blocks_key in FLAGS.items():
            if isinstance(chosen.get(key), bool):
                stages = len(chosen.get(blocks_key, known[blocks_key].default)) - 1
                chosen[key] = (chosen[key],) * stages
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}
        return cls(**tuples)

    @classmethod
    def from_file(cls, path: Path) -> LtxAutoencoderConfig:
        """Read a `config.json`.

        Raises:
            ValueError: The file is unreadable or does not fit.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot read {path}: {error}; give the config.json of the autoencoder"
            ) from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds no config; give the config.json of the autoencoder")
        try:
            return cls.from_dict(values)
        except TypeError as error:
            raise ValueError(f"{path} is no config of this autoencoder: {error}; fetch it again") from None


def _check_numbers(config: LtxAutoencoderConfig) -> None:
    """Refuse what no autoencoder is made of."""

    def bounded(value: Any, largest: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest

    for name, largest in (
        *((key, MAX_CHANNELS) for key in ("block_out_channels", "decoder_block_out_channels")),
        *((key, MAX_LAYERS) for key in ("layers_per_block", "decoder_layers_per_block", "upsample_factor")),
    ):
        values = getattr(config, name)
        if not isinstance(values, tuple) or not all(bounded(value, largest) for value in values):
            raise ValueError(f"{name} is {values!r}; it must list whole numbers from 1 to {largest}")
    for name in ("in_channels", "out_channels", "latent_channels", "patch_size"):
        if not bounded(getattr(config, name), MAX_CHANNELS):
            raise ValueError(
                f"{name} is {getattr(config, name)!r}; it must be a whole number from 1 to {MAX_CHANNELS}"
            )


def _check_padding(config: LtxAutoencoderConfig) -> None:
    for mode in (config.encoder_spatial_padding_mode, config.decoder_spatial_padding_mode):
        if mode not in get_args(PaddingMode):
            raise ValueError(
                f"spatial padding {mode!r} is not known; use one of {', '.join(get_args(PaddingMode))}"
            )


def _stage_lists(config: LtxAutoencoderConfig, side: str) -> dict[str, tuple[tuple[Any, ...], int]]:
    """Lists with one value per stage, and how many they have beyond."""
    if side == "encoder":
        return {
            "layers_per_block": (config.layers_per_block, 1),
            "spatio_temporal_scaling": (config.spatio_temporal_scaling, 0),
            "downsample_type": (config.downsample_type, 0),
        }
    return {
        "decoder_layers_per_block": (config.decoder_layers_per_block, 1),
        "decoder_spatio_temporal_scaling": (config.decoder_spatio_temporal_scaling, 0),
        "upsample_type": (config.upsample_type, 0),
        "upsample_residual": (config.upsample_residual, 0),
        "upsample_factor": (config.upsample_factor, 0),
    }
