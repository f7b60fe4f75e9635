"""What low precision costs: frames, poses and layers of a quantised model beside float32.

Both roll out on their own, each from its own state, so that errors add up as they would in a walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.files.bundle import EngineSpec
from evaluation.image_metrics import psnr
from evaluation.scores import contact_sheet
from export.progress import Progress, Stage
from export.quantization.backend import modelopt
from export.quantization.layers import Algorithm, Low, Precision, Recipe
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
) -> QualityReport:
    """Quantise a model and walk through the shipped worlds, on held-out walks.

    Args:
        source: The checkpoint that `open_source` opens.
        sheet: Gets frames of some worlds, float32 above the low precision, as .png.
    """
    model, decoder = open_source(source, random_weights=False)
    encode = picture_encoder(encoder_of(decoder))
    scenes = held_out_scenes(spec.weights_sha256, 1 + num_chunks * spec.frames_per_chunk, spec.fps, encode)
    check_sizes(spec, model.config)
    comparison = Comparison(model, decoder, spec, num_chunks)
    advance = stage(f"quantising to {recipe.low}", comparison.num_steps(scenes, recipe))
    report, videos = comparison.measure(scenes, recipe, advance)
    if sheet is not None:
        rows = [row for video in videos[:SHEET_WORLDS] for row in (video.fp32, video.low)]
        contact_sheet(rows, spec.fps, sheet)
    return report


class Comparison:
    """A model in float32 and its quantised twin on the same walks."""

    def __init__(self, model: WorldModel, decoder: nn.Module, spec: EngineSpec, num_chunks: int = 20) -> None:
        self.model, self.decoder, self.spec = model, decoder, spec
        self.num_chunks = num_chunks
        self._caches = tuple(torch.from_numpy(tensor.zeros()) for tensor in spec.decoder_caches)

    def measure(
        self, scenes: Sequence[Scene], recipe: Recipe, progress: Progress
    ) -> tuple[QualityReport, list[Videos]]:
        """Calibrate on the scenes, quantise, roll out, compare.

        Args:
            scenes: With `render`, each of at least 1 + num_chunks * chunk frames.
            progress: Told how many of `num_steps` steps are done.
        """
        originals: list[list[Tensor]] = []

        def generate(model: WorldModel) -> None:
            # Algorithms run it once or more; while they first do, nothing is rounded yet.
            for scene in scenes:
                latents = self._latents(model, scene)
                if len(originals) < len(scenes):
                    originals.append(latents)
                    progress(len(originals))

        twin = quantised(self.model, recipe, generate)
        if not originals:
            generate(self.model)
        return self.compare(twin, recipe, scenes, originals, progress)

    def compare(
        self,
        twin: WorldModel,
        recipe: Recipe,
        scenes: Sequence[Scene],
        originals: Sequence[list[Tensor]],
        progress: Progress,
    ) -> tuple[QualityReport, list[Videos]]:
        """Hold a quantised twin against what the model made in float32, latents by scene."""
        worlds, videos = [], []
        with modelopt().temporarily_fold_weights(twin):
            for done, (scene, latents) in enumerate(zip(scenes, originals, strict=True), len(scenes) + 1):
                world, video = self._compare(twin, scene, latents)
                worlds.append(world)
                videos.append(video)
                progress(done)
        layers = self._layer_costs(twin, recipe, scenes[0], lambda done: progress(2 * len(scenes) + done))
        return QualityReport(recipe.low, recipe.algorithm, recipe.hadamard, tuple(worlds), layers), videos

    def num_steps(self, scenes: Sequence[Scene], recipe: Recipe) -> int:
        return 2 * len(scenes) + len(quantised_layers(self.model, recipe))

    def _latents(self, model: WorldModel, scene: Scene) -> list[Tensor]:
        return [latents for latents, _, _ in roll(model, scene, self.spec.timesteps, self.num_chunks, 0)]

    def _compare(self, twin: WorldModel, scene: Scene, fp32: list[Tensor]) -> tuple[WorldQuality, Videos]:
        assert scene.render is not None
        low = self._latents(twin, scene)
        stride = self.spec.frames_per_chunk
        guides = list(scene.guides(self.model.config, sum(latents.shape[2] for latents in fp32)))
        videos = Videos(
            np.stack([scene.render(c2w) for c2w in scene.c2w[: 1 + self.num_chunks * stride]]),
            decode(self.decoder, fp32, self._caches, guides),
            decode(self.decoder, low, self._caches, guides),
        )
        poses = []
        for frame in range(stride, 1 + self.num_chunks * stride, stride):
            fit = PoseFit(scene.render, scene.c2w[frame])
            poses.append((fit.error(videos.fp32[frame]), fit.error(videos.low[frame])))
        chunks = []
        for index in range(1, self.num_chunks + 1):
            shown = slice(1 + (index - 1) * stride, 1 + index * stride)
            between = psnr(videos.fp32[shown], videos.low[shown])
            chunks.append(ChunkQuality(index, _relative(low[index], fp32[index]), between))
        quality = WorldQuality(
            world=scene.name,
            psnr_fp32=_mean_psnr(videos.truth, videos.fp32),
            psnr_low=_mean_psnr(videos.truth, videos.low),
            psnr_between=float(np.mean([chunk.psnr_between for chunk in chunks])),
            pose_fp32=_mean_pose([fp32 for fp32, _ in poses]),
            pose_low=_mean_pose([low for _, low in poses]),
            chunks=tuple(chunks),
        )
        return quality, videos

    @torch.no_grad()
    def _layer_costs(
        self, twin: WorldModel, recipe: Recipe, scene: Scene, progress: Progress
    ) -> tuple[LayerCost, ...]:
        runs = passes(self.model, scene, self.spec.timesteps, min(COST_CHUNKS, self.num_chunks), 0)
        exact = [run.velocity(self.model) for run in runs]
        costs = []
        for done, name in enumerate(quantised_layers(self.model, recipe), 1):
            own, velocity = _alone(self.model, twin, name, runs, exact)
            costs.append(LayerCost(name, recipe.precision(name), own, velocity))
            progress(done)
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


def _mean_pose(errors: Sequence[PoseError]) -> PoseError:
    return PoseError(
        float(np.mean([error.rotation_deg for error in errors])),
        float(np.mean([error.translation_m for error in errors])),
    )


Array = NDArray[np.float64]
Render = Callable[[Array], NDArray[np.uint8]]

PROBE_RAD = 0.02
PROBE_M = 0.08
"""Offsets that the true pictures are compared at: a pixel or two."""
CELL_PX = 4
"""Pictures are averaged over cells of this size first: what a soft world model gets wrong in detail is no motion."""


@dataclass(frozen=True)
class PoseError:
    """Offset of the camera that a picture seems taken from."""

    rotation_deg: float
    translation_m: float


def offset_pose(c2w: Array, offset: Array) -> Array:
    """Move a pose by a rotation vector (rad) and a translation (m), both along the camera's axes, [6]."""
    angle = float(np.linalg.norm(offset[:3]))
    turn = np.eye(3)
    if angle > 0:
        x, y, z = offset[:3] / angle
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
    moved = c2w.copy()
    moved[:3, :3] = c2w[:3, :3] @ turn
    moved[:3, 3] = c2w[:3, 3] + c2w[:3, :3] @ offset[3:]
    return moved


class PoseFit:
    """The true picture at one pose and how it changes with the camera, to hold several pictures against."""

    def __init__(self, render: Render, c2w: Array) -> None:
        self._truth = coarse(render(c2w))
        steps = [PROBE_RAD] * 3 + [PROBE_M] * 3
        columns = []
        for axis, step in enumerate(steps):
            probe = np.zeros(6)
            probe[axis] = step
            ahead, behind = render(offset_pose(c2w, probe)), render(offset_pose(c2w, -probe))
            columns.append((coarse(ahead) - coarse(behind)).ravel() / (2 * step))
        # Brightness is free, channel by channel: it is no motion either.
        tints = np.broadcast_to(np.eye(3), (self._truth.size // 3, 3, 3)).reshape(-1, 3)
        self._inverse = np.linalg.pinv(np.column_stack([*columns, tints]), rcond=1e-6)

    def offset(self, picture: NDArray[np.uint8]) -> Array:
        """Return the small camera offset that explains a picture best, by least squares, [6]."""
        return (self._inverse @ (coarse(picture) - self._truth).ravel())[:6]

    def error(self, picture: NDArray[np.uint8]) -> PoseError:
        offset = self.offset(picture)
        degrees = float(np.degrees(np.linalg.norm(offset[:3])))
        return PoseError(degrees, float(np.linalg.norm(offset[3:])))


def coarse(picture: NDArray[np.uint8]) -> Array:
    """Average a picture over cells, [h, w, 3]."""
    height, width = (size // CELL_PX * CELL_PX for size in picture.shape[:2])
    cells = picture[:height, :width].astype(np.float64)
    return cells.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3).mean((1, 3))
