"""One stage as somebody asks for it: what it would do, whether it fits, and doing it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch

from model.config import ModelConfig
from training.data.archives.reader import ARCHIVE_FILTERS
from training.data.batches import check_fits
from training.data.clip import Clip, ClipRejected, ClipSource, LeftOut, readable
from training.data.holodeck.walk_set import WalkSet, WalkSettings
from training.data.refiner_pairs import RefinerPairs
from training.data.sets import open_set
from training.data.texts import EncodedTexts, Texts
from training.parallel.cluster import joined
from training.parallel.cost_model import GIB, num_parameters, refiner_parameters
from training.parallel.single_process import Cluster
from training.presets import PRESETS
from training.progress import RecipeProgress
from training.run_folder import holding
from training.stages.config import Preset
from training.stages.data import SetData, StageData, WalkData, WorldData, caption_table
from training.stages.model_file import model_path
from training.stages.pipeline import STAGES_FOLDER, Pipeline
from training.stages.plan import (
    MemoryBudget,
    budget_alone,
    budget_here,
    check_memory,
    expected_gib,
    stage_plan,
)
from training.stages.table import STAGES

PresetName = Literal["pocket", "miniature", "paper"]


@dataclass(frozen=True)
class Launch:
    """What this process was started with, as one of several."""

    rank: int
    """Number of the process."""
    local_rank: int
    """Number of the process on its machine."""
    size: int = 1
    """Processes in all."""
    local_size: int = 1
    """Processes on this machine."""
    context_parallel: int = 1
    """Processes in a row that share the frames of a clip."""


@dataclass(frozen=True)
class StageRequest:
    """One stage as somebody asks for it."""

    name: str
    preset: PresetName
    runs: Path
    """Run folder."""
    start_from: Path | None = None
    """Checkpoint or network to start from; that of the stage before where None."""
    data: tuple[Path, ...] = ()
    """Folders of sets of clips; the run's own walks where empty."""
    filters: str = "none"
    """Which clips of archives are wanted, a name in ARCHIVE_FILTERS."""
    model_file: Path | None = None
    """JSON of another model's numbers than the preset's."""
    text_encoder: Path | None = None
    """Folder of the language model that reads captions; they are learned as a table where None."""
    num_steps: int | None = None
    """At which the stage ends; the preset's own where None."""

    @property
    def is_done(self) -> bool:
        """Whether the checkpoint is there already, so that nothing will be trained."""
        return model_path(self.runs / STAGES_FOLDER, self.name).exists()

    def sizes(self) -> Preset:
        """The preset with what was asked for in its place.

        Raises:
            ValueError: The preset has no such stage, or the model's file is no such file.
        """
        preset = PRESETS[self.preset]()
        stage = preset.stage(self.name)
        if self.num_steps is not None:
            stage = replace(stage, loop=replace(stage.loop, num_steps=self.num_steps))
        model = preset.model if self.model_file is None else read_model_file(self.model_file)
        return replace(preset, model=model, stages={**preset.stages, self.name: stage})

    @cached_property
    def sources(self) -> list[ClipSource]:
        """The sets of clips, opened once: whoever asks first checks them, and whoever trains goes on with the same.

        Raises:
            ValueError: A folder holds none, or what it holds is no use for the stage.
        """
        self.check_data()
        if STAGES[self.name].is_refiner:
            if self.data:
                RefinerPairs.find(self.data)
            return []
        return [self.source(folder) for folder in self.data]

    def source(self, folder: Path) -> ClipSource:
        """Open a set of clips.

        Raises:
            ValueError: The folder holds none.
        """
        return open_set(folder, ARCHIVE_FILTERS[self.filters]())

    def check_data(self) -> None:
        """Refuse sets of clips where they are no use for the stage.

        Raises:
            ValueError: The stage learns from something else.
        """
        if self.data and STAGES[self.name].is_autoencoder:
            raise ValueError(
                f"{self.name} learns from walks through places, not from sets of latents; leave --data out"
            )


def read_model_file(path: Path) -> ModelConfig:
    """Read a model's numbers from JSON.

    Raises:
        ValueError: They are missing, or no model's.
    """
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"{path} holds no model's numbers ({error}); write them as `ModelConfig.to_dict` does"
        ) from None


def plan_of(request: StageRequest, launch: Launch | None = None) -> dict[str, str]:
    """Say what a stage would do, with what data, and whether it would fit into this machine.

    Raises:
        ValueError: The preset has no such stage, or the stage takes no data.
    """
    preset = request.sizes()
    stage, model = preset.stage(request.name), preset.model
    plan = stage_plan(stage, model.temporal_stride)
    request.check_data()
    if STAGES[request.name].is_autoencoder:
        return plan
    for folder in () if STAGES[request.name].is_refiner else request.data:
        plan[f"data in {folder}"] = _describe(request, folder, model, stage.num_latent_frames)
    budget = _budget(launch)
    each = "an unknown amount" if budget.computing is None else f"{budget.computing / GIB:.0f} GiB"
    sharing = 1 if launch is None else launch.context_parallel
    at_once = stage.batch_size if launch is None and not preset.one_clip_at_a_time else 1
    expected = expected_gib(stage, model, budget, sharing, at_once)
    plan["network"] = f"{model.name}, {num_parameters(model)[1] / 1e6:.1f} M parameters"
    if stage.refining is not None:
        _, every, learning = refiner_parameters(stage.refining.network, stage.refining.rank)
        plan["network"] = (
            f"a refiner of {every / 1e6:.1f} M parameters, {learning / 1e6:.1f} M of them trained"
        )
    plan["memory"] = (
        f"about {expected:.1f} GiB in each of {budget.processes} (an estimate); for one there is {each} here"
    )
    return plan


def _describe(request: StageRequest, folder: Path, model: ModelConfig, num_latent_frames: int) -> str:
    """Say what a folder holds and whether the stage could use it; a plan may be looked at before there is data."""
    try:
        source = request.source(folder)
    except ValueError as error:
        return f"none yet: {error}"
    left_out: list[LeftOut] = []
    first: Clip | None = next(readable(source, left_out), None)
    counts = f"{len(source)} clips, {len(source.left_out)} left out at the opening"
    if first is None or first.latents is None:
        return f"{counts}; none of them can be read"
    size = "x".join(map(str, first.latents.shape))
    facts = f"{counts}; the first: {first.name}, latents {size}, {first.num_frames} frames at {first.fps:g} a second"
    try:
        check_fits(first, model, num_latent_frames)
    except ClipRejected as error:
        return f"{facts}; it would be left out: {error}"
    return facts


def train_one(request: StageRequest, launch: Launch | None = None) -> tuple[Path, Sequence[LeftOut]]:
    """Bring one stage of a run folder to its end.

    Args:
        launch: Where several processes do so together; None for this one alone.

    Returns:
        Its checkpoint, and the clips that this process was not given.

    Raises:
        ValueError: What it needs is not there, or it is too large for this machine.
    """
    preset = request.sizes()
    _check(request, preset, launch)
    stage = preset.stage(request.name)
    with _processes(request, preset, launch) as cluster:
        if cluster.num_batches is not None:
            # A clip at a time: what does not fit beside one another follows one another.
            one = {request.name: replace(stage, batch_size=1)}
            preset = replace(preset, stages={**preset.stages, **one})
        progress = RecipeProgress({}, shown=cluster.is_first)
        data = _data_of(request, preset, cluster, progress)
        if isinstance(data, WorldData):
            preset = with_timesteps(preset, request.name, data.timesteps)
        pairs = request.data if STAGES[request.name].is_refiner else ()
        pipeline = Pipeline(preset, request.runs / STAGES_FOLDER, data, cluster, progress, pairs)
        checkpoint = pipeline.train(request.name, request.start_from)
        return checkpoint, data.left_out() if isinstance(data, SetData) else ()


def with_timesteps(preset: Preset, name: str, timesteps: Sequence[float]) -> Preset:
    """Give a distilled stage the schedule that its student is played with."""
    stage = preset.stage(name)
    assert stage.distillation is not None
    distillation = replace(stage.distillation, timesteps=tuple(map(int, timesteps)))
    return replace(preset, stages={**preset.stages, name: replace(stage, distillation=distillation)})


def _check(request: StageRequest, preset: Preset, launch: Launch | None) -> None:
    """Refuse what cannot be trained here, before anything is written."""
    # Opening them is what finds that they are no use.
    _ = request.sources
    if STAGES[request.name].is_autoencoder:
        return
    model = preset.model
    if preset.walks is None and not request.data:
        raise ValueError(
            "the paper's stages learn from sets of clips; name their folders with --data, see the plan with --dry-run, or use "
            "--preset pocket"
        )
    if preset.walks is None and request.model_file is None and request.text_encoder is None:
        raise ValueError(
            f"{model.name} reads captions as gemma-2-2b-it does; name its folder with --text-encoder"
        )
    if preset.walks is None or request.model_file is not None:
        check_memory(preset.stage(request.name), model, _budget(launch))


def _budget(launch: Launch | None) -> MemoryBudget:
    return budget_alone() if launch is None else budget_here(launch.size, launch.local_size)


@contextmanager
def _processes(request: StageRequest, preset: Preset, launch: Launch | None) -> Iterator[Cluster]:
    """Hold the run folder, with whatever processes there are."""
    batch_size = preset.stage(request.name).batch_size
    if launch is None:
        with holding(request.runs):
            yield Cluster(batch_size if preset.one_clip_at_a_time else None)
        return
    with (
        holding(request.runs) if launch.rank == 0 else nullcontext(),
        joined(launch.local_rank, launch.context_parallel, batch_size) as cluster,
    ):
        yield cluster


def _data_of(request: StageRequest, preset: Preset, cluster: Cluster, progress: RecipeProgress) -> StageData:
    if not request.sources:
        if STAGES[request.name].is_quantised and request.start_from is not None:
            with cluster.in_turn():
                found = WorldData.find(request.start_from)
            if found is not None:
                return found
        walks = WalkSet(preset.walks or WalkSettings(), preset.model, request.runs / "data")
        return WalkData(walks, preset.best_share, progress)
    with cluster.in_turn():
        texts = _texts_of(request, preset.model, request.sources)
    # A GPU waits for no clip to be unpacked.
    num_workers = 2 if torch.cuda.is_available() else 0
    return SetData(request.sources, preset.model, texts, cluster, num_workers)


def _texts_of(request: StageRequest, model: ModelConfig, sources: Sequence[ClipSource]) -> Texts:
    if request.text_encoder is None:
        return caption_table(sources)
    try:
        from export.text import load_text_encoder
    except ImportError as error:
        raise ValueError(f"reading captions needs more: pip install -e '.[worlds]' ({error})") from None

    encoder = load_text_encoder(request.text_encoder)
    if encoder.width != model.text_dim:
        raise ValueError(
            f"the text encoder in {request.text_encoder} gives {encoder.width} numbers a token and {model.name} reads "
            f"{model.text_dim}; name gemma-2-2b-it's folder"
        )
    # Another model's tokens, or another number of them, are other texts.
    kept = f"{request.text_encoder.resolve().name}-{model.text_length}"
    return EncodedTexts(request.runs / "texts" / kept, partial(encoder.encode, length=model.text_length))
