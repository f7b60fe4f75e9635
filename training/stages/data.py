"""Where the stages of a chain take their clips from: the walks of a pocket run, or sets of clips of any source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from model.config import ModelConfig
from model.vae.pocket import Autoencoder
from training.data.batches import ClipBatches, FittingClips, StreamClips, WalkClips
from training.data.clip import Clip, ClipSource, LeftOut, readable
from training.data.holodeck.rendering import load_walk
from training.data.latents import LatentWalk, encode_walks, weights_tag
from training.data.stream import ClipStream
from training.data.texts import CaptionTable, Texts
from training.parallel.single_process import ALONE, Cluster
from training.pocket.run import PocketRun
from training.stages.autoencoder import Walk
from training.stages.best_clips import best_clips, clip_scores
from training.stages.config import StageConfig
from training.stages.model_file import load_autoencoder_file


class ChainData(Protocol):
    """What a chain asks of its data."""

    @property
    def num_scenes(self) -> int:
        """Rows of the table of texts that a model is begun with."""
        ...

    @property
    def base_channels(self) -> int | None:
        """Latent channels that the base model speaks; None where it has an autoencoder of its own."""
        ...

    @property
    def identity(self) -> str:
        """Names the clips that stages are given, and what their texts are to a model."""
        ...

    def films(self) -> Sequence[Walk]:
        """Films [F, H, W, 3] for an autoencoder.

        Raises:
            ValueError: There are only latents.
        """
        ...

    def clips(self, config: StageConfig) -> ClipBatches:
        """Clips for a stage of the generator."""
        ...


class WalkData:
    """Walks through the holodeck's places: drawn once, and encoded once by each of two autoencoders."""

    base_channels = None

    def __init__(self, run: PocketRun, autoencoder: Callable[[str, str], Path], kept_share: float) -> None:
        """Prepare.

        Args:
            autoencoder: Finds what a stage needs of an autoencoder's stage, or says that it is missing.
            kept_share: Of the walks, for the fine-tuning on the best.
        """
        self.run, self.autoencoder, self.kept_share = run, autoencoder, kept_share
        self.num_scenes = len(run.places)

    @property
    def identity(self) -> str:
        stems = [job.stem for job in self.run.jobs(range(self.run.recipe.num_walks))]
        return _digest(*stems, weights_tag(self._encoder("naming walks", "autoencoder")))

    def films(self) -> Sequence[Walk]:
        jobs = self.run.render(self.run.recipe.num_autoencoder_walks)
        return [load_walk(job, self.run.data)[0] for job in jobs]

    def clips(self, config: StageConfig) -> WalkClips:
        if config.stage == "base":
            return WalkClips(self._walks("base", "base-autoencoder"))
        walks = self._walks("a stage of the generator", "autoencoder")
        if config.stage != "best-clips":
            return WalkClips(walks)
        jobs = self.run.render(self.run.recipe.num_walks)
        scores = [clip_scores(np.asarray(load_walk(job, self.run.data)[0])) for job in jobs]
        return WalkClips([walks[number] for number in best_clips(scores, share=self.kept_share)])

    def _walks(self, user: str, autoencoder: str) -> list[LatentWalk]:
        jobs = self.run.render(self.run.recipe.num_walks)
        encoded = encode_walks(jobs, self.run.places, self._encoder(user, autoencoder), self.run.data)
        return list(self.run.progress.over(f"encoding for {autoencoder}", encoded, len(jobs)))

    def _encoder(self, user: str, autoencoder: str) -> Autoencoder:
        return load_autoencoder_file(self.autoencoder(user, autoencoder))


class SetData:
    """Sets of encoded clips: archives in SANA-WM's format, latent caches of films, or both, shuffled into one stream."""

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
        self.num_scenes, self.base_channels = texts.num_scenes, config.in_channels
        self.streams: list[ClipStream] = []

    @property
    def identity(self) -> str:
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

    def films(self) -> Sequence[Walk]:
        raise ValueError("autoencoders learn from walks through places; leave --data out for their stages")

    def clips(self, config: StageConfig) -> StreamClips:
        fitting = [FittingClips(source, self.config, config.num_latent_frames) for source in self.sources]
        # Trajectories are made one by one, whoever makes them: each process finds its clips by their number.
        is_dealt = config.stage != "ode-regression"
        rank, num_ranks = (self.cluster.group, self.cluster.num_groups) if is_dealt else (0, 1)
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
