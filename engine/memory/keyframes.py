"""Posed RGB-D keyframes: what a spatial memory is made of.

Depth is kept as inverse depth along the optical axis, 1/m, 0 where there is only sky: it is linear in the picture on a plane and
finite everywhere. Sixteen bits hold it, scaled by the keyframe's largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import SpecMismatch
from engine.memory.codec import decode_color, decode_depth

Array = NDArray[np.float32]
Picture = TypeVar("Picture", bound=NDArray[Any])

BLOCK_PX = 8
"""Side of the blocks whose nearest and farthest pixel stand for a keyframe in the coarse depth."""
ROUGH_STEP = 4
"""Pixels and rows between the codes by which keyframes are ranked."""
SKY_M = 1e5
"""Distance of points that stand for the sky."""
UNKNOWN = 65535
"""Code of pixels whose depth nobody knows, and of those outside a keyframe."""
MAX_CODE = 65532
"""Code of the nearest pixel."""


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One posed RGB-D picture."""

    picture: NDArray[np.uint8] | None
    """[H, W, 3], RGB; None where `color_blob` alone holds it, which takes a thirtieth of the memory."""
    depth_codes: NDArray[np.uint16] | None
    """[H, W]: inverse depth over `scale`, or UNKNOWN; None where `depth_blob` alone holds them, which takes a fiftieth."""
    scale: float
    """Inverse depth of one code, 1/m, a float32."""
    c2w: NDArray[np.float64]
    """[4, 4], camera-to-world, OpenCV axes, metres, in the world's own frame."""
    intrinsics: Array
    """[4]: fx, fy, cx, cy in pixels; pixel (u, v) spans [u, u + 1] x [v, v + 1]."""
    color_blob: NDArray[np.uint8] | None = None
    """Colour as a file holds it, so that it is not compressed again; None for pictures that come from no file."""
    depth_blob: NDArray[np.uint8] | None = None
    """The same of depth."""
    announced: tuple[int, int] | None = None
    """Width and height that the files announce, pixels; None where depth tells them."""
    problem: str = "the spatial memory is damaged; make it again"
    """What is said where a file turns out to hold no picture of that size."""

    @classmethod
    def of(
        cls, color: NDArray[np.uint8], inverse_depth: Array, c2w: NDArray[np.float64], intrinsics: Array
    ) -> Keyframe:
        """Make a keyframe of inverse depth [H, W], 1/m, 0 for sky and negative where it is unknown."""
        scale = np.float32(max(float(inverse_depth.max(initial=0.0)), 1e-6) / MAX_CODE)
        codes = np.where(inverse_depth < 0, UNKNOWN, np.round(inverse_depth / scale)).astype(np.uint16)
        return cls(
            color, codes, float(scale), np.asarray(c2w, np.float64), np.asarray(intrinsics, np.float32)
        )

    def check(self) -> None:
        """Decode colour and depth once.

        Raises:
            SpecMismatch: A file is damaged.
        """
        self.make_ready()
        _ = self.color

    def make_ready(self) -> None:
        """Decode depth, and keep its points and rough codes, which every chunk nearby asks for."""
        _ = self._kept

    @property
    def is_ready(self) -> bool:
        """Whether points and rough codes are kept already."""
        return "_kept" in vars(self)

    @property
    def codes(self) -> NDArray[np.uint16]:
        """[H, W]: inverse depth over `scale`, or UNKNOWN."""
        if self.depth_codes is not None:
            return self.depth_codes
        assert self.depth_blob is not None, "a keyframe has depth in one form or the other"
        return self._sound(decode_depth(self.depth_blob))

    def _sound(self, decoded: Picture | None) -> Picture:
        if decoded is None or self.announced not in (None, decoded.shape[1::-1]):
            raise SpecMismatch(self.problem)
        return decoded

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if self.announced is not None:
            return self.announced
        height, width = self.codes.shape
        return width, height

    @property
    def rough_codes(self) -> NDArray[np.uint16]:
        """Those of every ROUGH_STEP-th pixel and row."""
        return self._kept[1]

    @property
    def color(self) -> NDArray[np.uint8]:
        """[H, W, 3], RGB."""
        if self.picture is not None:
            return self.picture
        assert self.color_blob is not None, "a keyframe has colour in one form or the other"
        return self._sound(decode_color(self.color_blob, self.size[1]))

    @property
    def inverse_depth(self) -> Array:
        """1/m along the optical axis, [H, W]; -1 where it is unknown."""
        codes = self.codes
        inverse = codes.astype(np.float32) * np.float32(self.scale)
        inverse[codes == UNKNOWN] = -1.0
        return inverse

    @property
    def points(self) -> Array:
        """World points of the nearest and of the farthest pixel in every block, and each block's side in metres there,
        [4, P]; the sky's are SKY_M away."""
        return self._kept[0]

    @cached_property
    def _kept(self) -> tuple[Array, NDArray[np.uint16]]:
        codes = self.codes
        return self._points(codes), np.ascontiguousarray(codes[::ROUGH_STEP, ::ROUGH_STEP])

    def _points(self, codes: NDArray[np.uint16]) -> Array:
        height, width = (side - side % BLOCK_PX for side in codes.shape)
        rows, columns = height // BLOCK_PX, width // BLOCK_PX
        blocks = codes[:height, :width].reshape(rows, BLOCK_PX, columns, BLOCK_PX)
        blocks = blocks.transpose(0, 2, 1, 3).reshape(rows * columns, BLOCK_PX**2)
        top, left = np.divmod(np.arange(rows * columns), columns)
        fx, fy, cx, cy = self.intrinsics
        found = []
        # The code of what is unknown is larger than all others.
        shown = np.where(blocks == UNKNOWN, -1, blocks.astype(np.int32)) if codes.max() == UNKNOWN else blocks
        for picks in (shown.argmax(1), blocks.argmin(1)):
            code = blocks[np.arange(len(blocks)), picks]
            picked = code.astype(np.float32) * np.float32(self.scale)
            known = code != UNKNOWN
            u = left * BLOCK_PX + picks % BLOCK_PX + 0.5
            v = top * BLOCK_PX + picks // BLOCK_PX + 0.5
            ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(len(u))], 1)[known]
            depth = np.where(picked > 1e-4, 1.0 / np.maximum(picked, 1e-4), SKY_M)[known, None]
            world = ray * depth @ self.c2w[:3, :3].T + self.c2w[:3, 3]
            found.append(np.concatenate([world, depth * (BLOCK_PX / fx)], 1))
        return np.ascontiguousarray(np.concatenate(found).T, np.float32)


@dataclass(frozen=True, eq=False)
class Grown:
    """A keyframe that a walk added."""

    chunk_index: int
    """Of the chunk whose last frame it is."""
    keyframe: Keyframe
