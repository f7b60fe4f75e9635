"""Archives of encoded clips in SANA-WM's public training format, read clip by clip from the zip.

Beside `X.zip`, which describes clips, lie `X_camera.npz`, metric scales, captions and scores; a second folder holds an `X.zip`
of latents. Nothing is unpacked to the disk, so names in an archive lead nowhere.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.camera.actions import MAX_FRAMES
from engine.files.array_files import read_npz, read_npz_rows
from engine.files.natural_order import natural_key
from training.data.archives.sidecars import caption_of, read_sidecar, score_of
from training.data.clip import FPS, Clip, LeftOut

MAX_ENTRIES = 1_000_000
MAX_DESCRIPTION_BYTES = 1 << 20
MAX_SIDE_PX = 1 << 16
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, KeyError)


@dataclass(frozen=True)
class ArchiveOptions:
    """Which clips of archives are wanted, and how they are read."""

    temporal_stride: int | None = None
    """Video frames per latent; None for what the number of a clip's poses says."""
    min_latent_bytes: int = 0
    """Smaller latents are of clips that were cut short."""
    max_latent_bytes: int = 1 << 28
    filters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and greatest score by the suffix of the file that holds it; a clip without a score is rejected."""
    captions: Mapping[str, float] = field(default_factory=dict)
    """How often each caption is taken, by the suffix of its file; "prompt" is the archive's own, and what is left."""
    needs_camera: bool = True
    """Whether clips without poses are rejected; otherwise their camera stands still."""
    seed: int = 0
    """Of the choice between captions; a clip keeps its choice."""


def sekai_game() -> ArchiveOptions:
    """The public recipe's choice from Sekai-Game."""
    return ArchiveOptions(
        temporal_stride=8,
        min_latent_bytes=10 << 20,
        filters={
            "_vmafmotion": (0.5, 50.0),
            "_unimatch": (3.0, 80.0),
            "_dover": (0.25, 1.0),
            "_vlm_entity_filter": (0.0, 10.0),
            "_vlm_quality_filter": (0.5, 1.5),
        },
        captions={"_LongSceneStaticCaption-Qwen3-VL-30B-A3B-Instruct": 1.0},
    )


ARCHIVE_FILTERS: dict[str, Callable[[], ArchiveOptions]] = {"none": ArchiveOptions, "sekai-game": sekai_game}
"""Which clips are wanted, by name."""


@dataclass(frozen=True)
class _Archive:
    """One pair of zips and what lies beside them."""

    raw: Path
    latents: Path
    cameras: Mapping[str, tuple[int, int]]
    """First pose and number of poses by clip."""
    scales: Mapping[str, Any]
    captions: Mapping[str, Mapping[str, Any]]
    """By suffix, then by clip."""

    @property
    def camera_path(self) -> Path:
        return _beside(self.raw, "_camera").with_suffix(".npz")


class ClipArchives:
    """All archives of a folder as a source of clips."""

    def __init__(self, folder: Path, latents: Path, options: ArchiveOptions | None = None) -> None:
        """Read what every archive holds; clips themselves are read when they are asked for.

        Args:
            folder: Holds X.zip and what lies beside it.
            latents: Holds the zips of latents, of the same names.

        Raises:
            ValueError: There is no archive at all.
        """
        self.name, self.options = folder.name, options or ArchiveOptions()
        self.left_out: list[LeftOut] = []
        self.clips: list[tuple[_Archive, str]] = []
        # macOS writes hidden twins of its own kind of every file.
        found = [path for path in folder.glob("*.zip") if not path.name.startswith(".")]
        paths = sorted(found, key=lambda path: natural_key(path.name))
        if not paths:
            raise ValueError(f"{folder} holds no archives; name the folder with the zips that describe clips")
        for path in paths:
            try:
                self._open(path, latents / path.name)
            except (ValueError, OSError, *_ZIP_ERRORS) as error:
                self.left_out.append(LeftOut(str(path), _sentence(path, error)))

    def _open(self, raw: Path, latents: Path) -> None:
        if not latents.is_file():
            raise ValueError(f"{raw} has no latents {latents}; encode its videos")
        archive = _Archive(
            raw,
            latents,
            _camera_index(_beside(raw, "_camera").with_suffix(".npz")),
            read_sidecar(_beside(raw, "_metric_scale_stats")),
            {
                suffix: read_sidecar(_beside(raw, suffix))
                for suffix in self.options.captions
                if suffix != "prompt"
            },
        )
        scores = {suffix: read_sidecar(_beside(raw, suffix)) for suffix in self.options.filters}
        described, sizes = _entries(raw, ".json"), _entries(latents, ".npz")
        for key in described:
            label = f"{raw} ({key})"
            if problem := _broken(key, sizes.get(key), self.options):
                self.left_out.append(LeftOut(label, f"{label} {problem}"))
            elif reason := _unwanted(key, sizes[key], archive, scores, self.options):
                self.left_out.append(LeftOut(label, f"{label} {reason}", rejected=True))
            else:
                self.clips.append((archive, key))

    def __len__(self) -> int:
        return len(self.clips)

    def label(self, index: int) -> str:
        archive, key = self.clips[index]
        return f"{archive.raw} ({key})"

    def __getitem__(self, index: int) -> Clip:
        """Read one clip: its latents, cameras in metres and caption.

        Raises:
            ValueError: It is damaged, in one sentence that names it.
        """
        (archive, key), label = self.clips[index], self.label(index)
        try:
            info = json.loads(_read_entry(archive.raw, f"{key}.json", MAX_DESCRIPTION_BYTES))
            raw = _read_entry(archive.latents, f"{key}.npz", self.options.max_latent_bytes)
        except (OSError, ValueError, RecursionError, *_ZIP_ERRORS) as error:
            raise ValueError(f"{label} cannot be read ({error}); fetch or make its archive again") from error
        if not isinstance(info, dict):
            raise ValueError(f"{label} is described by no JSON object; make its archive again")
        latents = _latents(raw, label, self.options.max_latent_bytes)
        width, height = (_side(info, name, label) for name in ("width", "height"))
        c2w, intrinsics = self._cameras(archive, key, len(latents), (width, height))
        return Clip(
            name=key,
            source=self.name,
            scene=str(info.get("scene", archive.raw.stem)),
            caption=self._caption(archive, key, info),
            c2w=c2w,
            intrinsics=intrinsics,
            frame_size=(width, height),
            fps=score_of(info.get("fps")) or float(FPS),
            latents=latents,
        )

    def _cameras(
        self, archive: _Archive, key: str, num_latents: int, size: tuple[int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Poses [F, 4, 4] in metres and intrinsics [F, 4] in pixels of the described size."""
        start, count = archive.cameras.get(key, (0, 0))
        stride = self.options.temporal_stride or max(1, (count - 1) // max(num_latents - 1, 1))
        num_frames = 1 + stride * (num_latents - 1)
        if key not in archive.cameras:
            width, height = size
            still = np.array([width, height, width / 2, height / 2], np.float64)
            return np.tile(np.eye(4), (num_frames, 1, 1)), np.tile(still, (num_frames, 1))
        if count < num_frames:
            raise ValueError(
                f"{archive.raw} ({key}) has {count} poses for {num_latents} latents of {stride} frames; "
                "give its temporal stride, or leave it out"
            )
        path = archive.camera_path
        c2w = read_npz_rows(path, "pose", start, num_frames).astype(np.float64)
        intrinsics = read_npz_rows(path, "intrinsics", start, num_frames).astype(np.float64)
        if c2w.shape[1:] != (4, 4):
            raise ValueError(f"{path} holds poses of shape {c2w.shape[1:]}; they are [4, 4]")
        c2w[:, :3, 3] *= score_of(archive.scales.get(key)) or 1.0
        return c2w, intrinsics

    def _caption(self, archive: _Archive, key: str, info: Mapping[str, Any]) -> str:
        found = {suffix: caption_of(by_clip.get(key)) for suffix, by_clip in archive.captions.items()}
        found["prompt"] = caption_of(info.get("prompt"))
        weights = {suffix: self.options.captions.get(suffix, 0.0) for suffix, text in found.items() if text}
        total = sum(weights.values())
        if total <= 0.0:
            return found["prompt"] or ""
        rng = np.random.default_rng([self.options.seed, zlib.crc32(key.encode())])
        suffixes = sorted(weights)
        chosen = rng.choice(len(suffixes), p=[weights[suffix] / total for suffix in suffixes])
        return found[suffixes[chosen]] or ""


def _beside(path: Path, suffix: str) -> Path:
    """The path of what lies beside an archive, without an ending."""
    return path.with_name(path.stem + suffix)


def _sentence(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if str(path.parent) in text else f"{path} is not a readable archive ({text}); fetch it again"


def _entries(path: Path, suffix: str) -> dict[str, int]:
    """Size in bytes of every entry with a suffix, by its name without it."""
    with zipfile.ZipFile(path) as archive:
        found = archive.infolist()
    if len(found) > MAX_ENTRIES:
        raise ValueError(f"{path} has {len(found)} entries; at most {MAX_ENTRIES} are accepted")
    return {
        info.filename.removesuffix(suffix): info.file_size for info in found if info.filename.endswith(suffix)
    }


def _broken(key: str, num_bytes: int | None, options: ArchiveOptions) -> str | None:
    """Say what is wrong with an entry; None where nothing is."""
    if not key or key.startswith("/") or "\\" in key or ".." in key.split("/") or not key.isprintable():
        return "has a name that leads out of its archive; nothing of it is read"
    if num_bytes is None:
        return "has no latents; encode its video"
    if num_bytes > options.max_latent_bytes:
        return f"claims {num_bytes >> 20} MB of latents; at most {options.max_latent_bytes >> 20} MB are read"
    return None


def _unwanted(
    key: str,
    num_bytes: int,
    archive: _Archive,
    scores: Mapping[str, Mapping[str, Any]],
    options: ArchiveOptions,
) -> str | None:
    """Say why a clip is not trained on; None where it is."""
    if num_bytes < options.min_latent_bytes:
        return f"has only {num_bytes} bytes of latents"
    if options.needs_camera and key not in archive.cameras:
        return "has no camera"
    for suffix, (least, greatest) in options.filters.items():
        score = score_of(scores[suffix].get(key))
        if score is None or not least <= score <= greatest:
            return f"has {'no' if score is None else f'a score {score:g} of'} {suffix.strip('_')}"
    return None


def _camera_index(path: Path) -> dict[str, tuple[int, int]]:
    """First pose and number of poses of every clip; empty where there are no cameras."""
    if not path.is_file():
        return {}
    arrays = read_npz(path, ("ids", "ranges"), (), 2 * MAX_ENTRIES, text=("ids",))
    ids, ranges = arrays["ids"], arrays["ranges"]
    if ids.ndim != 1 or ranges.shape != (len(ids), 2) or ranges.dtype.kind not in "iu":
        raise ValueError(f"{path} has ids {ids.shape} and ranges {ranges.shape}; they are (N,) and (N, 2)")
    words = ids.astype(str).tolist()
    starts = [(int(start), int(count)) for start, count in ranges]
    if any(start < 0 or not 0 <= count <= MAX_FRAMES for start, count in starts):
        raise ValueError(f"{path} has a range that cannot be; make it again")
    return dict(zip(words, starts, strict=True))


def _read_entry(path: Path, name: str, max_bytes: int) -> bytes:
    """Read one entry of a zip; what it unpacks to is bounded, and its checksum is tested."""
    with zipfile.ZipFile(path) as archive, archive.open(name) as entry:
        content = entry.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{name} is over {max_bytes} bytes")
    return content


def _latents(raw: bytes, label: str, max_bytes: int) -> NDArray[np.float16]:
    """Latents [C, T, h, w] of any float type as [T, C, h, w] float16."""
    latents = read_npz(raw, ("z",), (), max_bytes // 2, name=f"{label}: latents")["z"]
    if latents.dtype.kind != "f" or latents.ndim != 4:
        raise ValueError(f"{label} has latents {latents.dtype} {latents.shape}; they are floats [C, T, h, w]")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(latents.transpose(1, 0, 2, 3).astype(np.float16))


def _side(info: Mapping[str, Any], name: str, label: str) -> int:
    value = info.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIDE_PX:
        raise ValueError(f"{label} has {name} {str(value)[:40]}; it is a number of pixels")
    return value
