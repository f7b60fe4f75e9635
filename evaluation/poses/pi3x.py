"""Cameras and depth by Pi3X, where its package is installed; built, not yet run on a GPU.

Its weights are for non-commercial use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.poses.alignment import fit_similarity
from evaluation.poses.estimator import CameraEstimate, Frames, Poses, PosesRefused
from evaluation.poses.interpolation import interpolate_poses

WEIGHTS = "yyfz233/Pi3X"
PATCH_PX, MOST_PIXELS = 14, 255_000
"""Sides of the network's frames are multiples of the first; they have so many pixels at most (the author's)."""
LEAST_CONFIDENCE = 0.1
"""After the sigmoid; what is less is not believed (the author's)."""
Maps = dict[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Pi3X:
    """The network, as an estimator of cameras and as what tells the depth of frames whose cameras are known."""

    keyframes_per_s: float = 2.0
    weights: str = WEIGHTS
    name: str = "Pi3X"
    needs_gpu: bool = True

    def keyframes(self, num_frames: int, fps: float) -> list[int]:
        """Numbers of the frames that the network is shown."""
        step = max(1, round(fps / self.keyframes_per_s))
        return sorted({*range(0, num_frames, step), num_frames - 1})

    def estimate(self, frames: Frames, fps: float, lens: NDArray[np.float64] | None = None) -> CameraEstimate:
        """Recover cameras; poses between keyframes are interpolated."""
        numbers = self.keyframes(len(frames), fps)
        if len(numbers) < 2:
            raise PosesRefused("one frame is too few to recover cameras from")
        found = _run(self.weights, frames[numbers], None, None)
        height, width = frames.shape[1:3]
        if lens is None:
            lens = lens_of(found.points, (width, height))
        return CameraEstimate(
            c2w=interpolate_poses(np.array(numbers, np.int64), found.c2w, len(frames)),
            intrinsics=np.tile(lens, (len(frames), 1)),
            method=self.name,
            is_metric=True,
            depths=dict(zip(numbers, found.depth, strict=True)),
        )

    def depths_of(self, frames: Frames, fps: float, c2w: Poses, intrinsics: NDArray[np.float64]) -> Maps:
        """Depth of keyframes in the unit of the given poses [F, 4, 4], seen through fx, fy, cx, cy in pixels, [F, 4]."""
        numbers = self.keyframes(len(frames), fps)
        found = _run(self.weights, frames[numbers], c2w[numbers], intrinsics[numbers])
        unit = fit_similarity(found.c2w, c2w[numbers]).scale
        return {
            number: np.asarray(unit * depth, np.float32)
            for number, depth in zip(numbers, found.depth, strict=True)
        }


@dataclass(frozen=True, eq=False)
class _Found:
    c2w: Poses
    """[N, 4, 4]."""
    points: NDArray[np.float32]
    """In the camera's axes, not numbers where they are not believed, [N, h, w, 3]."""

    @property
    def depth(self) -> NDArray[np.float32]:
        """Along the optical axis, [N, h, w]."""
        return self.points[..., 2]


@torch.inference_mode()
def _run(weights: str, frames: Frames, c2w: Poses | None, intrinsics: NDArray[np.float64] | None) -> _Found:
    """Run the network on frames [N, H, W, 3], with their cameras where they are known."""
    model, device = _model(weights)
    height, width = frames.shape[1:3]
    small = network_size((width, height))
    resized = np.stack([cv2.resize(frame, small, interpolation=cv2.INTER_AREA) for frame in frames])
    inputs = torch.from_numpy(resized).permute(0, 3, 1, 2)[None].to(device).float() / 255.0
    known: dict[str, torch.Tensor] = {}
    if c2w is not None and intrinsics is not None:
        across, down = small[0] / width, small[1] / height
        matrices = np.zeros((len(frames), 3, 3))
        matrices[:, 0, 0], matrices[:, 0, 2] = intrinsics[:, 0] * across, intrinsics[:, 2] * across
        matrices[:, 1, 1], matrices[:, 1, 2] = intrinsics[:, 1] * down, intrinsics[:, 3] * down
        matrices[:, 2, 2] = 1.0
        known = {
            "intrinsics": torch.from_numpy(matrices)[None].float().to(device),
            "poses": torch.from_numpy(c2w.copy())[None].float().to(device),
        }
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        found = model(imgs=inputs, **known)
    believed = torch.sigmoid(found["conf"][0, ..., 0].float()) > LEAST_CONFIDENCE
    points = torch.where(believed[..., None], found["local_points"][0].float(), torch.nan)
    return _Found(found["camera_poses"][0].double().cpu().numpy(), points.cpu().numpy())


def network_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the network's frames for those of a video."""
    scale = min(1.0, (MOST_PIXELS / (size[0] * size[1])) ** 0.5)
    width, height = (max(1, int(side * scale / PATCH_PX + 1e-6)) * PATCH_PX for side in size)
    return width, height


def lens_of(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """fx, fy, cx, cy in pixels of `size` from points in cameras' axes [N, h, w, 3], the principal point in the middle, [4]."""
    height, width = points.shape[1:3]
    # Where each point is seen, from -1/2 to 1/2 of the picture's sides.
    across = ((np.arange(width) + 0.5) / width - 0.5)[None, None, :]
    down = ((np.arange(height) + 0.5) / height - 0.5)[None, :, None]
    right, below = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    fx = float(np.nansum(across * right) / np.nansum(right**2))
    fy = float(np.nansum(down * below) / np.nansum(below**2))
    return np.array([fx * size[0], fy * size[1], size[0] / 2, size[1] / 2])


@cache
def _model(weights: str) -> tuple[Any, torch.device]:
    """Load the network once a process."""
    try:
        from pi3.models.pi3x import Pi3X as Network  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError(
            "Pi3X is not installed; run pip install git+https://github.com/yyfz/Pi3.git, or take --estimator pycolmap"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Network.from_pretrained(weights).to(device).eval(), device
