"""Fine-tuning on the best clips: what to keep, and the stage itself.

Filters come first, as the paper has them for every source: motion, colour saturation and cuts within bounds. Of what passes, the
best quarter by picture quality is kept. Motion is what VMAF calls so, the mean change of blurred luma from frame to frame;
quality, for which the paper has a network (DOVER), is the sharpness of the luma here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.batches import ClipBatches
from training.stages.config import StageConfig
from training.stages.flow_matching import FlowMatchingStage
from training.stages.scenic_model import ScenicModel

KEPT_SHARE = 50_000 / 212_975
"""Of all clips, in the paper."""
CUT_FACTOR = 8.0
"""A frame that changes more than this many times the median, and by more than `LEAST_CUT`, follows a cut."""
LEAST_CUT = 12.0
"""In steps of 8-bit luma."""


@dataclass(frozen=True)
class ClipScores:
    """What one clip is judged by."""

    motion: float
    """Mean absolute change of blurred 8-bit luma between frames."""
    saturation: float
    """Mean of HSV saturation, 0 to 255."""
    cuts: int
    quality: float
    """Mean variance of the luma's Laplacian."""


@dataclass(frozen=True)
class ClipFilters:
    """Ranges that are kept, ends included; those of the paper's Sekai-Walking set."""

    motion: tuple[float, float] = (0.5, 50.0)
    saturation: tuple[float, float] = (0.0, 180.0)
    most_cuts: int = 1

    def pass_(self, scores: ClipScores) -> bool:
        low, high = self.motion
        return (
            low <= scores.motion <= high
            and self.saturation[0] <= scores.saturation <= self.saturation[1]
            and scores.cuts <= self.most_cuts
        )


def clip_scores(frames: NDArray[np.uint8]) -> ClipScores:
    """Judge a clip [F, H, W, 3] of at least two frames."""
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    blurred = np.stack([cv2.GaussianBlur(picture, (5, 5), 0) for picture in luma]).astype(np.float32)
    change = np.abs(np.diff(blurred, axis=0)).mean((1, 2))
    is_cut = (change > CUT_FACTOR * np.median(change)) & (change > LEAST_CUT)
    saturation = [cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 1].mean() for frame in frames]
    sharpness = [cv2.Laplacian(picture, cv2.CV_32F).var() for picture in luma]
    return ClipScores(
        float(change.mean()), float(np.mean(saturation)), int(is_cut.sum()), float(np.mean(sharpness))
    )


def best_clips(
    scores: Sequence[ClipScores], filters: ClipFilters | None = None, share: float = KEPT_SHARE
) -> list[int]:
    """Return the numbers of the clips to keep, best first: `share` of all, but at least one.

    Raises:
        ValueError: No clip passes the filters.
    """
    filters = filters or ClipFilters()
    passing = [number for number, score in enumerate(scores) if filters.pass_(score)]
    if not passing:
        raise ValueError(
            f"none of {len(scores)} clips passes the filters {filters}; widen them, or bring other clips"
        )
    passing.sort(key=lambda number: -scores[number].quality)
    return passing[: max(1, round(share * len(scores)))]


def best_clips_stage(config: StageConfig, before: ScenicModel, clips: ClipBatches) -> FlowMatchingStage:
    """Go on with the whole model as it is, on chosen clips alone."""
    return FlowMatchingStage(config, before, clips)
