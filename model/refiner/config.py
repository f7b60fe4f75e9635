"""Sizes of the LTX-2 refiner and its text connectors, read from diffusers' `config.json`; needs no tensor library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

RopeType = Literal["interleaved", "split"]
MAX_SIZE = 1 << 20
"""Of any whole number in a config."""


@dataclass(frozen=True)
class _DiffusersConfig:
    """What both configs share: the translation from diffusers' keys."""

    WHAT: ClassVar[str]
    SUPPORTED_VALUES: ClassVar[Mapping[str, Any]]
    """Options of which one value is built."""
    IGNORED_KEYS: ClassVar[frozenset[str]]
    """Keys that say nothing about the video path."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Translate diffusers' config; missing keys take that class's defaults, audio and "_" keys are ignored.

        Raises:
            ValueError: An option is unknown or has a value that is not built.
        """
        given = {k: v for k, v in values.items() if not k.startswith(("_", "audio_"))}
        for key, only in cls.SUPPORTED_VALUES.items():
            if (value := given.pop(key, only)) != only:
                raise ValueError(f"{key} is {value!r}; {cls.WHAT} is built with {only!r} only, as released")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known - cls.IGNORED_KEYS):
            raise ValueError(f"unknown settings {unknown} of {cls.WHAT}; the config is of another version")
        chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in known}
        return cls(**chosen)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a `config.json`.

        Raises:
            ValueError: The file is unreadable or does not fit.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read {path}: {error}; give the config.json of {cls.WHAT}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{path} holds no config; give the config.json of {cls.WHAT}")
        return cls.from_dict(values)

    def _check_whole(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to {MAX_SIZE}")

    def _check_rotary(self, head_dim: int, theta: float, rope_type: str) -> None:
        if head_dim % 2:
            raise ValueError(f"heads of {head_dim} channels cannot be rotated; use an even head width")
        if rope_type not in get_args(RopeType):
            raise ValueError(f"rope_type is {rope_type!r}; use one of {', '.join(get_args(RopeType))}")
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 1:
            raise ValueError(f"rope_theta is {theta!r}; it must be a number above 1")


@dataclass(frozen=True)
class RefinerConfig(_DiffusersConfig):
    """Sizes of the transformer's video path; the defaults are those of diffusers' class."""

    WHAT: ClassVar[str] = "the refiner"
    SUPPORTED_VALUES: ClassVar[Mapping[str, Any]] = {
        "patch_size": 1,
        "patch_size_t": 1,
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "attention_bias": True,
        "attention_out_bias": True,
        "ff_bias": True,
        "timestep_scale_multiplier": 1000,
        "rope_double_precision": True,
        "cross_attn_mod": False,
        "perturbed_attn": False,
        "use_prompt_embeddings": True,
        "use_prompt_adaln_single": True,
        "use_keyframes_abs_pos_embedding": False,
    }
    IGNORED_KEYS: ClassVar[frozenset[str]] = frozenset({"cross_attn_timestep_scale_multiplier"})

    in_channels: int = 128
    out_channels: int = 128
    num_attention_heads: int = 32
    attention_head_dim: int = 128
    cross_attention_dim: int = 4096
    num_layers: int = 48
    caption_channels: int = 3840
    vae_scale_factors: tuple[int, int, int] = (8, 32, 32)
    """Video frames, rows and columns of pixels to a latent."""
    pos_embed_max_pos: int = 20
    """Seconds to which times are relative."""
    base_height: int = 2048
    """Pixels to which rows are relative."""
    base_width: int = 2048
    """Pixels to which columns are relative."""
    causal_offset: int = 1
    """Video frames of the first latent frame."""
    rope_theta: float = 10000.0
    rope_type: RopeType = "interleaved"
    """How channels pair up in rotations; the class's default is not what LTX-2 uses."""
    gated_attn: bool = False
    """Whether each head's output is scaled by a gate."""
    memory_channels: int = 0
    """Channels of what a spatial memory shows of each latent frame, as `ModelConfig.memory_channels`: its encoding and its
    coverage, `in_channels` + 1. By how much the encoding differs from the latents to refine, where it covers them, is embedded
    beside those by a projection that starts at zero; latents refined before are shown none. 0 = no memory, as released."""

    def __post_init__(self) -> None:
        self._check_whole(
            "in_channels",
            "out_channels",
            "num_attention_heads",
            "attention_head_dim",
            "cross_attention_dim",
            "num_layers",
            "caption_channels",
            "pos_embed_max_pos",
            "base_height",
            "base_width",
            "causal_offset",
        )
        self._check_rotary(self.attention_head_dim, self.rope_theta, self.rope_type)
        factors = self.vae_scale_factors
        if len(factors) != 3 or not all(isinstance(f, int) and f > 0 for f in factors):
            raise ValueError(
                f"vae_scale_factors is {factors!r}; give three whole numbers: frames, rows, columns"
            )
        if self.hidden_size < 6:
            raise ValueError(f"a width of {self.hidden_size} holds no position; use 6 or more")
        if self.cross_attention_dim != self.hidden_size:
            raise ValueError(
                f"cross_attention_dim is {self.cross_attention_dim}; captions are projected to the width, {self.hidden_size}"
            )
        if self.memory_channels not in (0, self.in_channels + 1) or isinstance(self.memory_channels, bool):
            raise ValueError(
                f"memory_channels is {self.memory_channels!r}; it must be 0, or {self.in_channels + 1}: encoding and coverage"
            )
        if self.in_channels != self.out_channels:
            raise ValueError(
                f"{self.in_channels} channels in and {self.out_channels} out; a velocity has the latent's channels"
            )

    @property
    def hidden_size(self) -> int:
        """Width of a token."""
        return self.num_attention_heads * self.attention_head_dim


@dataclass(frozen=True)
class ConnectorConfig(_DiffusersConfig):
    """Sizes of the text connectors' video side; the defaults are those of diffusers' class."""

    WHAT: ClassVar[str] = "the text connectors"
    SUPPORTED_VALUES: ClassVar[Mapping[str, Any]] = {
        "rope_double_precision": True,
        "causal_temporal_positioning": False,
        "per_modality_projections": False,
        "proj_bias": False,
    }
    IGNORED_KEYS: ClassVar[frozenset[str]] = frozenset({"video_hidden_dim"})

    caption_channels: int = 3840
    """Width of the text encoder and of the text the refiner reads."""
    text_proj_in_factor: int = 49
    """Hidden states of the text encoder: its embeddings and each layer's output."""
    video_connector_num_attention_heads: int = 30
    video_connector_attention_head_dim: int = 128
    video_connector_num_layers: int = 2
    video_connector_num_learnable_registers: int = 128
    video_gated_attn: bool = False
    connector_rope_base_seq_len: int = 4096
    rope_theta: float = 10000.0
    rope_type: RopeType = "interleaved"

    def __post_init__(self) -> None:
        self._check_whole(
            "caption_channels",
            "text_proj_in_factor",
            "video_connector_num_attention_heads",
            "video_connector_attention_head_dim",
            "video_connector_num_layers",
            "video_connector_num_learnable_registers",
            "connector_rope_base_seq_len",
        )
        head_dim = self.video_connector_attention_head_dim
        self._check_rotary(head_dim, self.rope_theta, self.rope_type)
        width = self.video_connector_num_attention_heads * head_dim
        if width != self.caption_channels:
            raise ValueError(
                f"the connector is {width} wide and captions {self.caption_channels}; the two must be equal"
            )


def released_refiner() -> RefinerConfig:
    """Sizes of the released refiner: 13,041,520,768 parameters in its video path."""
    return RefinerConfig(rope_type="split")


def released_connectors() -> ConnectorConfig:
    """Sizes of the released text connectors."""
    return ConnectorConfig(rope_type="split")
