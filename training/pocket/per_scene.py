"""Memory stage: learn places by heart, token by token, from rays alone, into each scene's own memory.

One step takes tokens from as many pictures as it has tokens. Neighbouring tokens and frames teach nearly the same, so a batch of
strangers is worth many of a few whole pictures; what needs neighbours is learned by the stages after it.
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
from holodeck.walks import walk
from model.vae.pocket import Autoencoder
from training.data.holodeck.rendering import RenderJob, worker_pool
from training.data.latents import LatentWalk, encode_frames, pack_windows, weights_tag
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.token_path import recall_tokens, token_intrinsics
from training.stages.scenic_model import ScenicModel

TRAINED_PARTS = ("memor", "plucker_embedder", "blocks.0.plucker_proj", "final_layer", "x_embedder.proj.bias")
"""Parts of parameter names that lie on the token path."""


def is_on_token_path(name: str) -> bool:
    return any(part in name for part in TRAINED_PARTS)


def is_memory_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a weight of this stage: the scenes' keys and values, and what leads to them."""
    return "memories" in name or "plucker_proj" in name


class MemoryStage:
    """Batches of tokens at full noise and the loss of what they should have been."""

    def __init__(
        self,
        model: ScenicModel,
        walks: Sequence[LatentWalk],
        glimpses: Sequence[Glimpses] = (),
        batch_size: int = 24576,
        optimizer: OptimizerConfig | None = None,
        metric: Tensor | None = None,
        name: str = "memory",
    ) -> None:
        """Prepare the stage.

        Args:
            glimpses: More to learn from, of places that have walks.
            batch_size: Tokens of a step, in equal shares from every scene that has walks.
        """
        self.name, self.model = name, model
        config = model.world.config
        self.scenes = sorted({walk.scene for walk in walks})
        self.share = batch_size // len(self.scenes)
        self.columns = config.latent_width
        self.metric = torch.eye(config.in_channels) if metric is None else metric
        self.latents, self.poses = [], []
        for scene in self.scenes:
            # The first frame is given, never made.
            seen = [(walk.latents[1:], walk.c2w[1:]) for walk in walks if walk.scene == scene]
            seen += [(moments.latents, moments.c2w) for moments in glimpses if moments.scene == scene]
            self.latents.append(
                torch.cat([latents for latents, _ in seen]).flatten(2).transpose(1, 2).contiguous()
            )
            self.poses.append(torch.cat([poses for _, poses in seen]))
        self.intrinsics = walks[0].intrinsics
        self.optimizer = MasterOptimizer(
            model, optimizer or OptimizerConfig(), is_memory_matrix, trained=is_on_token_path
        )

    @property
    def frames_per_step(self) -> float:
        """Video frames that would have as many tokens as a step."""
        config = self.model.world.config
        return len(self.scenes) * self.share * config.temporal_stride / config.tokens_per_frame

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of tokens."""
        loss = self.loss(rng)
        loss.backward()
        return {"loss": float(loss.detach())}

    def loss(self, rng: np.random.Generator) -> Tensor:
        """Mean square error of a batch's clean tokens, in the metric."""
        clean, poses, intrinsics = self._batch(rng)
        recalled = recall_tokens(self.model.world, self.model.memory()[self.scenes], poses, intrinsics)
        return ((recalled - clean) @ self.metric).square().mean()

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw tokens: clean latents [G, N, C], poses [G, N, R, 4, 4], intrinsics [G, N, 4]."""
        config = self.model.world.config
        clean, poses, places = [], [], []
        for latents, windows in zip(self.latents, self.poses, strict=True):
            picture = torch.from_numpy(rng.integers(len(latents), size=self.share))
            place = torch.from_numpy(rng.integers(latents.shape[1], size=self.share))
            clean.append(latents[picture, place].float())
            poses.append(windows[picture])
            places.append(place)
        where = torch.stack(places)
        intrinsics = self.intrinsics.expand(*where.shape, 4)
        intrinsics = token_intrinsics(config, intrinsics, where // self.columns, where % self.columns)
        return torch.stack(clean), torch.stack(poses), intrinsics


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
