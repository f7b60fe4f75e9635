"""Worlds of pictures, made by a bundle's own encoder: of posed RGB-D pictures, or of one photo whose depth the decoder tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.onnxruntime import OnnxRuntimeBackend, tell_depth
from engine.backends.protocol import FRAMES, INVERSE_DEPTH, LATENT, Backend
from engine.errors import SpecMismatch
from engine.files.bundle import GUIDE_INPUTS, Bundle, EngineSpec
from engine.files.world import World, WorldInfo
from engine.machine.hardware import num_cores
from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.memory.store import compressed

DEFAULT_FOV_DEG = 75.0
"""Horizontal field of view that pocket worlds are seen with."""
MIN_FOV_DEG, MAX_FOV_DEG = 25.0, 120.0
TRAINED_FOCAL = 0.65
"""Focal length over the frame's width of the lens that depth is told through."""
COLOR_QUALITY = 85
"""Of the colour of keyframes, as AVIF."""
OVERLAP_PX = 2
"""How far mirror images reach beyond the fields of view that they fill."""
LEAST_SKY = 0.1
"""Share of a picture's upper edge that must be sky, for there to be sky above."""
NEAREST_M, NEAREST_SHARE = 3.0, 0.05
"""Least depth that the nearest twentieth of a photo gets in its world."""
DepthOf = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Inverse depth, 1/m, 0 for sky, [H, W], of a picture [H, W, 3] as the lens of the training would see it."""
Text = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Embedding [L, D] and mask [L]."""


def open_encoder(bundle: Bundle) -> Backend:
    """Open a bundle that can encode pictures.

    Raises:
        SpecMismatch: It cannot, or it is built for a GPU.
    """
    spec = bundle.spec
    if spec.is_plan or spec.encoder_graph is None or not spec.memory_channels:
        raise SpecMismatch(
            f"the bundle {spec.name} holds no encoder for ONNX Runtime and reads no spatial memory; "
            "name one that does with --engine"
        )
    threads = num_cores()
    return OnnxRuntimeBackend(bundle, threads, threads)


def depth_teller(bundle: Bundle) -> DepthOf | None:
    """How a bundle tells the depth of a picture; None where only its decoder does."""
    if bundle.spec.depth_graph is None:
        return None
    return lambda picture: tell_depth(bundle, picture, num_cores())


def lens_of(fov_deg: float, width: int, height: int) -> NDArray[np.float32]:
    """Intrinsics of a horizontal field of view, pixels, [4].

    Raises:
        ValueError: No model was trained on such a lens.
    """
    if not MIN_FOV_DEG <= fov_deg <= MAX_FOV_DEG:
        raise ValueError(f"--fov is {fov_deg:g}; give {MIN_FOV_DEG:g} to {MAX_FOV_DEG:g} degrees")
    focal = 0.5 * width / math.tan(math.radians(fov_deg) / 2)
    return np.array([focal, focal, width / 2, height / 2], np.float32)


def world_of_keyframes(
    info: WorldInfo,
    spec: EngineSpec,
    encoder: Backend,
    keyframes: Sequence[Keyframe],
    text: Text,
    fov_deg: float = DEFAULT_FOV_DEG,
) -> World:
    """Make a world that begins where the first keyframe was taken."""
    lens = lens_of(fov_deg, spec.frame_width, spec.frame_height)
    pose = keyframes[0].c2w
    stored = [compressed(keyframe, COLOR_QUALITY) for keyframe in keyframes]
    rendering = MemoryRenderer(stored).render(pose[None], lens[None], spec.frame_width, spec.frame_height)
    frame = rendering.color[0]
    return World(info, _encoded(encoder, spec, frame), frame, *text, lens, pose, keyframes=tuple(stored))


def world_of_photo(
    info: WorldInfo,
    spec: EngineSpec,
    encoder: Backend,
    photo: NDArray[np.uint8],
    text: Text,
    fov_deg: float = DEFAULT_FOV_DEG,
    depth_of: DepthOf | None = None,
    mirrored: bool = True,
) -> World:
    """Make a world of one photo, RGB [H, W, 3], whose depth is right as far as a network learned depth.

    What a photo shows from near is enlarged, so that a step leads into the picture and not through it.

    Args:
        fov_deg: Horizontal field of view of what is left of the photo, cropped to the frame's proportions.
        depth_of: Tells depth; None asks the decoder, which tells it badly where no memory helps it.
        mirrored: Surround the photo by its mirror images. Without them the model invents what the photo does not show.
    """
    frame = fitted(photo, spec.frame_width, spec.frame_height)
    lens = lens_of(fov_deg, spec.frame_width, spec.frame_height)
    latent = _encoded(encoder, spec, frame)
    depth = _decoded_depth(spec, encoder, latent) if depth_of is None else told_depth(depth_of, frame, lens)
    nearest = float(np.quantile(depth, 1 - NEAREST_SHARE))
    depth = depth / np.float32(max(1.0, nearest * NEAREST_M))
    keyframe = Keyframe.of(frame, depth, np.eye(4), lens)
    keyframes = (keyframe, *mirror_images(keyframe)) if mirrored else (keyframe,)
    stored = tuple(compressed(each, COLOR_QUALITY) for each in keyframes)
    return World(info, latent, frame, *text, lens, np.eye(4), keyframes=stored)


def told_depth(
    depth_of: DepthOf, picture: NDArray[np.uint8], intrinsics: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inverse depth of a picture through its own lens, 1/m, [H, W]: a longer one shows the same of what is farther away."""
    return depth_of(picture) * np.float32(TRAINED_FOCAL * picture.shape[1] / intrinsics[0])


def _decoded_depth(spec: EngineSpec, encoder: Backend, latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse depth that the decoder tells of a picture's latent without a guide, [H, W]."""
    size = (spec.temporal_stride, spec.frame_height, spec.frame_width)
    nothing = (np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32), np.zeros(size, np.float32))
    inputs = {LATENT: latent[None, :, None], **dict(zip(GUIDE_INPUTS, nothing, strict=True))}
    results, _ = encoder.run_decoder(inputs, encoder.new_caches())
    if FRAMES not in results or INVERSE_DEPTH not in results:
        raise SpecMismatch(f"the decoder of {spec.name} tells no depth; export the bundle again")
    return np.maximum(results[INVERSE_DEPTH][-1], 0.0).astype(np.float32)


def mirror_images(keyframe: Keyframe) -> list[Keyframe]:
    """Surround a level picture by its mirror images, left and right all around, and by what may be above and below each.

    Neighbours meet where they are alike, so no edge is seen but the one behind the camera. Below, the ground goes on flat at the
    height that it has along the picture's lower edge; above, the sky goes on, or where none is seen, the mirror image.
    """
    color, inverse, lens = keyframe.color, keyframe.inverse_depth, keyframe.intrinsics
    height, width = inverse.shape
    across, along = (
        2 * math.atan(side / 2 / focal)
        for side, focal in zip((width, height), lens[:2].tolist(), strict=True)
    )
    made = []
    # Those an even number of fields of view away are mirrored twice.
    each_side = math.ceil((2 * math.pi / across - 1) / 2)
    for turn in range(-each_side, each_side + 1):
        flip = -1 if turn % 2 else 1
        shown, depth = color[:, ::flip], inverse[:, ::flip]
        level = _turned(keyframe.c2w, (0.0, turn * across, 0.0))
        above, below = (_turned(level, (pitch, 0.0, 0.0)) for pitch in (along, -along))
        parts = [
            (shown, depth, level),
            (*_above(shown, depth), above),
            (shown[::-1], _flat_ground(depth, lens, along), below),
        ]
        made += parts[1:] if turn == 0 else parts
    # They overlap by a few pixels, so that no gap shows between them.
    lens = lens + np.array([0, 0, OVERLAP_PX, OVERLAP_PX], np.float32)
    return [Keyframe.of(_widened(shown), _widened(depth), pose, lens) for shown, depth, pose in made]


def _above(
    color: NDArray[np.uint8], inverse: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colour and inverse depth of what may be above a picture."""
    sky = np.flatnonzero(inverse[0] == 0)
    if len(sky) < LEAST_SKY * inverse.shape[1]:
        return color[::-1], inverse[::-1]
    columns = np.arange(inverse.shape[1])
    row = np.stack([np.interp(columns, sky, channel[sky]) for channel in color[0].T], -1)
    share = np.linspace(1, 0, len(color))[:, None, None]
    faded = row * share + np.median(row, 0) * (1 - share)
    # Rows count from above: the last continues the picture's first.
    return faded[::-1].round().astype(np.uint8), np.zeros_like(inverse)


def _widened(image: NDArray[Any]) -> NDArray[Any]:
    """An image with its own border mirrored around it."""
    import cv2

    sides = dict.fromkeys(("top", "bottom", "left", "right"), OVERLAP_PX)
    return np.asarray(cv2.copyMakeBorder(np.ascontiguousarray(image), **sides, borderType=cv2.BORDER_REFLECT))


def _flat_ground(
    inverse: NDArray[np.float32], lens: NDArray[np.float32], pitch: float
) -> NDArray[np.float32]:
    """Inverse depth of level ground as a camera sees it that is turned down by `pitch` radians, [H, W]; the ground lies where
    the lower edge of a level picture of inverse depth [H, W] shows it."""
    height, width = inverse.shape
    _, fy, _, cy = lens.tolist()
    lowest = float(np.median(inverse[-1]))
    depth_m = 1.0 / max(lowest, 1e-3)
    ground_m = depth_m * (height - 0.5 - cy) / fy
    rows = (np.arange(height, dtype=np.float32) + 0.5 - cy) / fy
    down = rows * math.cos(pitch) + math.sin(pitch)
    flat = np.maximum(down, 0.0) / ground_m
    return np.repeat(flat[:, None], width, 1).astype(np.float32)


def _turned(c2w: NDArray[np.float64], angles: tuple[float, float, float]) -> NDArray[np.float64]:
    """A pose turned about its own axes by a rotation vector, radians, [4, 4]."""
    import cv2

    pose = c2w.copy()
    pose[:3, :3] = c2w[:3, :3] @ cv2.Rodrigues(np.array(angles))[0]
    return pose


def no_text(spec: EngineSpec) -> Text:
    """The text of a world that nobody described: zeros, all attended to."""
    length = int(spec.model.get("text_length", 1))
    return np.zeros((length, spec.text_dim), np.float32), np.ones(length, np.float32)


def fitted(photo: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a photo to cover a frame and cut out its middle, [height, width, 3]."""
    import cv2

    rows, columns = photo.shape[:2]
    scale = max(height / rows, width / columns)
    size = (max(width, round(columns * scale)), max(height, round(rows * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    large = cv2.resize(photo, size, interpolation=how)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width], np.uint8)


def _encoded(encoder: Backend, spec: EngineSpec, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode a frame that stands still, [C, h, w]."""
    return encoder.run_encoder(np.repeat(frame[None], spec.temporal_stride, 0))[0, :, 0]
