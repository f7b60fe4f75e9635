"""Bounds that a clip's scores must keep: the paper's camera filters, and its picture filters by set (Table 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import check_poses

Range = tuple[float, float]

FLOW_FACTOR = 0.85
"""Of DIS over true flow, measured on rendered clips that move by 15 pixels in half a second; UniMatch is taken to give true flow.
Faster clips, by 90 pixels and more, get half to two thirds from DIS, so the upper bound lets more pass than UniMatch's would."""
BLANK_SHARE: Range = (0.0, 0.3)
FOV_DEG: Range = (25.0, 120.0)
FOCAL_MISMATCH: Range = (0.0, 0.2)
SCALE_VARIATION: Range = (0.0, 2.0)


def _picture_bounds(
    motion: Range,
    flow: Range,
    dover: Range,
    saturated: bool = True,
    cuts: bool = False,
    judged: bool = True,
    entities: float = 10,
) -> dict[str, Range]:
    """Bounds of one row of Table 6; its flow is UniMatch's and is converted."""
    bounds: dict[str, Range] = {
        "vmafmotion": motion,
        "flow": (FLOW_FACTOR * flow[0], FLOW_FACTOR * flow[1]),
        "dover": dover,
        "blank_share": BLANK_SHARE,
    }
    if saturated:
        bounds["color"] = (0.0, 180.0)
    if cuts:
        bounds["scene_cut"] = (0.0, 1.0)
    if judged:
        bounds |= {"vlm_entity_filter": (0.0, entities), "vlm_quality_filter": (0.5, 1.5)}
    return bounds


PRESETS: dict[str, dict[str, Range]] = {
    "measured": {
        "vmafmotion": (0.5, 50.0),
        "flow": (FLOW_FACTOR * 3.0, FLOW_FACTOR * 80.0),
        "color": (0.0, 180.0),
        "scene_cut": (0.0, 1.0),
        "blank_share": BLANK_SHARE,
    },
    "omniworld": _picture_bounds((0.5, 100.0), (3.0, 100.0), (0.35, 1.0), saturated=False),
    "sekai-game": _picture_bounds((0.5, 50.0), (3.0, 80.0), (0.25, 1.0), saturated=False),
    "sekai-walking": _picture_bounds((0.5, 50.0), (3.0, 50.0), (0.35, 1.0), entities=25),
    "miradata": _picture_bounds((0.5, 50.0), (3.0, 80.0), (0.4, 1.0), cuts=True, judged=False),
    "dl3dv-gs": _picture_bounds((6.0, 50.0), (3.0, 80.0), (0.4, 1.0), cuts=True, judged=False),
    "spatialvid": _picture_bounds((0.5, 50.0), (3.0, 80.0), (0.35, 1.0)),
}
"""Kept ranges by set, ends included; "measured" asks only for what needs no network."""


@dataclass(frozen=True)
class Judge:
    """Holds scores against bounds."""

    bounds: Mapping[str, Range]
    missing_is_fine: bool = False
    """Whether a clip is kept that lacks a score."""
    camera: Mapping[str, Range] = field(
        default_factory=lambda: {
            "least_fov_deg": FOV_DEG,
            "greatest_fov_deg": FOV_DEG,
            "focal_mismatch": FOCAL_MISMATCH,
            "scale_variation": SCALE_VARIATION,
        }
    )

    def pictures(self, scores: Mapping[str, float]) -> list[str]:
        """Say which bounds a clip's pictures break."""
        absent = (
            [] if self.missing_is_fine else [f"{name} missing" for name in self.bounds if name not in scores]
        )
        return absent + _outside(scores, self.bounds)

    def cameras(self, scores: Mapping[str, float]) -> list[str]:
        """Say which bounds a clip's cameras break."""
        return _outside(scores, self.camera)


def _outside(scores: Mapping[str, float], bounds: Mapping[str, Range]) -> list[str]:
    return [
        f"{name} {scores[name]:.3g} outside {low:g} to {high:g}"
        for name, (low, high) in bounds.items()
        if name in scores and not low <= scores[name] <= high
    ]


def camera_scores(intrinsics: NDArray[np.float64], size: tuple[int, int]) -> dict[str, float]:
    """What the camera filters look at, the worst frame counts.

    Args:
        intrinsics: fx, fy, cx, cy in pixels, [F, 4].
        size: Width and height in pixels.
    """
    fov = np.degrees(2.0 * np.arctan(np.array(size) / (2.0 * intrinsics[:, :2])))
    mismatch = np.abs(intrinsics[:, 0] - intrinsics[:, 1]) / intrinsics[:, :2].mean(1)
    return {
        "least_fov_deg": float(fov.min()),
        "greatest_fov_deg": float(fov.max()),
        "focal_mismatch": float(mismatch.max()),
    }


def pose_problem(c2w: NDArray[np.float64]) -> str | None:
    """Say what is wrong with poses that are not finite or not rigid; None where nothing is."""
    try:
        check_poses(c2w, "the clip")
    except ValueError as error:
        return f"poses invalid: {error}"
    return None


def count_reasons(reasons: Iterable[Iterable[str]]) -> dict[str, int]:
    """How many clips were rejected for what, by the first word of each reason."""
    return dict(
        Counter(kind for each in reasons for kind in {text.split()[0] for text in each}).most_common()
    )
