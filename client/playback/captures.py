"""Photos with a description inside, and what any captured file says of itself."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from client.camera.pose_words import place_words, view_words
from client.playback.history import WalkFrame
from client.setup.folders import make_folder
from engine.camera.actions import KEY_MAPS
from engine.files.atomic import replacing
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording import read_recording
from engine.files.saved_walk import SUFFIX as SAVED_SUFFIX
from engine.files.saved_walk import read_saved_info
from engine.files.video import SUFFIX as VIDEO_SUFFIX
from engine.files.video import read_video_description
from engine.files.world import SUFFIX as WORLD_SUFFIX
from engine.files.world import read_world
from engine.machine.installing import app_version
from engine.session.protocol import Session

PHOTO_SUFFIX = ".png"
MAX_FILE_BYTES = 256 << 20
TEXT_KEY = "flaneur"
"""PNG text entry that holds the description, JSON."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURE_AND_HEADER_BYTES = len(_SIGNATURE) + 25


def encode_photo(frame: NDArray[np.uint8], description: Mapping[str, Any]) -> bytes:
    """Return a PNG of a frame, [H, W, 3] RGB, with its description as a text entry."""
    ok, encoded = cv2.imencode(".png", frame[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    raw = encoded.tobytes()
    body = b"tEXt" + TEXT_KEY.encode("latin-1") + b"\0" + json.dumps(dict(description)).encode("ascii")
    entry = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return raw[:_SIGNATURE_AND_HEADER_BYTES] + entry + raw[_SIGNATURE_AND_HEADER_BYTES:]


def read_photo_description(file: Path) -> dict[str, Any]:
    """Return what `encode_photo` put into a PNG; empty if it is not one of ours.

    Raises:
        ValueError: It cannot be read, or what it says is damaged, in one sentence.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read the photo {file}: {error.strerror}; check the path") from error
    position = len(_SIGNATURE)
    while raw.startswith(_SIGNATURE) and position + 8 <= len(raw):
        (length,) = struct.unpack(">I", raw[position : position + 4])
        kind, body = raw[position + 4 : position + 8], raw[position + 8 : position + 8 + length]
        if kind == b"tEXt" and body.startswith(TEXT_KEY.encode("latin-1") + b"\0"):
            return _parse_description(body[len(TEXT_KEY) + 1 :], file)
        position += 12 + length
    return {}


def _parse_description(text: bytes, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"what the photo {file} says of itself is damaged; fetch it again") from error
    return found if isinstance(found, dict) else {}


def describe_photo(session: Session, seed: int, frame: WalkFrame) -> dict[str, Any]:
    """Return what a photo says of itself: world, engine, and the pose its frame was made for."""
    world = session.world
    return {
        "world": world.name,
        "title": world.title,
        "world_sha256": world.sha256,
        "app_version": app_version(),
        "identity": session.identity,
        "engine": session.engine,
        "backend": session.backend,
        "seed": seed,
        "frame": frame.index,
        "chunk": frame.chunk_index,
        "c2w": frame.c2w.tolist(),
        "intrinsics": world.intrinsics.tolist(),
        "frame_size": list(session.frame_size),
    }


def save_photo(path: Path, frame: NDArray[np.uint8], description: Mapping[str, Any]) -> None:
    """Write a photo whole or not at all.

    Raises:
        ValueError: It cannot be written, in one sentence.
    """
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_photo(frame, description))


def describe_capture(file: Path) -> dict[str, Any]:
    """Return what a photo, clip, recording, saved walk or world says of itself.

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
    elif suffix == WORLD_SUFFIX:
        world = read_world(file)
        found = world.info.model_dump() | {"title": world.title, "sha256": world.sha256}
        found |= {"frame_size": list(world.frame_size), "num_keyframes": len(world.keyframes)}
        found |= {"intrinsics": world.intrinsics.tolist(), "c2w": world.c2w.tolist()}
    elif suffix in (PHOTO_SUFFIX, VIDEO_SUFFIX):
        found = read_photo_description(file) if suffix == PHOTO_SUFFIX else read_video_description(file)
    else:
        raise ValueError(
            f"{file.name} is no photo ({PHOTO_SUFFIX}), clip ({VIDEO_SUFFIX}), recording ({RECORDING_SUFFIX}), "
            f"saved walk ({SAVED_SUFFIX}) or world ({WORLD_SUFFIX})"
        )
    if not found:
        raise ValueError(f"{file} says nothing of itself; it was not made by `flaneur play`")
    return found


def readable(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says with poses, cameras and keys as a person reads them; what is none stays as it is."""
    words: dict[str, Any] = {}
    for name, value in found.items():
        if name in ("c2w", "start_c2w") and (c2w := _numbers(value, 16)) is not None:
            beginning = "" if name == "c2w" else "start_"
            words[f"{beginning}place"] = place_words(c2w.reshape(4, 4))
            words[f"{beginning}view"] = view_words(c2w.reshape(4, 4))
        elif name in ("intrinsics", "start_intrinsics") and (camera := _numbers(value, 4)) is not None:
            fx, fy, cx, cy = camera
            words[name] = f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} px"
        elif name == "key_map" and isinstance(value, str):
            words[name] = f"{value}, of {'action strings' if value in KEY_MAPS else 'the window'}"
        elif name == "frame_size" and (size := _numbers(value, 2)) is not None:
            words[name] = f"{size[0]:g} x {size[1]:g} px"
        else:
            words[name] = value
    return words


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """Return so many finite numbers, None where a file that anyone may have made holds something else."""
    try:
        numbers = np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers.size == count and np.isfinite(numbers).all() else None
