"""Files a player kept, read back: what each says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from client.camera.pose_words import place_words, view_words
from client.screens.photo import SUFFIX as PHOTO_SUFFIX
from client.screens.photo import read_photo_description
from engine.camera.actions import KEY_MAPS
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording import read_recording
from engine.files.saved_walk import SUFFIX as SAVED_SUFFIX
from engine.files.saved_walk import read_saved_info
from engine.files.video import SUFFIX as VIDEO_SUFFIX
from engine.files.video import read_video_description


def describe_kept(file: Path) -> dict[str, Any]:
    """Return what a photo, clip, recording or saved walk says of itself.

    Raises:
        ValueError, SpecMismatch: It is none of them, damaged, or says nothing, in one sentence.
    """
    suffix = file.suffix.lower()
    if suffix == RECORDING_SUFFIX:
        recording = read_recording(file)
        found = recording.header.model_dump(exclude={"kind"})
        found |= {"num_chunks": len(recording.chunks), "complete": recording.complete}
    elif suffix == SAVED_SUFFIX:
        info, c2w = read_saved_info(file)
        found = info.model_dump() | {"c2w": c2w.tolist()}
    elif suffix in (PHOTO_SUFFIX, VIDEO_SUFFIX):
        found = read_photo_description(file) if suffix == PHOTO_SUFFIX else read_video_description(file)
    else:
        raise ValueError(
            f"{file.name} is no photo ({PHOTO_SUFFIX}), clip ({VIDEO_SUFFIX}), recording ({RECORDING_SUFFIX}) "
            f"or saved walk ({SAVED_SUFFIX})"
        )
    if not found:
        raise ValueError(f"{file} says nothing of itself; it was not made by `flaneur play`")
    return found


def in_words(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says with poses, cameras and keys as a person reads them; what is none stays as it is."""
    said: dict[str, Any] = {}
    for name, value in found.items():
        if name in ("c2w", "start_c2w") and (c2w := _numbers(value, 16)) is not None:
            beginning = "" if name == "c2w" else "start_"
            said[f"{beginning}place"] = place_words(c2w.reshape(4, 4))
            said[f"{beginning}view"] = view_words(c2w.reshape(4, 4))
        elif name in ("intrinsics", "start_intrinsics") and (lens := _numbers(value, 4)) is not None:
            fx, fy, cx, cy = lens
            said[name] = f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} px"
        elif name == "key_map" and isinstance(value, str):
            said[name] = f"{value}, of {'action strings' if value in KEY_MAPS else 'the window'}"
        elif name == "frame_size" and (size := _numbers(value, 2)) is not None:
            said[name] = f"{size[0]:g} x {size[1]:g} px"
        else:
            said[name] = value
    return said


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """Return so many finite numbers, None where a file that anyone may have made holds something else."""
    try:
        numbers = np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.size == count and np.isfinite(numbers).all() else None
