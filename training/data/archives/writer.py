"""Archives in SANA-WM's public training format, written whole or not at all."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.files.atomic import replacing
from engine.files.video import open_video
from training.data.clip import Clip
from training.data.clip_quality import blank_share

RAW_FOLDER, LATENTS_FOLDER = "raw", "latents"
BLANK_SUFFIX = "_blank_share"
"""Of the scores written beside an archive: the share of nearly blank frames, by clip."""


@dataclass
class _Sidecars:
    """What is gathered while clips are written and lies beside them at the end."""

    keys: list[str] = field(default_factory=list)
    poses: list[Any] = field(default_factory=list)
    intrinsics: list[Any] = field(default_factory=list)
    blank: dict[str, float] = field(default_factory=dict)


def write_archive(
    folder: Path, name: str, clips: Iterable[Clip], scores: Mapping[str, Mapping[str, Any]] | None = None
) -> int:
    """Write encoded clips as `raw/NAME.zip`, what lies beside it, and `latents/NAME.zip`; lengths are in metres.

    Clips that have frames too leave a video in the archive and a score of how blank it is.

    Args:
        scores: What else lies beside it, by suffix, then by clip.

    Returns:
        How many clips were written.

    Raises:
        ValueError: Two clips have one name, a clip has no latents, or the disk is full.
    """
    raw, latents = folder / RAW_FOLDER, folder / LATENTS_FOLDER
    for place in (raw, latents):
        place.mkdir(parents=True, exist_ok=True)
    sidecars = _Sidecars()
    with ExitStack() as stack:
        # Files take their places in the reverse order: an archive is there only when all beside it is.
        raw_path = stack.enter_context(replacing(raw / f"{name}.zip"))
        latents_path = stack.enter_context(replacing(latents / f"{name}.zip"))
        camera_path = stack.enter_context(replacing(raw / f"{name}_camera.npz"))
        scale_path = stack.enter_context(replacing(raw / f"{name}_metric_scale_stats.json"))
        for suffix, by_clip in (scores or {}).items():
            path = stack.enter_context(replacing(raw / f"{name}{suffix}.json"))
            path.write_text(json.dumps(by_clip))
        blank_path = stack.enter_context(replacing(raw / f"{name}{BLANK_SUFFIX}.json"))
        with zipfile.ZipFile(raw_path, "w") as described, zipfile.ZipFile(latents_path, "w") as encoded:
            for clip in clips:
                _add(clip, described, encoded, sidecars)
        if not sidecars.keys:
            raise ValueError(f"there are no clips for {raw / name}.zip; nothing was written")
        _write_cameras(camera_path, sidecars)
        scale_path.write_text(json.dumps(dict.fromkeys(sidecars.keys, 1.0)))
        blank_path.write_text(json.dumps(sidecars.blank))
    return len(sidecars.keys)


def _add(clip: Clip, described: zipfile.ZipFile, encoded: zipfile.ZipFile, sidecars: _Sidecars) -> None:
    if clip.name in sidecars.keys:
        raise ValueError(f"two clips are called {clip.name}; give each its own name")
    if clip.latents is None:
        raise ValueError(f"{clip.name} has no latents; encode it first")
    width, height = clip.frame_size
    info = {"width": width, "height": height, "prompt": clip.caption, "scene": clip.scene, "fps": clip.fps}
    _put(described, f"{clip.name}.json", json.dumps(info).encode())
    packed = io.BytesIO()
    np.savez(packed, z=clip.latents.transpose(1, 0, 2, 3))
    _put(encoded, f"{clip.name}.npz", packed.getvalue())
    if clip.frames is not None:
        sidecars.blank[clip.name] = blank_share(clip.frames)
        _put(described, f"{clip.name}.mp4", _film(clip))
    sidecars.keys.append(clip.name)
    sidecars.poses.append(clip.c2w)
    sidecars.intrinsics.append(clip.intrinsics)


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add an entry whose date is always the same, so that equal clips make equal archives."""
    archive.writestr(zipfile.ZipInfo(name), content)


def _film(clip: Clip) -> bytes:
    assert clip.frames is not None, "only clips with frames become videos"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with open_video(path, clip.frame_size, clip.fps, repeatable=True) as writer:
            writer.write(np.asarray(clip.frames))
        return path.read_bytes()


def _write_cameras(path: Path, sidecars: _Sidecars) -> None:
    counts = np.array([len(poses) for poses in sidecars.poses], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    np.savez(
        path,
        ids=np.array(sidecars.keys),
        ranges=np.stack([starts, counts], 1),
        pose=np.concatenate(sidecars.poses),
        intrinsics=np.concatenate(sidecars.intrinsics),
    )
