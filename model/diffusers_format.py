"""Configs and weights of diffusers' `SanaWMTransformer3DModel`, as plain dicts; diffusers itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig, sana_wm

RAY_CHANNELS = 6
"""Pluecker channels of one video frame."""
DEFAULTS: dict[str, Any] = {
    "in_channels": 128,
    "num_layers": 20,
    "hidden_size": 2240,
    "num_attention_heads": 20,
    "linear_head_dim": 112,
    "softmax_every_n": 4,
    "conv_kernel_size": 4,
    "t_kernel_size": 3,
    "chunk_plucker_channels": 48,
    "chunk_plucker_post_attn_blocks": 20,
    "caption_channels": 2304,
    "mlp_ratio": 3.0,
}
"""What a config leaves out."""
SUPPORTED_VALUES: dict[str, Any] = {
    "patch_size": (1, 1, 1),
    "ffn_type": "GLUMBConvTemp",
    "pos_embed_type": "wan_rope",
    "k_conv_only": True,
    "qk_norm": True,
    "cross_norm": True,
    "y_norm": True,
    "cam_attn_compress": 1,
    "use_chunk_plucker_post_attn": True,
    "mlp_acts": ("silu", "silu", None),
    "use_pe": True,
    "learn_sigma": False,
    "pred_sigma": False,
}
"""Options of which the released model uses one value, the only one built here."""
IGNORED_KEYS = {"init_cam_from_base", "fp32_attention", "image_size", "mixed_precision"}
"""Keys that change nothing once weights are loaded."""
RENAMED = {"t_embedder.linear_1.": "t_embedder.mlp.0.", "t_embedder.linear_2.": "t_embedder.mlp.2."}


def config_from_diffusers(config: Mapping[str, Any]) -> ModelConfig:
    """Translate a config; missing keys take the released model's values.

    That implementation shrinks lengthened camera vectors in both block kinds and scales camera softmax by the padded
    head, so these options are on here. It knows neither chunks nor text length: those are the streaming model's.

    Raises:
        ValueError: An option has a value that is not built, or the sizes contradict one another.
    """
    named = {key for key in config if not key.startswith("_")}
    if unknown := sorted(named - set(DEFAULTS) - set(SUPPORTED_VALUES) - IGNORED_KEYS):
        raise ValueError(f"unknown model settings {unknown}; the config is of another version")
    for key, only in SUPPORTED_VALUES.items():
        value = config.get(key, only)
        if (tuple(value) if isinstance(value, list) else value) != only:
            raise ValueError(f"{key} is {value!r}; only {only!r}, as released, is supported")
    values = {key: config.get(key, default) for key, default in DEFAULTS.items()}
    layers, heads, width = values["num_layers"], values["num_attention_heads"], values["hidden_size"]
    if heads * values["linear_head_dim"] != width:
        raise ValueError(
            f"{heads} heads of {values['linear_head_dim']} do not make a width of {width}; self- and cross-attention "
            "must have the same heads"
        )
    stride, odd = divmod(values["chunk_plucker_channels"], RAY_CHANNELS)
    if odd or not stride:
        raise ValueError(
            f"chunk_plucker_channels is {values['chunk_plucker_channels']}; it must be a multiple of {RAY_CHANNELS}"
        )
    if 0 <= values["chunk_plucker_post_attn_blocks"] < layers:
        raise ValueError(
            "chunk_plucker_post_attn_blocks leaves blocks out; only all blocks, as released, are supported"
        )
    return replace(
        sana_wm(),
        name="diffusers",
        in_channels=values["in_channels"],
        hidden_size=width,
        num_heads=heads,
        num_layers=layers,
        mlp_ratio=values["mlp_ratio"],
        softmax_every_n=values["softmax_every_n"] or layers + 1,
        text_dim=values["caption_channels"],
        temporal_stride=stride,
        conv_kernel=values["conv_kernel_size"],
        temporal_kernel=values["t_kernel_size"],
        downscale_gdn=True,
        downscale_softmax=True,
        camera_softmax_scale="padded",
    )


def weights_from_diffusers(config: ModelConfig, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict to the official keys, and add the two buffers that no pass reads and it may lack."""
    official: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        name = name.removeprefix("_inner.")
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        official[name] = tensor
    dtype = next((t.dtype for t in official.values() if t.is_floating_point()), torch.float32)
    official.setdefault(
        "y_embedder.y_embedding", torch.zeros(config.text_length, config.text_dim, dtype=dtype)
    )
    for layer in range(config.num_layers):
        official.setdefault(f"blocks.{layer}.attn.recall_gate", torch.zeros(1, dtype=dtype))
    return official
