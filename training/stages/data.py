"""Where the stages of a pipeline take their clips from: the walks of a pocket run, or sets of clips of any source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.files.world import World
from engine.machine.assets import bundle_names, find_bundle
from evaluation.worlds import fitting_worlds
from export.scenes import Encode
from export.sources import open_source, picture_encoder
from model.checkpoint import load_checkpoint, weights_sha256
from model.config import ModelConfig, sana_wm
from model.decoders import encoder_of
from training.data.batches import ClipBatches, FittingClips, StreamClips, WalkClips
from training.data.clip import Clip, ClipSource, LeftOut, readable
from training.data.clip_quality import best_clips, clip_scores
from training.data.holodeck.rendering import load_walk
from training.data.holodeck.walk_set import WalkSet
from training.data.latents import weights_tag
from training.data.memory_clips import Video
from training.data.stream import ClipStream
from training.data.texts import CaptionTable, Texts
from training.data.world_clips import WorldClips
from training.parallel.single_process import ALONE, Cluster
from training.progress import RecipeProgress
from training.stages.config import StageConfig
from training.stages.model_file import is_network, load_autoencoder_file

NUM_WORLD_CLIPS = 48
"""Walks through worlds that a stage draws from."""


class StageData(Protocol):
    """What a pipeline asks of its data."""

    @property
    def num_scenes(self) -> int:
        """Rows of the table of texts that a model starts with."""
        ...

    @property
    def is_encoded_here(self) -> bool:
        """Whether clips are videos, which an autoencoder of the pipeline encodes, or latents of another."""
        ...

    def identity(self, autoencoder: Path) -> str:
        """Name the clips that stages are given, and what their texts are to a model.

        Args:
            autoencoder: Checkpoint of the one that encodes clips, where they are encoded here.
        """
        ...

    def videos(self) -> Sequence[Video]:
        """Videos [F, H, W, 3] for an autoencoder.

        Raises:
            ValueError: There are only latents.
        """
        ...

    def clips(
        self, config: StageConfig, autoencoder: Path | None, best_only: bool, dealt: bool
    ) -> ClipBatches:
        """Clips for a stage of the generator, as `Pipeline.clips` has them."""
        ...


class WalkData:
    """Walks through holodeck places: rendered once, and encoded once by each of two autoencoders."""

    is_encoded_here = True

    def __init__(self, walks: WalkSet, best_share: float, progress: RecipeProgress) -> None:
        """Prepare; `best_share` is the share of walks that the fine-tuning on the best gets."""
        self.walks, self.best_share, self.progress = walks, best_share, progress
        self.num_scenes = len(walks.places)

    def identity(self, autoencoder: Path) -> str:
        stems = [job.stem for job in self.walks.jobs()]
        return _digest(*stems, weights_tag(load_autoencoder_file(autoencoder)))

    def videos(self) -> Sequence[Video]:
        return self._videos(self.walks.settings.num_autoencoder_walks)

    def clips(self, config: StageConfig, autoencoder: Path | None, best_only: bool, dealt: bool) -> WalkClips:
        assert autoencoder is not None
        encoder, phase = load_autoencoder_file(autoencoder), f"encoding for {config.stage}"
        self.walks.render(self.progress, torch.get_num_threads())
        walks = self.walks.encode(encoder, self.progress, phase)
        if not best_only:
            return WalkClips(walks)
        scores = [clip_scores(np.asarray(video)) for video in self._videos()]
        return WalkClips([walks[number] for number in best_clips(scores, share=self.best_share)])

    def _videos(self, num_walks: int | None = None) -> list[Video]:
        jobs = self.walks.render(self.progress, torch.get_num_threads(), num_walks)
        return [load_walk(job, self.walks.folder)[0] for job in jobs]


class WorldData:
    """Walks through worlds that were made for the weights that are trained, with what their spatial memories show."""

    is_encoded_here = False
    num_scenes = 1
    """Texts come with the worlds; the table is not read."""

    def __init__(
        self,
        worlds: Sequence[World],
        encode: Encode | None,
        model: ModelConfig,
        timesteps: Sequence[float],
        fps: float,
    ) -> None:
        """Prepare; `timesteps` are those that the worlds are played with."""
        self.worlds, self.encode, self.model = worlds, encode, model
        self.timesteps, self.fps = timesteps, fps

    @classmethod
    def find(cls, checkpoint: Path) -> WorldData | None:
        """Look for worlds of a network's weights among those that are shipped; None where there are none."""
        if not is_network(checkpoint):
            return None
        sha256 = weights_sha256(load_checkpoint(checkpoint, sana_wm(), torch.float32))
        worlds = fitting_worlds(sha256)
        specs = [find_bundle(name, verify=False).spec for name in bundle_names()]
        spec = next((spec for spec in specs if spec.weights_sha256 == sha256), None)
        if spec is None or not worlds:
            return None
        model, decoder = open_source(str(checkpoint), random_weights=False)
        encode = picture_encoder(encoder_of(decoder)) if spec.memory_channels else None
        return cls(worlds, encode, model.config, spec.timesteps, spec.fps)

    def identity(self, autoencoder: Path) -> str:
        return _digest(*(world.name for world in self.worlds), self.worlds[0].info.model)

    def videos(self) -> Sequence[Video]:
        raise ValueError("autoencoders learn from walks through places, not from worlds")

    def clips(
        self, config: StageConfig, autoencoder: Path | None, best_only: bool, dealt: bool
    ) -> WorldClips:
        return WorldClips(self.worlds, self.model, self.encode, self.fps, NUM_WORLD_CLIPS, config.seed)


class SetData:
    """Sets of encoded clips: archives in SANA-WM's format, latent caches of videos, or both, shuffled into one stream."""

    is_encoded_here = False

    def __init__(
        self,
        sources: Sequence[ClipSource],
        config: ModelConfig,
        texts: Texts,
        cluster: Cluster = ALONE,
        num_workers: int = 0,
    ) -> None:
        """Prepare.

        Args:
            config: Of the model that is trained.
            num_workers: Processes beside each of the training's that read ahead.
        """
        self.sources, self.config, self.texts = sources, config, texts
        self.cluster, self.num_workers = cluster, num_workers
        self.num_scenes = texts.num_scenes
        self.streams: list[ClipStream] = []

    def identity(self, autoencoder: Path | None = None) -> str:
        # The first clip shows what labels do not: other latents under the same names, other captions.
        first: Clip | None = next((clip for source in self.sources for clip in readable(source, [])), None)
        shown: list[str | bytes] = []
        if first is not None and first.latents is not None:
            shown = [first.caption, first.latents.tobytes(), first.c2w.tobytes(), first.intrinsics.tobytes()]
        # Where the sets lie is no part of what they are: they may be moved, or named by another path.
        labels = (
            source.label(index).rpartition("/")[2] for source in self.sources for index in range(len(source))
        )
        return _digest(*labels, *shown, self.texts.identity)

    def videos(self) -> Sequence[Video]:
        raise ValueError("autoencoders learn from walks through places; leave --data out for their stages")

    def clips(
        self,
        config: StageConfig,
        autoencoder: Path | None = None,
        best_only: bool = False,
        dealt: bool = True,
    ) -> StreamClips:
        fitting = [FittingClips(source, self.config, config.num_latent_frames) for source in self.sources]
        rank, num_ranks = (self.cluster.group, self.cluster.num_groups) if dealt else (0, 1)
        stream = ClipStream(fitting, config.seed, rank, num_ranks, self.num_workers)
        self.streams.append(stream)
        return StreamClips(stream, self.config, self.texts, config.cut)

    def left_out(self) -> list[LeftOut]:
        """What this process was not given so far."""
        return [item for stream in self.streams for item in stream.left_out.values()]


def _digest(*parts: str | bytes) -> str:
    """Hash parts, each with its length in front."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def caption_table(sources: Sequence[ClipSource]) -> CaptionTable:
    """Read the captions of all clips that can be read, for a table that is learned.

    Raises:
        ValueError: There are none, or too many.
    """
    left_out: list[LeftOut] = []
    captions = {clip.caption for source in sources for clip in readable(source, left_out)}
    if not captions:
        first = f"; the first: {left_out[0].reason}" if left_out else ""
        raise ValueError(f"no clip of the data can be read{first}")
    return CaptionTable(captions)
