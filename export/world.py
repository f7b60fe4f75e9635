"""Worlds from photos: one picture and one sentence, encoded once, so that playing needs neither encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.files.pictures import open_rgb
from engine.files.world import World, WorldInfo, described
from export.photo import (
    DEFAULT_FOV_DEG,
    check_camera,
    fit_photo,
    intrinsics_for_crop,
    intrinsics_of_fov,
    read_intrinsics,
)
from export.text import encode_refiner_text, find_text_folders, load_text_encoder, read_preamble
from model.checkpoint import load_ltx_autoencoder, weights_sha256
from model.config import ModelConfig, sana_wm
from model.decoders import LTX_FOLDERS
from model.released import network_file, open_network

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
    refiner: Path | None = None
    """Released folder of the refiner, whose text the world shall carry too; None leaves it out."""


def hash_released(weights: Path) -> str:
    """Hash the network's weights in a folder as the exporter hashes them: as `model.released` finds them.

    Ten gigabytes take a minute.

    Raises:
        ValueError: There is no such file, or more than one network's, or it does not fit; a bundle may be named instead.
    """
    return weights_sha256(open_network(network_file(weights)), torch.float32)


def released_config(values: Mapping[str, Any] | None) -> ModelConfig:
    """Sizes of the model a world is for: a bundle's, else the released ones."""
    return sana_wm() if values is None else ModelConfig.from_dict(dict(values))


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
    request: WorldRequest,
    weights: Path,
    config: ModelConfig,
    hash_weights: Callable[[], str],
    progress: Callable[[str], None] | None = None,
) -> World:
    """Encode a photo and a prompt; what takes long comes after everything that can be wrong quickly.

    Args:
        weights: Folder with the autoencoder, the text encoder and `config.yaml`, as released.
        config: Of the model the world is for.
        hash_weights: Says which weights those are, `weights_sha256`.

    Raises:
        ValueError: The photo, the camera or a weight file cannot be used; nothing was written.
    """
    if config.memory_channels:
        raise ValueError(
            f"the model {config.name} makes worlds of its own bundle, without text; name the bundle with --engine"
        )
    say = progress or (lambda _stage: None)
    frame, camera = fit_request(request, config)
    autoencoder = find_folder(weights, LTX_FOLDERS, "autoencoder")
    text_encoder = find_folder(weights, TEXT_FOLDERS, "text encoder")
    preamble = read_preamble(weights / CONFIG_FILE)
    refiner = None if request.refiner is None else find_text_folders(request.refiner)
    _describe(request, "0" * 64)
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
    refiner_text = None
    if refiner is not None:
        del encoder
        say("encoding the prompt for the refiner")
        refiner_text = encode_refiner_text(request.prompt, refiner)
    say("reading which weights the world is for")
    return World(
        info=_describe(request, hash_weights()),
        first_latent=first_latent,
        first_frame=frame,
        text=text.numpy(),
        text_mask=mask.numpy(),
        intrinsics=camera,
        c2w=np.eye(4),
        refiner_text=refiner_text,
    )


def fit_request(request: WorldRequest, config: ModelConfig) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Fit the photo to the model's frame: the frame [H, W, 3], and its camera [4].

    Raises:
        ValueError: The photo is unreadable, or what is left of it was seen through no lens the model knows.
    """
    photo = open_rgb(request.photo)
    if request.intrinsics is not None:
        camera = read_intrinsics(request.intrinsics)
    else:
        camera = intrinsics_of_fov(
            DEFAULT_FOV_DEG if request.fov_deg is None else request.fov_deg, photo.size
        )
    frame, fit = fit_photo(photo, config.frame_width, config.frame_height)
    fitted = intrinsics_for_crop(camera, fit)
    check_camera(fitted, config.frame_width, config.frame_height)
    return frame, fitted.astype(np.float32)


def _describe(request: WorldRequest, weights: str) -> WorldInfo:
    return described(
        name=request.name,
        title=request.title,
        licence=request.licence,
        model=weights,
        caption=request.prompt,
        # A video model moves what a photo shows: water, leaves, people.
        animated=True,
    )


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
