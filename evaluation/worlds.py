"""The worlds that are measured: those that fit a bundle, unseen twins of their places, and the autoencoder's own ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.files.bundle import Bundle, EngineSpec
from engine.files.world import World, find_world, list_worlds, read_world, sealed
from engine.machine.assets import worlds_dir
from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.session.picture_world import DepthOf, depth_teller, told_depth
from evaluation.rollouts import HELD_OUT_SEED, Frames, Poses, place_of
from holodeck import Place
from holodeck.compiled import render_rgbd
from holodeck.raycast import FAR_M
from holodeck.variants import mirrored, recoloured
from holodeck.walks import walk
from model.vae.depth import FAR
from model.vae.guided import (
    GuidedAutoencoder,
    GuidedStreamingDecoder,
    autoencoder_in,
    load_autoencoder_weights,
)

LATENTS_PER_CALL = 16
WorldOfPlace = tuple[World, Place]
"""A world, and the place that is its truth."""


def fitting_worlds(weights_sha256: str, folder: Path | None = None) -> list[World]:
    """Return the worlds of a folder, the shipped ones by default, that were made for some weights.

    Pictures of their memories are decoded when a walk comes near them: all of six shipped worlds' take ten seconds.
    """
    entries = list_worlds([folder or worlds_dir()])
    return [read_world(entry.path, checked=False) for entry in entries if entry.model == weights_sha256]


def held_out_walk(world: World, num_frames: int, fps: float) -> Poses:
    """Walk through a world's place as no training clip does; camera-to-world poses, metres, [F, 4, 4].

    Raises:
        ValueError: The world was not made from a holodeck place.
    """
    return walk(place_of(world), num_frames, round(fps), HELD_OUT_SEED)


def open_autoencoder(folder: Path, spec: EngineSpec) -> GuidedAutoencoder:
    """Load the autoencoder of a folder, of whatever size it is, for a bundle.

    Raises:
        ValueError: There is none, it is damaged, or it makes other latents than the bundle takes.
    """
    path = autoencoder_in(folder)
    found = load_autoencoder_weights(path)
    makes = found.config.latent_channels, found.config.temporal_stride, found.config.spatial_stride
    takes = spec.latent_channels, spec.temporal_stride, spec.spatial_stride
    if makes != takes:
        made, taken = (
            "{} channels for {} frames and {} pixels a side".format(*sizes) for sizes in (makes, takes)
        )
        raise ValueError(f"the autoencoder {path} makes latents of {made}, and {spec.name} takes {taken}")
    return found


@torch.no_grad()
def reconstruct(autoencoder: GuidedAutoencoder, frames: Frames, c2w: Poses, world: World) -> Frames:
    """Encode a clip and decode it as the engine does, latent by latent, beside what the world's memory shows of it.

    Args:
        frames: 1 + stride * n, [F, H, W, 3].
        c2w: Where each was seen from, camera-to-world, metres, [F, 4, 4].
    """
    latents = _encode(autoencoder, frames)
    stride, memory = autoencoder.config.temporal_stride, MemoryRenderer(world.keyframes)
    lenses = np.repeat(world.intrinsics[None], stride, 0)
    decoder = GuidedStreamingDecoder(autoencoder)
    height, width = latents.shape[-2:]
    caches = tuple(torch.zeros(shape) for _, shape in decoder.cache_spec(height, width))
    parts = []
    for number, latent in enumerate(latents.split(1, dim=2)):
        # The first frame is shown alone and fills its group.
        window = c2w[np.maximum(np.arange(stride) + 1 + stride * (number - 1), 0)]
        shown = memory.render(window, lenses, *world.frame_size)
        guide = map(torch.from_numpy, (shown.color, shown.coverage, shown.inverse_depth))
        pictures, _, *made = decoder(latent.contiguous(), *guide, *caches)
        caches = tuple(made)
        parts.append(pictures.numpy())
    parts[0] = parts[0][-1:]
    return np.concatenate(parts)


@torch.no_grad()
def first_latent(autoencoder: GuidedAutoencoder, frame: Frames) -> NDArray[np.float32]:
    """Encode a single picture [H, W, 3], from which a world can begin, [C, h, w]."""
    return _encode(autoencoder, frame[None])[0, :, 0].numpy()


def _encode(autoencoder: GuidedAutoencoder, frames: Frames) -> Tensor:
    """Encode piece by piece, [1, C, T, h, w]: groups of frames know nothing of one another, so any frame may lead a piece."""
    stride = autoencoder.config.temporal_stride
    latents = [autoencoder.encode(_as_video(frames[:1]))]
    step = stride * LATENTS_PER_CALL
    for start in range(1, len(frames), step):
        piece = _as_video(frames[start - 1 : start + step])
        latents.append(autoencoder.encode(piece)[:, :, 1:])
    return torch.cat(latents, 2)


def _as_video(frames: Frames) -> Tensor:
    """Bytes [F, H, W, 3] to numbers in [-1, 1], [1, F, 3, H, W]."""
    return torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0


TURN_DEG = 140.0
"""On the colour wheel: far from every original."""


def unseen_place(place: Place) -> Place:
    """Return a place's unseen twin: mirrored, every hue turned."""
    return recoloured(mirrored(place), TURN_DEG)


def unseen_worlds(
    worlds: Sequence[World],
    known: Sequence[World],
    autoencoder: GuidedAutoencoder,
    depth_of: DepthOf | None = None,
    true_depth: bool = False,
) -> list[WorldOfPlace]:
    """Begin worlds in the unseen twins of places.

    Args:
        worlds: Made from the places whose twins are wanted.
        known: All worlds of the same weights.
        depth_of: Tells the depth of a picture; None asks the decoder.
        true_depth: Take the exact depth of the first pictures instead, which shows what telling it costs.
    """
    pairs = []
    for world in worlds:
        place, lens = unseen_place(place_of(world)), world.intrinsics
        frame = place.render(place.spawn, lens, *world.frame_size)
        known_depth = _exact_depth(place, place.spawn, lens, world.frame_size) if true_depth else None
        begun = begin_world(place.name, frame, place.spawn, lens, known, autoencoder, depth_of, known_depth)
        pairs.append((begun, place))
    return pairs


def _exact_depth(
    place: Place, c2w: Poses, intrinsics: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Inverse depth of a place seen from a pose, 1/m, 0 for sky, [H, W]."""
    _, depth = render_rgbd(place, c2w, intrinsics, *size, centred_depth=True)
    return np.where(depth < FAR_M, 1.0 / depth, 0.0).astype(np.float32)


def depth_error(world: World, place: Place) -> float:
    """Median relative error of the inverse depth that a world's first picture was told, of what stands within 1 / FAR m."""
    first = world.keyframes[0]
    truth = _exact_depth(place, first.c2w, first.intrinsics, first.size)
    solid = truth > FAR
    return float(np.median(np.abs(first.inverse_depth[solid] / truth[solid] - 1.0)))


def begin_world(
    name: str,
    frame: Frames,
    c2w: Poses,
    intrinsics: NDArray[np.float32],
    known: Sequence[World],
    autoencoder: GuidedAutoencoder,
    depth_of: DepthOf | None = None,
    inverse_depth: NDArray[np.float32] | None = None,
) -> World:
    """Begin a world with a picture.

    Its first latent is the autoencoder's, and its memory is the picture alone. Scene tokens belong to known places and none fits:
    its text is zeros, as that of every place without a scene of its own.

    Args:
        frame: [H, W, 3], of the model's size.
        c2w: Where it was taken from, [4, 4].
        intrinsics: fx, fy, cx, cy in its pixels, [4].
        known: Worlds of the model's weights; one at least.
        depth_of: Tells the picture's depth; None asks the decoder.
        inverse_depth: The depth, 1/m, [H, W], where it is known.
    """
    text = np.zeros_like(known[0].text)
    pose, lens = np.asarray(c2w, np.float64), np.asarray(intrinsics, np.float32)
    depth = inverse_depth
    if depth is None:
        depth = _decoded_depth(autoencoder, frame) if depth_of is None else told_depth(depth_of, frame, lens)
    info = known[0].info.model_copy(
        update={"name": name[:64], "title": name[:64], "place": None, "caption": "", "speed_scale": 1.0}
    )
    world = World(
        info=info,
        first_latent=first_latent(autoencoder, frame),
        first_frame=frame,
        text=text,
        text_mask=np.ones(len(text), np.float32),
        intrinsics=lens,
        c2w=pose,
        keyframes=(Keyframe.of(frame, depth, pose, lens),),
    )
    return sealed(world)


@torch.no_grad()
def _decoded_depth(autoencoder: GuidedAutoencoder, frame: Frames) -> NDArray[np.float32]:
    """Inverse depth that the decoder sees in a picture [H, W, 3], [H, W]."""
    raw = autoencoder.raw(autoencoder.encode(_as_video(frame[None])).transpose(1, 2))
    return autoencoder.decode_groups(raw)[0, 0, -1, 3].clamp_min(0.0).numpy()


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    bundle: Bundle
    fitting: list[World]
    """All worlds made for its weights."""
    chosen: list[World]
    """Those that were asked for."""
    autoencoder: GuidedAutoencoder | None
    why_none: str = ""
    """Why there is no autoencoder."""

    def encoder(self) -> GuidedAutoencoder:
        """Return the autoencoder where there is no doing without."""
        if self.autoencoder is None:
            raise ValueError(
                f"a world that begins with a picture needs the encoder, but {self.why_none}; "
                "name its folder with --autoencoder"
            )
        return self.autoencoder

    def places(self, unseen: bool, true_depth: bool = False) -> list[WorldOfPlace]:
        """Return the worlds that were asked for, or unseen twins of them, each with its place; see `unseen_worlds`."""
        if not unseen:
            return [(world, place_of(world)) for world in self.chosen]
        teller = depth_teller(self.bundle)
        return unseen_worlds(self.chosen, self.fitting, self.encoder(), teller, true_depth)


def open_subject(
    opened: Bundle, worlds: Path | None, names: Sequence[str] | None, autoencoder: Path | None
) -> Subject:
    """Find the worlds and the autoencoder that a bundle is measured with.

    Args:
        worlds: Folder of worlds; by default the one beside the bundle's folder, else the shipped ones.
        names: Worlds that are asked for; all that fit by default.
        autoencoder: Folder of the autoencoder; by default the checkpoints beside the bundle's folder.

    Raises:
        ValueError: No world fits the bundle's weights, or the named autoencoder cannot be used.
    """
    folder = worlds or beside(opened, "worlds") or worlds_dir()
    fitting = fitting_worlds(opened.spec.weights_sha256, folder)
    chosen = [find_world(name, [folder], checked=False) for name in names or ()] or fitting
    if not fitting:
        raise ValueError(
            f"no world in {folder} was made for the weights of {opened.spec.name}; name their folder with --worlds"
        )
    if autoencoder is not None:
        return Subject(opened, fitting, chosen, open_autoencoder(autoencoder, opened.spec))
    checkpoints = beside(opened, "checkpoints")
    if checkpoints is None:
        return Subject(opened, fitting, chosen, None, "no autoencoder lies beside the bundle")
    try:
        return Subject(opened, fitting, chosen, open_autoencoder(checkpoints, opened.spec))
    except ValueError as error:
        return Subject(opened, fitting, chosen, None, str(error))


def beside(bundle: Bundle, name: str) -> Path | None:
    """Find what was published with a bundle: `worlds` and `checkpoints` lie beside the folder of bundles."""
    folder = bundle.path.parent.parent / name
    return folder if folder.is_dir() else None
