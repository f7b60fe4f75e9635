"""Sets of clips as folders: made from the holodeck, encoded from videos, opened again, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engine.files.atomic import replacing
from evaluation.consistency import revisit_pairs
from holodeck import has_place, place_names
from holodeck.generator import expand_range
from model.config import pocket
from model.vae.guided import GuidedAutoencoder
from training.data.archives.reader import ArchiveOptions, ClipArchives
from training.data.archives.writer import LATENTS_FOLDER, RAW_FOLDER, write_archive
from training.data.clip import FPS, Clip, ClipSource, LeftOut, readable
from training.data.clip_quality import EMPTY_TILES, camera_words
from training.data.holodeck.families import FAMILIES
from training.data.holodeck.rendering import (
    HolodeckClips,
    RenderJob,
    family_jobs,
    render_walks,
    rendered_clip,
)
from training.data.holodeck.walk_set import INTRINSICS
from training.data.latent_cache import CachedClips, LatentCache
from training.data.latents import EncodedClips, weights_tag
from training.data.videos.folder import VideoFolder, VideoOptions

RENDERED_FOLDER = "rendered"
SHEET_COLUMNS = 6
LABEL_PX = 132
Advance = Callable[[int], None]


@dataclass(frozen=True)
class SetSummary:
    """What is in a set of clips."""

    clips: int
    frames: int
    seconds: float
    metres: float
    """That the camera goes in all clips together."""
    revisits: int
    """Clips whose camera comes back to an earlier pose after being elsewhere."""
    scenes: dict[str, int]
    """Clips by scene."""
    camera_captions: int
    """Clips whose caption speaks of the camera."""
    left_out: list[LeftOut]


def summarise(clips: Iterable[Clip], left_out: list[LeftOut]) -> SetSummary:
    """Count what is in some clips; `left_out` is read when they are all through."""
    frames = revisits = captions = 0
    seconds = metres = 0.0
    scenes: Counter[str] = Counter()
    for clip in clips:
        frames += clip.num_frames
        seconds += clip.num_frames / clip.fps
        metres += float(np.linalg.norm(np.diff(clip.c2w[:, :3, 3], axis=0), axis=1).sum())
        revisits += len(revisit_pairs(clip.c2w, clip.fps)) > 0
        captions += bool(camera_words(clip.caption))
        scenes[clip.scene] += 1
    total = sum(scenes.values())
    return SetSummary(total, frames, seconds, metres, revisits, dict(scenes), captions, left_out)


def open_set(folder: Path, options: ArchiveOptions | None = None) -> ClipSource:
    """Open a folder of archives, or of encoded clips.

    Raises:
        ValueError: It is neither.
    """
    if (folder / RAW_FOLDER).is_dir():
        source = ClipArchives(folder / RAW_FOLDER, folder / LATENTS_FOLDER, options)
        source.name = folder.resolve().name
        return source
    cached = CachedClips(folder)
    if not len(cached):
        raise ValueError(
            f"{folder} holds no clips; `flaneur data make` and `flaneur data encode` make such folders"
        )
    return cached


def plan_holodeck_set(
    places: str, camera_families: str, num_clips: int, num_frames: int, revisit_share: float, seed: int
) -> list[RenderJob]:
    """Plan clips of the pocket's size, rate and lens.

    Args:
        places: Names with commas between them, or "all" for the hand-made; `generated-SEED` is a name too, and
            `generated-FIRST..LAST` stands for a range of seeds, both ends included.
        camera_families: Names with commas between them, or "all".

    Raises:
        ValueError: A name is not known.
    """
    config = pocket()
    video = RenderJob("", seed, num_frames, config.frame_width, config.frame_height, FPS, INTRINSICS)
    wanted = _chosen_places(places), _chosen(camera_families, FAMILIES, "camera family")
    return family_jobs(*wanted, num_clips, revisit_share, video)


def _chosen_places(text: str) -> list[str]:
    """Split names of places at commas; "all" stands for every hand-made one."""
    if text == "all":
        return place_names()
    names = [name for part in text.split(",") if part.strip() for name in expand_range(part.strip())]
    if unknown := [name for name in names if not has_place(name)]:
        known = ", ".join(place_names())
        raise ValueError(
            f"no place is called {unknown[0]!r}; choose from {known}, generated-17 or generated-100..199"
        )
    if not names:
        raise ValueError("name at least one place, or all")
    return names


def _chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """Split names at commas; "all" stands for every one."""
    names = list(known) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no {what} is called {unknown[0]!r}; choose from {', '.join(known)}")
    if not names:
        raise ValueError(f"name at least one {what}, or all")
    return names


def make_holodeck_set(
    folder: Path,
    jobs: Sequence[RenderJob],
    autoencoder: GuidedAutoencoder,
    advance: Advance,
    most_empty: float = EMPTY_TILES,
) -> SetSummary:
    """Draw videos of holodeck places, encode them and write one archive per place.

    What was drawn and encoded lies in `folder/rendered` and is not made again.

    Args:
        advance: Told how many videos are drawn.
        most_empty: Share of empty tiles above which a frame is nearly blank.
    """
    rendered = folder / RENDERED_FOLDER
    for done, _ in enumerate(render_walks(jobs, rendered, torch.get_num_threads()), 1):
        advance(done)
    cache = LatentCache(rendered, weights_tag(autoencoder))
    left_out: list[LeftOut] = []
    summaries: list[Clip] = []
    for place in dict.fromkeys(job.place for job in jobs):
        mine = [job for job in jobs if job.place == place]
        source = EncodedClips(HolodeckClips(mine, rendered, most_empty), cache, autoencoder)
        clips = list(readable(source, left_out))
        summaries += clips
        if clips:
            write_archive(folder, place, _with_frames(clips, mine, rendered))
    return summarise(summaries, left_out)


def _with_frames(clips: Sequence[Clip], jobs: Sequence[RenderJob], rendered: Path) -> Iterator[Clip]:
    """Give encoded clips their frames back, one after the other."""
    by_name = {job.label: job for job in jobs}
    for clip in clips:
        frames = rendered_clip(by_name[clip.name], rendered).frames
        assert frames is not None, "a rendered clip has frames"
        yield replace(clip, frames=frames[: clip.num_frames])


def encode_videos(
    folder: Path, output: Path, options: VideoOptions, autoencoder: GuidedAutoencoder, advance: Advance
) -> tuple[SetSummary, int]:
    """Encode the videos of a folder, each once; what is there already is not made again.

    Returns:
        What is in the set, and how many clips were encoded now.
    """
    videos = VideoFolder(folder, options)
    source = EncodedClips(videos, LatentCache(output, weights_tag(autoencoder)), autoencoder)
    left_out: list[LeftOut] = []

    def counted() -> Iterator[Clip]:
        for done, clip in enumerate(readable(source, left_out), 1):
            advance(done)
            yield clip

    return summarise(counted(), left_out), source.num_encoded


def write_sheet(path: Path, jobs: Sequence[RenderJob], rendered: Path) -> None:
    """Write a picture of some videos: one row each, its frames evenly over its time."""
    rows = []
    for job in jobs:
        clip = rendered_clip(job, rendered)
        assert clip.frames is not None, "a rendered clip has frames"
        picks = np.linspace(0, clip.num_frames - 1, SHEET_COLUMNS).round().astype(int)
        back = " and back" if job.revisit else ""
        label = _label([job.place, job.family + back], clip.frame_size[1])
        rows.append(np.concatenate([label, *clip.frames[picks]], 1))
    ok, encoded = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    assert ok, "a uint8 picture always encodes"
    with replacing(path) as file:
        file.write_bytes(encoded.tobytes())


def _label(lines: Sequence[str], height: int) -> NDArray[np.uint8]:
    """Words beside a row of pictures, [height, LABEL_PX, 3]."""
    picture = np.full((height, LABEL_PX, 3), 255, np.uint8)
    for n, line in enumerate(lines):
        where = 6, height // 2 + 18 * n - 4
        cv2.putText(picture, line, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return picture
