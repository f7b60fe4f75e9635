"""Glimpses: single moments of many walks, drawn and encoded once, for what is learned token by token.

A latent of the pocket's autoencoder depends on its own frames alone, so a walk need not be drawn whole: moments that lie apart
teach more than as many that follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from engine.files.atomic import replacing
from holodeck import get_place
from model.vae.pocket import Autoencoder
from training.data.latents import encode_frames, pack_windows, weights_tag
from training.data.render import RenderJob, worker_pool
from training.data.walks import walk

EVERY = 3
"""One latent frame in so many is drawn."""


@dataclass(frozen=True)
class Glimpses:
    """N moments in one place."""

    scene: int
    """Row of the place in the table of scenes."""
    latents: Tensor
    """Normalised, [N, C, H, W] float16."""
    c2w: Tensor
    """Poses relative to the place's first frame, in packed windows, [N, R, 4, 4] float32."""


def glimpse_paths(jobs: Sequence[RenderJob], autoencoder: Autoencoder, directory: Path) -> list[Path]:
    """Name the files of walks' glimpses, which change with every setting, the code that draws and the autoencoder's weights."""
    tag = weights_tag(autoencoder)
    return [directory / f"{job.stem}.{EVERY}.{tag}.glimpses.safetensors" for job in jobs]


def draw_glimpses(job: RenderJob, autoencoder: Autoencoder, path: Path) -> Path:
    """Draw and encode every `EVERY`-th latent frame of a walk, unless that was done before."""
    if path.exists():
        return path
    place, stride = get_place(job.place), autoencoder.config.temporal_stride
    poses = walk(place, job.num_frames, job.fps, job.seed)
    windows = pack_windows(poses, stride)
    picked = np.arange(1 + job.seed % EVERY, len(windows), EVERY)
    video = 1 + stride * (picked[:, None] - 1) + np.arange(stride)
    intrinsics = np.array(job.intrinsics, np.float32)
    frames = np.stack([place.render(poses[n], intrinsics, job.width, job.height) for n in video.flat])
    # The encoder wants a first frame in front, which is a latent of its own.
    latents = encode_frames(autoencoder, np.concatenate([frames[:1], frames]))[1:]
    with replacing(path) as temporary:
        save_file({"latents": latents.numpy(), "c2w": windows[picked]}, temporary)
    return path


def _draw_on_one_thread(job: RenderJob, autoencoder: Autoencoder, path: Path) -> Path:
    torch.set_num_threads(1)
    return draw_glimpses(job, autoencoder, path)


def gather_glimpses(
    jobs: Sequence[RenderJob],
    scenes: Sequence[str],
    autoencoder: Autoencoder,
    directory: Path,
    num_workers: int,
) -> Iterator[Glimpses]:
    """Draw the glimpses that are missing, in parallel, and yield each walk's in the order of the jobs."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = glimpse_paths(jobs, autoencoder, directory)
    with worker_pool(num_workers) as pool:
        drawn = [
            pool.submit(_draw_on_one_thread, job, autoencoder, path)
            for job, path in zip(jobs, paths, strict=True)
            if not path.exists()
        ]
        waiting = iter(drawn)
        for job, path in zip(jobs, paths, strict=True):
            while not path.exists():
                next(waiting).result()
            tensors = load_file(path)
            yield Glimpses(
                scenes.index(job.place),
                torch.from_numpy(tensors["latents"]),
                torch.from_numpy(tensors["c2w"]),
            )
