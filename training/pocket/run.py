"""The pocket world from nothing: draw, encode, train; every step is kept and a second call goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.files.atomic import replacing
from engine.memory.keyframes import Keyframe
from holodeck import place_names
from model.checkpoint import weights_sha256
from model.conditioning import Conditioning
from model.config import ModelConfig, pocket
from model.vae.depth import DepthConfig, DepthNetwork
from model.vae.guided import (
    AUTOENCODER_FILE,
    GuidedAutoencoder,
    GuidedAutoencoderConfig,
    autoencoder_in,
    load_autoencoder_weights,
)
from training.data.latents import weights_tag
from training.data.memory_clips import MemoryClips
from training.loop import run_stage
from training.pocket.clip_jobs import ClipJob, Job, KeyframeJob, make_all
from training.pocket.decoder import DecoderStage
from training.pocket.depth import DepthStage
from training.pocket.generator import GeneratorStage, LatentClips, encode_clips
from training.pocket.own_history import OwnHistoryStage, roll_out
from training.pocket.publish import CHECKPOINTS, depth_graph_in, load_depth_start, load_start
from training.pocket.recipe import AUTOENCODER, DECODER, DEPTH, GENERATOR, OWN_HISTORY, PocketRecipe
from training.pocket.views import CloseUpJob, RgbdJob, RgbdViews, ViewJob
from training.progress import RecipeProgress
from training.report.page import write_report
from training.run_folder import RunFolder
from training.stages.autoencoder import AutoencoderStage
from training.stages.scenic_model import NO_SCENE, ScenicModel
from training.trainable import Trainable

KEYFRAMES, CLIPS, VIEWS = "placing keyframes", "rendering clips", "rendering views"
ENCODING, ROLLING_OUT = "encoding clips", "rollouts of clips"
PUBLISHING, MEASURING = "publishing", "measuring"
"""Phases beside the stages."""
GENERATED = "generated"
"""Scene of all generated places."""
ROLLOUT_CLIPS = 16
"""Clips that are rolled out at once."""


class PocketRun:
    """One run directory and the steps that fill it."""

    def __init__(
        self,
        recipe: PocketRecipe,
        directory: Path,
        config: ModelConfig | None = None,
        start_from: Path | None = None,
        autoencoder_config: GuidedAutoencoderConfig | None = None,
        depth_config: DepthConfig | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            start_from: Folder that `publish` filled, whose weights the run starts from.
        """
        self.recipe, self.directory, self.start_from = recipe, directory, start_from
        self.config = config or pocket()
        self.autoencoder_config = autoencoder_config or GuidedAutoencoderConfig(
            self.config.in_channels, self.config.temporal_stride
        )
        self.depth_config = depth_config or DepthConfig()
        self.stages = recipe.stages()
        self.data = directory / "data"
        self.places = list(recipe.counts.places) or place_names()
        self.progress = RecipeProgress({}, shown=False)
        """Replaced where somebody watches."""
        self.folder: RunFolder | None = None
        """Gets the time of every phase, where it is to be kept."""

    def keyframe_jobs(self) -> list[KeyframeJob]:
        """The keyframes of every place, in the order of places."""
        return [KeyframeJob(place, self.recipe.placement) for place in self.places]

    def clip_jobs(self) -> list[ClipJob]:
        """All clips there are, those of the places first."""
        counts, settings = self.recipe.counts, self.recipe.clips
        placed = [
            ClipJob(job.place, seed, counts.clips_per_file, settings, job)
            for seed in range(counts.files)
            for job in self.keyframe_jobs()
        ]
        first, step = counts.first_generated_seed, counts.generated_per_file
        return placed + [
            ClipJob(GENERATED, seed, counts.clips_per_generated, settings, num_places=step)
            for seed in range(first, first + counts.generated_places, step)
        ]

    def view_jobs(self) -> list[RgbdJob]:
        """Views of generated places, and close-ups of still lifes; none where no network learns from them."""
        counts = self.recipe.counts
        if not self.trains(DEPTH):
            return []
        step, per_place, settings = counts.viewed_per_file, counts.views_per_place, self.recipe.clips
        first, closest = counts.first_viewed_seed, counts.first_still_life_seed
        jobs: list[RgbdJob] = [
            ViewJob(seed, step, per_place, settings)
            for seed in range(first, first + counts.viewed_places, step)
        ]
        return jobs + [
            CloseUpJob(seed, step, per_place, settings)
            for seed in range(closest, closest + counts.still_lifes, step)
        ]

    def trains(self, name: str) -> bool:
        """Whether the recipe has time for a stage."""
        return self.stages[name].loop.progress(0, 0.0) < 1.0

    def scene_of(self, job: ClipJob) -> int:
        """Number of its scene; generated places have none of their own."""
        return NO_SCENE if job.scene == GENERATED else self.places.index(job.scene)

    def render(self) -> list[MemoryClips]:
        """Make the keyframes and clips that are missing, and open all clips."""
        self._make(KEYFRAMES, self.keyframe_jobs())
        jobs = self.clip_jobs()
        self._make(CLIPS, jobs)
        return [MemoryClips.open(self.data, job.stem) for job in jobs]

    def _make(self, phase: str, jobs: Sequence[Job]) -> None:
        if missing := [job for job in jobs if not job.is_made(self.data)]:
            with self.timing(phase):
                made = make_all(missing, self.data, torch.get_num_threads())
                for _ in self.progress.over(phase, made, len(missing)):
                    pass

    def keyframes(self) -> dict[str, list[Keyframe]]:
        """The memories that the worlds begin with, by place."""
        return {job.place: job.read(self.data) for job in self.keyframe_jobs()}

    def timing(self, phase: str) -> AbstractContextManager[None]:
        """Note the time of a block, where a record is kept."""
        return nullcontext() if self.folder is None else self.folder.timing(phase)

    def train(self, stage: Trainable, seed: int) -> None:
        """Bring one of the recipe's stages to its end."""
        loop = self.stages[stage.name].loop
        with self.timing(stage.name):
            run_stage(stage, loop, self.directory, seed, self.report, self.progress)

    def report(self) -> None:
        """Write the report page, where a record is kept."""
        if self.folder is not None:
            write_report(self.directory)

    @property
    def autoencoder_path(self) -> Path:
        """Where the trained autoencoder is, or will be."""
        if self.start_from is None:
            return self.directory / AUTOENCODER_FILE
        return autoencoder_in(self.start_from / CHECKPOINTS)

    def autoencoder(self, clips: Sequence[MemoryClips]) -> GuidedAutoencoder:
        """Train the autoencoder; afterwards just load it."""
        path, told = self.autoencoder_path, self.stages[AUTOENCODER]
        if self.start_from is None and not path.exists():
            torch.manual_seed(self.recipe.seed)
            crop = self.recipe.batches.crop
            stage = AutoencoderStage(
                self.autoencoder_config, clips, told.batch_size, crop, AUTOENCODER, told.optimizer
            )
            self.train(stage, self.recipe.seed)
            finished = stage.finished_model()
            with replacing(path) as temporary:
                save_file({n: t.contiguous() for n, t in finished.state_dict().items()}, temporary)
        return load_autoencoder_weights(path)

    def encode(self, autoencoder: GuidedAutoencoder, clips: Sequence[MemoryClips]) -> list[LatentClips]:
        """Encode all clips, each once."""
        tag, jobs = weights_tag(autoencoder), self.clip_jobs()

        def encoded() -> Iterator[LatentClips]:
            for job, its in zip(jobs, clips, strict=True):
                path = self.latents_path(job, tag)
                yield _kept(
                    path, lambda its=its: _tensors(encode_clips(autoencoder, its, 0)), self.scene_of(job)
                )

        with self.timing(ENCODING):
            return list(self.progress.over(ENCODING, encoded(), len(jobs)))

    def latents_path(self, job: ClipJob, tag: str) -> Path:
        """Where the latents of clips lie that the autoencoder of this tag makes."""
        return self.data / f"{job.stem}.{tag}.latents.safetensors"

    def generator(self, latents: Sequence[LatentClips]) -> ScenicModel:
        """Train the generator through its stages and return the EMA weights, fp32."""
        torch.manual_seed(self.recipe.seed)
        model = ScenicModel(self.config, len(self.places))
        if self.start_from is not None:
            load_start(model, self.start_from, self.places)
        first, second = self.stages[GENERATOR], self.stages[OWN_HISTORY]
        lens = self.recipe.clips.intrinsics
        stage = GeneratorStage(model, latents, lens, first.batch_size, GENERATOR, optimizer=first.optimizer)
        self.train(stage, self.recipe.seed + 1)
        model.load_state_dict(stage.optimizer.ema_state(), strict=False)
        own = OwnHistoryStage(
            model, latents, lens, self.recipe.timesteps, second.batch_size, OWN_HISTORY, second.optimizer
        )
        own.optimizer.start_from(stage.optimizer)
        self.train(own, self.recipe.seed + 2)
        model.load_state_dict(own.optimizer.ema_state(), strict=False)
        return model.float().eval()

    def roll_out(self, model: ScenicModel, latents: Sequence[LatentClips]) -> list[Tensor]:
        """Let the generator make every clip again, each once: [N, C, T, h, w] of each file."""
        tag, jobs = weights_sha256(model)[:8], self.clip_jobs()

        def made() -> Iterator[Tensor]:
            for job, its in zip(jobs, latents, strict=True):
                path = self.data / f"{job.stem}.{tag}.rollouts.safetensors"
                if not path.exists():
                    with replacing(path) as temporary:
                        save_file({"latents": self._roll_out(model, its).half()}, temporary)
                yield load_file(path)["latents"].float()

        with self.timing(ROLLING_OUT):
            return list(self.progress.over(ROLLING_OUT, made(), len(jobs)))

    @torch.no_grad()
    def _roll_out(self, model: ScenicModel, clips: LatentClips) -> Tensor:
        lens, made = torch.tensor(self.recipe.clips.intrinsics), []
        noise = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(self.recipe.seed))
        for part in torch.arange(len(clips.latents)).split(ROLLOUT_CLIPS):
            text, mask = model.text(torch.full((len(part),), clips.scene))
            poses = clips.c2w[part]
            start = torch.zeros(len(part), dtype=torch.int64)
            cameras = lens.expand(*poses.shape[:2], 4)
            asked = Conditioning(text, mask, poses, cameras, start, clips.memory[part])
            first = clips.latents[part, :, :1]
            made.append(roll_out(model.world, first, noise[part], asked, self.recipe.timesteps))
        return torch.cat(made)

    def decoder(
        self,
        autoencoder: GuidedAutoencoder,
        clips: Sequence[MemoryClips],
        latents: Sequence[LatentClips],
        generated: Callable[[], Sequence[Tensor]],
    ) -> GuidedAutoencoder:
        """Train the decoder on what the generator made; without time for it, the autoencoder as it is."""
        told = self.stages[DECODER]
        if not self.trains(DECODER):
            return autoencoder
        torch.manual_seed(self.recipe.seed)
        crop = self.recipe.batches.crop
        stage = DecoderStage(
            autoencoder, clips, latents, generated(), told.batch_size, crop, DECODER, told.optimizer
        )
        self.train(stage, self.recipe.seed + 3)
        return stage.finished_model()

    def depth(self, clips: Sequence[MemoryClips]) -> DepthNetwork | Path | None:
        """Train the depth network; without time for it, the graph of the bundle that the run starts from, or None."""
        earlier = None if self.start_from is None else depth_graph_in(self.start_from)
        if not self.trains(DEPTH):
            return earlier
        jobs, told = self.view_jobs(), self.stages[DEPTH]
        self._make(VIEWS, jobs)
        views = [RgbdViews.open(self.data, job.stem) for job in jobs]
        views += [RgbdViews.of_clips(its, self.recipe.clips.stride) for its in clips]
        torch.manual_seed(self.recipe.seed)
        network = DepthNetwork(self.depth_config)
        if earlier is not None:
            load_depth_start(network, earlier)
        stage = DepthStage(network, views, told.batch_size, told.optimizer)
        self.train(stage, self.recipe.seed + 4)
        return stage.finished_model()


def _tensors(clips: LatentClips) -> dict[str, Tensor]:
    return {"latents": clips.latents.half(), "memory": clips.memory.half(), "c2w": clips.c2w}


def _kept(path: Path, make: Callable[[], dict[str, Tensor]], scene: int) -> LatentClips:
    """Read latents from a file, which is made first if it is missing."""
    if not path.exists():
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in make().items()}, temporary)
    tensors = load_file(path)
    return LatentClips(scene, tensors["latents"].float(), tensors["memory"].float(), tensors["c2w"])
