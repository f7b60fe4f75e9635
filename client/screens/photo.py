"""Screenshots: a PNG that carries where and of what it was taken."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from client.setup.folders import make_folder
from engine.files.atomic import replacing
from engine.machine.installing import app_version
from engine.session.protocol import Session

SUFFIX = ".png"
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


def describe(session: Session, seed: int, frame: int, chunk: int, c2w: NDArray[np.float64]) -> dict[str, Any]:
    """Return what a screenshot says of itself: world, engine, and the pose [4, 4] its frame was made for."""
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
        "frame": frame,
        "chunk": chunk,
        "c2w": c2w.tolist(),
        "intrinsics": world.intrinsics.tolist(),
        "frame_size": list(session.frame_size),
    }


def unused_path(folder: Path, stem: str, suffix: str, now: datetime) -> Path:
    """Return a path in the folder, named after the world and the time, that does not exist yet."""
    base = f"{stem}-{now:%Y%m%d-%H%M%S}"
    path = folder / f"{base}{suffix}"
    number = 2
    while path.exists():
        path = folder / f"{base}-{number}{suffix}"
        number += 1
    return path


def save_photo(path: Path, frame: NDArray[np.uint8], description: Mapping[str, Any]) -> None:
    """Write a screenshot whole or not at all.

    Raises:
        ValueError: It cannot be written, in one sentence.
    """
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(encode_photo(frame, description))
