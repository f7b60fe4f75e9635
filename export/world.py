"""Worlds from photos: one picture and one sentence, encoded once, so that playing needs neither encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from engine.bundle import Bundle, first_problem
from engine.world import World, WorldInfo
from export.photo import (
    DEFAULT_FOV_DEG,
    fit_photo,
    intrinsics_for_crop,
    intrinsics_of_fov,
    read_intrinsics,
    read_photo,
)
from export.text import load_text_encoder, read_preamble
from model.checkpoint import load_checkpoint, load_ltx_autoencoder, weights_sha256
from model.config import ModelConfig, sana_wm

AUTOENCODER_FOLDERS = ("vae", "ltx2_causal_vae")
TEXT_FOLDERS = ("gemma-2-2b-it", "text_encoder")
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class WorldRequest:
    """What a person gives."""

    photo: Path
    prompt: str
    name: str
    title: str
    licence: str
    fov_deg: float | None = None
    """Horizontal field of view of the photo; with neither this nor a file, 60 degrees."""
    intrinsics: Path | None = None


@dataclass(frozen=True)
class Target:
    """The model that a world is for."""

    config: ModelConfig
    weights_sha256: str


def target_of_bundle(bundle: Bundle) -> Target:
    return Target(ModelConfig.from_dict(bundle.spec.model), bundle.spec.weights_sha256)


def target_of_weights(weights: Path) -> Target:
    """Hash the released network's weights in a folder, `dit/*.safetensors`; ten gigabytes take a minute.

    Raises:
        ValueError: There is not exactly one such file, or it does not fit.
    """
    files = sorted((weights / "dit").glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(
            f"{weights / 'dit'} holds {len(files)} .safetensors files, one is needed; or name a bundle with --engine"
        )
    config = sana_wm()
    return Target(config, weights_sha256(load_checkpoint(files[0], config)))


def find_folder(weights: Path, names: tuple[str, ...], what: str) -> Path:
    """Find a part of the weights.

    Raises:
        ValueError: It is not there.
    """
    for name in names:
        if (weights / name).is_dir():
            return weights / name
    raise ValueError(f"{weights} has no {what}; put it into {weights / names[0]}")


def create_world(
    request: WorldRequest, weights: Path, target: Target, progress: Callable[[str], None] | None = None
) -> World:
    """Encode a photo and a prompt.

    Args:
        weights: Folder with the autoencoder, the text encoder and `config.yaml`, as released.

    Raises:
        ValueError: The photo, the camera or a weight file cannot be used; nothing was written.
    """
    say = progress or (lambda _stage: None)
    config = target.config
    info = _describe(request, target)
    photo = read_photo(request.photo)
    if request.intrinsics is not None:
        camera = read_intrinsics(request.intrinsics, photo.size)
    else:
        fov = DEFAULT_FOV_DEG if request.fov_deg is None else request.fov_deg
        camera = intrinsics_of_fov(fov, photo.size)
    frame, fit = fit_photo(photo, config.frame_width, config.frame_height)
    autoencoder = find_folder(weights, AUTOENCODER_FOLDERS, "autoencoder")
    text_encoder = find_folder(weights, TEXT_FOLDERS, "text encoder")
    preamble = read_preamble(weights / CONFIG_FILE)
    say("encoding the photo")
    first_latent = encode_photo(frame, autoencoder, config)
    say("encoding the prompt")
    encoder = load_text_encoder(text_encoder)
    if encoder.width != config.text_dim:
        raise ValueError(
            f"the text encoder in {text_encoder} gives {encoder.width} numbers a token, the model reads {config.text_dim}; "
            "fetch the one it was trained with"
        )
    text, mask = encoder.encode(request.prompt, config.text_length, preamble)
    return World(
        info=info,
        first_latent=first_latent,
        first_frame=frame,
        text=text.numpy(),
        text_mask=mask.numpy(),
        intrinsics=intrinsics_for_crop(camera, fit).astype(np.float32),
        c2w=np.eye(4),
    )


def _describe(request: WorldRequest, target: Target) -> WorldInfo:
    try:
        return WorldInfo(
            name=request.name,
            title=request.title,
            licence=request.licence,
            model=target.weights_sha256,
            caption=request.prompt,
        )
    except ValidationError as error:
        raise ValueError(
            f"the world cannot be described so: {first_problem(error)}; choose other words"
        ) from None


@torch.no_grad()
def encode_photo(frame: NDArray[np.uint8], folder: Path, config: ModelConfig) -> NDArray[np.float32]:
    """Encode a frame [H, W, 3] as a clip of one: [C, h, w].

    Raises:
        ValueError: The autoencoder is missing, damaged, or not the model's.
    """
    autoencoder = load_ltx_autoencoder(folder, torch.float32)
    sizes = autoencoder.config
    ours = (config.in_channels, config.temporal_stride, config.spatial_stride)
    if (sizes.latent_channels, sizes.temporal_stride, sizes.spatial_stride) != ours:
        raise ValueError(
            f"the autoencoder in {folder} makes {sizes.latent_channels} channels at strides {sizes.temporal_stride} and "
            f"{sizes.spatial_stride}, the model reads {ours[0]} at {ours[1]} and {ours[2]}; fetch the one it was trained with"
        )
    video = torch.from_numpy(frame.copy()).permute(2, 0, 1).float()[None, :, None] / 127.5 - 1.0
    return autoencoder.encode(video)[0, :, 0].numpy()
