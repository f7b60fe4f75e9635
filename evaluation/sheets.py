"""Contact sheets: films one above another, their frames at the horizons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from engine.files.atomic import replacing
from evaluation.rollouts import Frames

SHEET_HORIZONS_S = (0.25, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


def contact_sheet(
    films: Sequence[Frames],
    fps: float,
    path: Path,
    scale: float = 1.5,
    horizons_s: Sequence[float] = SHEET_HORIZONS_S,
) -> None:
    """Write a PNG; one row per film [F, H, W, 3], its frames at the horizons that all reach."""
    length = min(map(len, films))
    picks = [frame for seconds in horizons_s if (frame := round(seconds * fps)) < length] or [length - 1]
    rows = [np.concatenate([film[n] for n in picks], 1) for film in films]
    sheet = cv2.resize(np.concatenate(rows, 0), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    ok, encoded = cv2.imencode(".png", sheet[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())
