"""Files a player kept, read back: what each says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client.photo import SUFFIX as PHOTO_SUFFIX
from client.photo import read_photo_description
from engine.recording import read_recording
from engine.recording_format import SUFFIX as RECORDING_SUFFIX
from engine.saved_walk import SUFFIX as SAVED_SUFFIX
from engine.saved_walk import read_saved_info
from engine.video import SUFFIX as VIDEO_SUFFIX
from engine.video import read_video_description


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
        found = read_saved_info(file).model_dump()
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
