"""Turns trained weights into what people play: a bundle and one world file per place, with its spatial memory."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

import holodeck
from engine.errors import SpecMismatch
from engine.files.atomic import set_mode
from engine.files.bundle import Bundle, open_bundle
from engine.files.refiner import FOLDER as REFINER_FOLDER
from engine.files.refiner import bundled_refiner
from engine.files.world import SUFFIX, World, WorldInfo, read_world, write_world
from engine.memory.codec import THOROUGH
from engine.memory.keyframes import Keyframe
from engine.memory.store import compressed
from export.folders import replace_folder
from export.graph import constants_of_int8
from export.onnx import export_bundle
from export.quantization.layers import read_table, shipped_table
from model.checkpoint import load_checkpoint, save_checkpoint
from model.vae.depth import DepthGraph, DepthNetwork
from model.vae.guided import (
    AUTOENCODER_FILE,
    ChannelNorm,
    GuidedAutoencoder,
    GuidedStreamingDecoder,
    StreamingEncoder,
)
from training.pocket.keyframes import COLOR_QUALITY
from training.stages.scenic_model import ScenicModel

WORLD_FILE = "pocket.safetensors"
CHECKPOINTS, WORLDS, BUNDLES = "checkpoints", "worlds", "bundles"
LICENCE = "Apache-2.0"
STAGED_PREFIX = ".publish-"
NOTES = "trained on clips of the holodeck places that the worlds are named after, and of generated places"


ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
def in_half(module: ModuleT) -> ModuleT:
    """Copy a module with every number rounded to what float16 holds, in float32."""
    rounded = copy.deepcopy(module).float().eval()
    for tensor in rounded.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    return rounded


def save_start(model: ScenicModel, folder: Path) -> None:
    """Write the network that a later training can start from beside the bundle, in float16."""
    folder.mkdir(parents=True)
    save_checkpoint(copy.deepcopy(model.world).half(), folder / WORLD_FILE)
    # Writers make files for their owner alone; these are there to be shared.
    set_mode(folder / WORLD_FILE, 0o644)


def save_autoencoder(autoencoder: GuidedAutoencoder, path: Path) -> Path:
    """Write an autoencoder in float16, and return where."""
    weights = {name: tensor.half().contiguous() for name, tensor in autoencoder.state_dict().items()}
    save_file(weights, path)
    set_mode(path, 0o644)
    return path


def load_start(model: ScenicModel, published: Path, places: Sequence[str]) -> None:
    """Put the network and the scenes of an earlier training into a model.

    Args:
        published: What `publish` filled.
        places: In the order of the model's scenes.

    Raises:
        ValueError: They are missing, damaged, or of another size.
    """
    world = load_checkpoint(published / CHECKPOINTS / WORLD_FILE, dtype=torch.float32)
    try:
        model.world.load_state_dict(world.state_dict())
        for scene, place in enumerate(places):
            text = read_world(published / WORLDS / f"{place}{SUFFIX}", checked=False).text
            model.set_text(scene, torch.from_numpy(text))
    except (OSError, RuntimeError, ValueError, SpecMismatch) as error:
        raise ValueError(f"cannot start from {published}: {error}; train from nothing instead") from None


def depth_graph_in(published: Path) -> Path | None:
    """The depth graph of the bundle that `publish` put into a folder; None where it has none."""
    path = published / BUNDLES / "pocket"
    name = open_bundle(path, verify=False).spec.depth_graph if path.is_dir() else None
    return None if name is None else path / name


def load_depth_start(network: DepthNetwork, graph: Path) -> None:
    """Put the weights of a depth graph, of 8 bits each, into a network.

    Matrices and biases bear the names of the network's; weights of norms, which the exporter turns into constants, are known by
    their shape and come in the order in which the network uses them.

    Raises:
        ValueError: They are of another size.
    """
    read = onnx.load(graph).graph
    stored = {name.removeprefix("network."): values for name, values in constants_of_int8(read).items()}
    weights = {name: values for name, values in stored.items() if name in network.state_dict()}
    used = [name for node in read.node for name in node.input]
    folded = [stored[name] for name in used if name in stored and stored[name].shape[1:] == (1, 1)]
    norms = [name for name, module in network.named_modules() if isinstance(module, ChannelNorm)]
    try:
        for name, values in zip(norms, folded, strict=True):
            weights[f"{name}.weight"] = values.reshape(-1)
        network.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot start from {graph}: {error}; train the depth network from nothing"
        ) from None


@torch.no_grad()
def make_world(
    name: str,
    scene: int,
    model: ScenicModel,
    autoencoder: GuidedAutoencoder,
    keyframes: Sequence[Keyframe],
    intrinsics: tuple[float, float, float, float],
    weights_sha256: str,
) -> World:
    """Make a world from a holodeck place: first frame and latent, scene tokens, start pose and spatial memory."""
    place = holodeck.get_place(name)
    config = model.world.config
    camera = np.array(intrinsics, np.float32)
    frame = place.render(place.spawn, camera, config.frame_width, config.frame_height)
    video = torch.from_numpy(frame).permute(2, 0, 1)[None, None].float() / 127.5 - 1.0
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
        first_latent=autoencoder.encode(video)[0, :, 0].float().numpy(),
        first_frame=frame,
        text=text[0].float().numpy(),
        text_mask=mask[0].float().numpy(),
        intrinsics=camera,
        c2w=place.spawn,
        keyframes=tuple(_compressed(keyframe) for keyframe in keyframes),
    )


def _compressed(keyframe: Keyframe) -> Keyframe:
    """A keyframe with its colour compressed, once."""
    return keyframe if keyframe.color_blob is not None else compressed(keyframe, COLOR_QUALITY, THOROUGH)


def mend_publishing(destination: Path) -> None:
    """Clear away what a publishing that was killed left behind; folders it had set aside without a successor come back."""
    for staged in destination.glob(f"{STAGED_PREFIX}*"):
        for name, folder in (("checkpoints", destination), ("pocket", destination / BUNDLES)):
            aside = staged / f"{name}.old"
            if aside.is_dir() and not (folder / name).exists():
                aside.replace(folder / name)
        shutil.rmtree(staged)


def publish(
    model: ScenicModel,
    autoencoder: GuidedAutoencoder,
    places: Sequence[str],
    keyframes: Mapping[str, Sequence[Keyframe]],
    intrinsics: tuple[float, float, float, float],
    timesteps: Sequence[int],
    destination: Path,
    progress: Callable[[str], None] | None = None,
    depth: DepthNetwork | Path | None = None,
) -> Bundle:
    """Write `bundles/pocket`, `checkpoints` and `worlds/<place>.world` under `destination`.

    The autoencoder is a file of the bundle, whose graphs read their weights from it, and what a later training starts from.

    Weights are rounded to float16 first, which halves every file. All is made before anything there changes. What was
    made for the same generator stays: the refiner of an earlier bundle, and the layer table beside the checkpoint.

    Args:
        places: In the order of the model's scenes.
        keyframes: Of every place, what its world's memory begins with.
        intrinsics: fx, fy, cx, cy of the worlds' first frames, pixels.
        depth: What tells the depth of photos, or its graph in an earlier bundle; None leaves that to the decoder.
    """
    destination.mkdir(parents=True, exist_ok=True)
    model, autoencoder = in_half(model), in_half(autoencoder)
    with tempfile.TemporaryDirectory(dir=destination, prefix=STAGED_PREFIX) as name:
        staged = Path(name)
        made = export_bundle(
            model.world,
            GuidedStreamingDecoder(autoencoder),
            staged / "pocket",
            timesteps,
            notes=NOTES,
            progress=progress,
            encoder=StreamingEncoder(autoencoder),
            depth=DepthGraph(depth) if isinstance(depth, DepthNetwork) else depth,
            tensors=save_autoencoder(autoencoder, staged / AUTOENCODER_FILE),
        )
        weights = open_bundle(made).spec.weights_sha256
        save_start(model, staged / CHECKPOINTS)
        for scene, place in enumerate(places):
            memory = keyframes[place]
            world = make_world(place, scene, model, autoencoder, memory, intrinsics, weights)
            write_world(staged / f"{place}{SUFFIX}", world)
        bundle = destination / BUNDLES / "pocket"
        if (refiner := kept_refiner(bundle, weights)) is not None:
            shutil.copytree(refiner, made / REFINER_FOLDER)
        if (table := kept_table(destination / CHECKPOINTS, weights)) is not None:
            shutil.copy(table, staged / CHECKPOINTS)
        replace_folder(staged / CHECKPOINTS, destination / CHECKPOINTS)
        for folder in (BUNDLES, WORLDS):
            (destination / folder).mkdir(exist_ok=True)
        replace_folder(made, bundle)
        for place in places:
            (staged / f"{place}{SUFFIX}").replace(destination / WORLDS / f"{place}{SUFFIX}")
    return open_bundle(bundle)


def kept_refiner(bundle: Path, weights_sha256: str) -> Path | None:
    """Return the folder of a bundle's refiner, if there is one and the bundle is of this generator."""
    try:
        earlier = open_bundle(bundle, verify=False)
    except SpecMismatch:
        return None
    return bundled_refiner(earlier) if earlier.spec.weights_sha256 == weights_sha256 else None


def kept_table(checkpoints: Path, weights_sha256: str) -> Path | None:
    """Return the layer table beside a checkpoint, if there is one that can be read and is of this generator."""
    path = shipped_table("pocket", checkpoints)
    try:
        return path if path is not None and read_table(path).weights_sha256 == weights_sha256 else None
    except ValueError:
        return None
