"""Worlds of pictures, made by a bundle's own encoder: of posed RGB-D pictures, or of one photo whose depth the decoder tells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.backends.onnxruntime import OnnxRuntimeBackend
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
WEBP_QUALITY = 92
"""Of keyframes; nothing is lost in depth."""
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
    stored = [compressed(keyframe, WEBP_QUALITY) for keyframe in keyframes]
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
) -> World:
    """Make a world of one photo, RGB [H, W, 3]; the decoder tells its depth, which is right as far as it learned depth.

    Args:
        fov_deg: Horizontal field of view of what is left of the photo, cropped to the frame's proportions.
    """
    frame = fitted(photo, spec.frame_width, spec.frame_height)
    lens = lens_of(fov_deg, spec.frame_width, spec.frame_height)
    latent = _encoded(encoder, spec, frame)
    size = (spec.temporal_stride, spec.frame_height, spec.frame_width)
    nothing = (np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32), np.zeros(size, np.float32))
    inputs = {LATENT: latent[None, :, None], **dict(zip(GUIDE_INPUTS, nothing, strict=True))}
    results, _ = encoder.run_decoder(inputs, encoder.new_caches())
    if FRAMES not in results or INVERSE_DEPTH not in results:
        raise SpecMismatch(f"the decoder of {spec.name} tells no depth; export the bundle again")
    depth = np.maximum(results[INVERSE_DEPTH][-1], 0.0).astype(np.float32)
    keyframe = compressed(Keyframe.of(frame, depth, np.eye(4), lens), WEBP_QUALITY)
    return World(info, latent, frame, *text, lens, np.eye(4), keyframes=(keyframe,))


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
