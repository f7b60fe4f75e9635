"""Turns trained weights into what people play: a bundle and one world file per place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import holodeck
from engine.bundle import Bundle, open_bundle
from engine.world import World, WorldInfo, write_world
from export.onnx import export_bundle, replace_folder
from model.autoencoder import Autoencoder, StreamingDecoder
from training.data.latents import encode_frames
from training.stages.generator import ScenicModel

LICENCE = "Apache-2.0"
NOTES = "trained on walks through the holodeck places that the worlds are named after"


@torch.no_grad()
def make_world(
    name: str,
    scene: int,
    model: ScenicModel,
    autoencoder: Autoencoder,
    intrinsics: tuple[float, float, float, float],
    weights_sha256: str,
) -> World:
    """Make a world from a holodeck place: its first frame, first latent, scene tokens and start pose."""
    place = holodeck.get_place(name)
    config = model.world.config
    camera = np.array(intrinsics, np.float32)
    frame = place.render(place.spawn, camera, config.frame_width, config.frame_height)
    latent = encode_frames(autoencoder, frame[None])[0].float().numpy()
    text, mask = model.text(torch.tensor([scene]))
    info = WorldInfo(
        name=name,
        title=place.title,
        licence=LICENCE,
        model=weights_sha256,
        speed_scale=1.0,
        place=name,
        caption=place.caption,
    )
    return World(
        info=info,
        first_latent=latent,
        first_frame=frame,
        text=text[0].float().numpy(),
        text_mask=mask[0].float().numpy(),
        intrinsics=camera,
        c2w=place.spawn,
    )


def publish(
    model: ScenicModel,
    autoencoder: Autoencoder,
    places: Sequence[str],
    intrinsics: tuple[float, float, float, float],
    timesteps: Sequence[int],
    destination: Path,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Write `bundles/pocket` and `worlds/<place>.world` under `destination`; all is made before anything there changes."""
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=".publish-") as name:
        staged = Path(name)
        made = export_bundle(
            model.world,
            StreamingDecoder(autoencoder),
            staged / "pocket",
            timesteps,
            notes=NOTES,
            progress=progress,
        )
        weights = open_bundle(made).spec.weights_sha256
        for scene, place in enumerate(places):
            world = make_world(place, scene, model, autoencoder, intrinsics, weights)
            write_world(staged / f"{place}.world", world)
        for folder in ("bundles", "worlds"):
            (destination / folder).mkdir(exist_ok=True)
        bundle = destination / "bundles" / "pocket"
        replace_folder(made, bundle)
        for place in places:
            (staged / f"{place}.world").replace(destination / "worlds" / f"{place}.world")
    return open_bundle(bundle)
