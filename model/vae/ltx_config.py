"""The numbers that define an LTX-2 video autoencoder, read from diffusers' `config.json`; needs no tensor library."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StrictBool, ValidationError, model_validator

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
StageType = Literal["spatial", "temporal", "spatiotemporal"]
STRIDES: dict[StageType, tuple[int, int, int]] = {
    "spatial": (1, 2, 2),
    "temporal": (2, 1, 1),
    "spatiotemporal": (2, 2, 2),
}
"""What a stage of each type halves: time, height, width."""
Channels = Annotated[int, Field(strict=True, ge=1, le=1 << 14)]
Layers = Annotated[int, Field(strict=True, ge=1, le=256)]
"""Beyond these bounds a config is damaged or hostile."""
SUPPORTED_VALUES: dict[str, Any] = {"patch_size_t": 1, "timestep_conditioning": False, "encoder_causal": True}
"""Options of which one value is built."""
IGNORED_KEYS = {"spatial_compression_ratio", "temporal_compression_ratio", "gradient_checkpointing"}
"""Keys without influence on the network."""
FLAGS = {
    "spatio_temporal_scaling": "layers_per_block",
    "decoder_spatio_temporal_scaling": "decoder_layers_per_block",
    "upsample_residual": "decoder_layers_per_block",
}
"""Lists that one value may stand for, and the list that gives their length, plus one."""


class LtxAutoencoderConfig(BaseModel, frozen=True, extra="forbid"):
    """Sizes of the autoencoder; lists go from the pixels to the latent, but for `upsample_type`."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    latent_channels: Channels = 128
    block_out_channels: tuple[Channels, ...] = (256, 512, 1024, 2048)
    decoder_block_out_channels: tuple[Channels, ...] = (256, 512, 1024)
    layers_per_block: tuple[Layers, ...] = (4, 6, 6, 2, 2)
    """Residual blocks of each encoder stage, and of the middle."""
    decoder_layers_per_block: tuple[Layers, ...] = (5, 5, 5, 5)
    spatio_temporal_scaling: tuple[StrictBool, ...] = (True, True, True, True)
    """Whether each encoder stage halves anything."""
    decoder_spatio_temporal_scaling: tuple[StrictBool, ...] = (True, True, True)
    downsample_type: tuple[StageType, ...] = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    upsample_type: tuple[StageType, ...] = ("spatiotemporal", "spatiotemporal", "spatiotemporal")
    """From the latent to the pixels, unlike the other lists."""
    upsample_residual: tuple[StrictBool, ...] = (True, True, True)
    upsample_factor: tuple[Layers, ...] = (2, 2, 2)
    """By how much each decoder stage narrows."""
    patch_size: Channels = 4
    """Side of the pixel blocks folded into channels."""
    resnet_norm_eps: float = 1e-6
    decoder_causal: bool = True
    """Whether the decoder was trained to see no future frames; only such a one can be streamed."""
    scaling_factor: float = 1.0
    """Multiplies normalised latents."""
    encoder_spatial_padding_mode: PaddingMode = "zeros"
    decoder_spatial_padding_mode: PaddingMode = "reflect"

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        stages, decoder_stages = len(self.block_out_channels), len(self.decoder_block_out_channels)
        for name, length in {
            "layers_per_block": stages + 1,
            "spatio_temporal_scaling": stages,
            "downsample_type": stages,
            "decoder_layers_per_block": decoder_stages + 1,
            "decoder_spatio_temporal_scaling": decoder_stages,
            "upsample_type": decoder_stages,
            "upsample_residual": decoder_stages,
            "upsample_factor": decoder_stages,
        }.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries in place of {length}")
        return self

    @property
    def temporal_stride(self) -> int:
        """Video frames per latent frame."""
        return self._stride(0)

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent cell, along each side."""
        return self.patch_size * self._stride(1)

    def _stride(self, axis: int) -> int:
        stages = zip(self.downsample_type, self.spatio_temporal_scaling, strict=True)
        return math.prod(STRIDES[kind][axis] for kind, on in stages if on)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LtxAutoencoderConfig:
        """Translate diffusers' config; missing keys take the defaults, keys that begin with "_" are ignored.

        Raises:
            ValueError: An option is unknown or has a value that is not built.
        """
        ignored = {key for key in values if key.startswith("_")} | IGNORED_KEYS
        given = {key: value for key, value in values.items() if key not in ignored}
        for key, only in SUPPORTED_VALUES.items():
            if given.pop(key, only) != only:
                raise ValueError(f"{key} is {values[key]!r}; only {only!r} is supported")
        noise = given.pop("decoder_inject_noise", False)
        if any(noise) if isinstance(noise, list | tuple) else noise:
            raise ValueError("decoder_inject_noise is on; a decoder that draws noise cannot be replayed")
        if any(kind != "LTX2VideoDownBlock3D" for kind in given.pop("down_block_types", ())):
            raise ValueError("down_block_types names a block that is not supported; use LTX2VideoDownBlock3D")
        if "decoder_upsample_type" in given:
            # The causal release lists it from the pixels to the latent, diffusers the other way round.
            given["upsample_type"] = list(given.pop("decoder_upsample_type"))[::-1]
        for key, layers in FLAGS.items():
            if isinstance(given.get(key), bool):
                stages = len(given.get(layers, cls.model_fields[layers].default)) - 1
                given[key] = (given[key],) * stages
        try:
            return cls(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "the config"
            raise ValueError(f"{where}: {problem['msg']}") from None

    @classmethod
    def from_file(cls, path: Path) -> LtxAutoencoderConfig:
        """Read a `config.json`.

        Raises:
            ValueError: The file is unreadable or does not fit.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ValueError(
                f"cannot read {path}: {error.strerror}; give the config.json of the autoencoder"
            ) from None
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} cannot be used: {error}; give the config.json of the autoencoder"
            ) from None
