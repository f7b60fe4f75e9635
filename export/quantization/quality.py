"""What low precision costs: frames, poses and layers of a quantised model beside float32.

Both roll out on their own, each from its own state, so that errors add up as they would in a walk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.files.bundle import EngineSpec
from evaluation.image_metrics import psnr
from evaluation.scores import contact_sheet
from export.progress import Progress, Stage
from export.quantization.backend import modelopt
from export.quantization.layers import Algorithm, Low, Precision, Recipe
from export.quantization.pose_fit import PoseError, PoseFit
from export.quantization.quantize import only, quantised, quantised_layers
from export.scenes import Frames, Pass, Scene, decode, held_out_scenes, passes, roll
from export.sources import open_source, picture_encoder
from export.verify import check_sizes
from model.decoders import encoder_of
from model.world_model import WorldModel

COST_CHUNKS = 6
"""Passes that the cost of single layers is measured on."""


MAX_LOSS_DB = 1.0
"""Decoded PSNR against float32 that low precision may lose in the worst world."""
SHEET_WORLDS = 3


@dataclass(frozen=True)
class ChunkQuality:
    """One chunk in low precision beside the same chunk in float32."""

    chunk_index: int
    latent_error: float
    """Root mean square difference of the latents over that of float32's."""
    psnr_between: float
    """Of the two pictures against each other, dB."""


@dataclass(frozen=True)
class WorldQuality:
    """One world's walk in both precisions, held against the truth."""

    world: str
    psnr_fp32: float
    psnr_low: float
    """Of the decoded frames against the truth, dB, mean over frames."""
    psnr_between: float
    pose_fp32: PoseError
    pose_low: PoseError
    """Mean over the last frames of all chunks."""
    chunks: tuple[ChunkQuality, ...]

    @property
    def loss_db(self) -> float:
        return self.psnr_fp32 - self.psnr_low


@dataclass(frozen=True)
class LayerCost:
    """What rounding one layer alone does."""

    layer: str
    precision: Precision
    own_error: float
    """Root mean square error of its output on real inputs, over that of the output."""
    velocity_error: float
    """Of the model's velocity, likewise."""


@dataclass(frozen=True)
class QualityReport:
    """What a precision costs, over several worlds."""

    precision: Low
    algorithm: Algorithm
    hadamard: bool
    worlds: tuple[WorldQuality, ...]
    layers: tuple[LayerCost, ...]
    """The costliest first."""

    @property
    def loss_db(self) -> float:
        """Largest loss of decoded PSNR against float32 over the worlds."""
        return max(world.loss_db for world in self.worlds)

    @property
    def passed(self) -> bool:
        return self.loss_db <= MAX_LOSS_DB

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {"loss_db": self.loss_db, **asdict(self)}


@dataclass(frozen=True)
class Videos:
    """The same walk three times, each [F, H, W, 3]."""

    truth: Frames
    fp32: Frames
    low: Frames


def measure_quality(
    spec: EngineSpec,
    source: str,
    recipe: Recipe,
    num_chunks: int,
    sheet: Path | None,
    stage: Stage,
    student: WorldModel | None = None,
) -> QualityReport:
    """Quantise a model and walk through the shipped worlds, on held-out walks.

    Args:
        source: The checkpoint that `open_source` opens.
        student: What is quantised in place of that, such as a distilled twin.
        sheet: Gets frames of some worlds, float32 above the low precision, as .png.
    """
    model, decoder = open_source(source, random_weights=False)
    encode = picture_encoder(encoder_of(decoder))
    scenes = held_out_scenes(spec.weights_sha256, 1 + num_chunks * spec.frames_per_chunk, spec.fps, encode)
    check_sizes(spec, model.config)
    comparison = Comparison(model, decoder, spec, scenes, num_chunks)
    advance = stage(f"quantising to {recipe.low}", comparison.num_steps(recipe))
    report, videos = comparison.measure(recipe, advance, student)
    if sheet is not None:
        rows = [row for video in videos[:SHEET_WORLDS] for row in (video.fp32, video.low)]
        contact_sheet(rows, spec.fps, sheet)
    return report


@dataclass(frozen=True)
class Reference:
    """One walk in float32 and in truth, to hold low precision against."""

    latents: Sequence[Tensor]
    """Of every chunk, the conditioning one first."""
    guides: Sequence[tuple[Tensor, ...]]
    truth: Frames
    video: Frames
    fits: Sequence[PoseFit]
    """At the last frame of every chunk after the first."""


class Comparison:
    """A model in float32 and quantised twins on the same walks."""

    def __init__(
        self,
        model: WorldModel,
        decoder: nn.Module,
        spec: EngineSpec,
        scenes: Sequence[Scene],
        num_chunks: int = 20,
    ) -> None:
        """Prepare.

        Args:
            scenes: With `render`, each of at least 1 + num_chunks * chunk frames.
        """
        self.model, self.decoder, self.spec = model, decoder, spec
        self.scenes, self.num_chunks = scenes, num_chunks
        self._caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)
        self._references: list[Reference] = []

    def measure(
        self, recipe: Recipe, progress: Progress, student: WorldModel | None = None, costs: bool = True
    ) -> tuple[QualityReport, list[Videos]]:
        """Calibrate on the scenes, quantise, roll out, compare.

        Args:
            progress: Told how many of `num_steps` steps are done.
            student: What is quantised in place of the model, and held against it.
            costs: Whether to round layer by layer too.
        """
        originals: list[list[Tensor]] = []

        def generate(network: WorldModel) -> None:
            # Algorithms run it once or more; while they first do, nothing is rounded yet.
            for scene in self.scenes:
                latents = self._latents(network, scene)
                if len(originals) < len(self.scenes):
                    originals.append(latents)
                    progress(len(originals))

        twin = quantised(student or self.model, recipe, generate)
        if not self._references:
            if student is not None or not originals:
                originals.clear()
                generate(self.model)
            self._references = [self._reference(*pair) for pair in zip(self.scenes, originals, strict=True)]
        worlds, videos = [], []
        with modelopt().temporarily_fold_weights(twin):
            for scene, reference in zip(self.scenes, self._references, strict=True):
                world, video = self._compare(twin, scene, reference)
                worlds.append(world)
                videos.append(video)
                progress(len(self.scenes) + len(worlds))
        layers = self._layer_costs(twin, recipe, progress) if costs else ()
        return QualityReport(recipe.low, recipe.algorithm, recipe.hadamard, tuple(worlds), layers), videos

    def num_steps(self, recipe: Recipe) -> int:
        return 2 * len(self.scenes) + len(quantised_layers(self.model, recipe))

    def _latents(self, model: WorldModel, scene: Scene) -> list[Tensor]:
        return [latents for latents, _, _ in roll(model, scene, self.spec.timesteps, self.num_chunks, 0)]

    def _reference(self, scene: Scene, latents: Sequence[Tensor]) -> Reference:
        assert scene.render is not None
        stride = self.spec.frames_per_chunk
        guides = list(scene.guides(self.model.config, sum(chunk.shape[2] for chunk in latents)))
        poses = scene.c2w[: 1 + self.num_chunks * stride]
        return Reference(
            latents,
            guides,
            np.stack([scene.render(c2w) for c2w in poses]),
            decode(self.decoder, latents, self._caches, guides),
            [PoseFit(scene.render, c2w) for c2w in poses[stride::stride]],
        )

    def _compare(self, twin: WorldModel, scene: Scene, reference: Reference) -> tuple[WorldQuality, Videos]:
        latents = self._latents(twin, scene)
        stride = self.spec.frames_per_chunk
        low = decode(self.decoder, latents, self._caches, reference.guides)
        chunks = []
        for index in range(1, self.num_chunks + 1):
            shown = slice(1 + (index - 1) * stride, 1 + index * stride)
            between = psnr(reference.video[shown], low[shown])
            chunks.append(ChunkQuality(index, _relative(latents[index], reference.latents[index]), between))
        quality = WorldQuality(
            world=scene.name,
            psnr_fp32=_mean_psnr(reference.truth, reference.video),
            psnr_low=_mean_psnr(reference.truth, low),
            psnr_between=float(np.mean([chunk.psnr_between for chunk in chunks])),
            pose_fp32=_mean_pose(reference.fits, reference.video[stride::stride]),
            pose_low=_mean_pose(reference.fits, low[stride::stride]),
            chunks=tuple(chunks),
        )
        return quality, Videos(reference.truth, reference.video, low)

    @torch.no_grad()
    def _layer_costs(self, twin: WorldModel, recipe: Recipe, progress: Progress) -> tuple[LayerCost, ...]:
        runs = passes(self.model, self.scenes[0], self.spec.timesteps, min(COST_CHUNKS, self.num_chunks), 0)
        exact = [run.velocity(self.model) for run in runs]
        costs = []
        for done, name in enumerate(quantised_layers(self.model, recipe), 1):
            own, velocity = _alone(self.model, twin, name, runs, exact)
            costs.append(LayerCost(name, recipe.precision(name), own, velocity))
            progress(2 * len(self.scenes) + done)
        return tuple(sorted(costs, key=lambda cost: -cost.velocity_error))


def _alone(
    model: WorldModel, twin: WorldModel, name: str, runs: Sequence[Pass], exact: Sequence[Tensor]
) -> tuple[float, float]:
    """Let one layer of a twin round and no other; returns the errors of its output and of the velocity."""
    linear = model.get_submodule(name)
    own: list[float] = []

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own.append(_relative(output, linear(inputs[0])))

    handle = twin.get_submodule(name).register_forward_hook(hook)
    try:
        with only(twin, [name]):
            errors = [
                _relative(run.velocity(twin), velocity) for run, velocity in zip(runs, exact, strict=True)
            ]
    finally:
        handle.remove()
    return float(np.mean(own)), float(np.mean(errors))


def _mean_psnr(truth: Frames, video: Frames) -> float:
    """Mean over the frames after the first, which was given."""
    return float(np.mean([psnr(a, b) for a, b in zip(truth[1:], video[1:], strict=True)]))


def _relative(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


def _mean_pose(fits: Sequence[PoseFit], frames: Frames) -> PoseError:
    errors = [fit.error(frame) for fit, frame in zip(fits, frames, strict=True)]
    return PoseError(
        float(np.mean([error.rotation_deg for error in errors])),
        float(np.mean([error.translation_m for error in errors])),
    )
