"""Metric depth by MoGe-2, where its package is installed; built, not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.poses.estimator import Frames
from training.data.annotation.sources import Source
from training.data.videos.frames import VideoFrames

BATCH = 16
WEIGHTS = "Ruicheng/moge-2-vitl-normal"


@dataclass(frozen=True)
class MoGeDepth:
    """One depth map a frame."""

    weights: str = WEIGHTS
    """Name or folder of the weights."""
    name: str = "MoGe-2"
    needs_gpu: bool = True

    def depths(
        self,
        source: Source,
        video: VideoFrames,
        moments_s: NDArray[np.float64],
        frames: Frames,
        numbers: Sequence[int],
    ) -> NDArray[np.float32]:
        model, device = _model(self.weights)
        maps = []
        for start in range(0, len(numbers), BATCH):
            picked = frames[list(numbers[start : start + BATCH])]
            batch = (
                torch.from_numpy(np.ascontiguousarray(picked)).permute(0, 3, 1, 2).to(device).float() / 255.0
            )
            with torch.inference_mode():
                found = model.infer(batch)
            depth = torch.where(found["mask"], found["depth"], torch.nan)
            maps.append(depth.float().cpu().numpy())
        return np.concatenate(maps)


@cache
def _model(weights: str) -> tuple[Any, torch.device]:
    """Load the model once a process."""
    try:
        from moge.model.v2 import MoGeModel  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError(
            "MoGe-2 is not installed; run pip install git+https://github.com/microsoft/MoGe.git, or leave out --depth moge"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return MoGeModel.from_pretrained(weights).to(device).eval(), device
