"""Scales of a bundle's layers: what ModelOpt finds while the model generates chunks along held-out walks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx
import torch

from engine.files.bundle import Bundle, EngineSpec
from evaluation.worlds import fitting_worlds
from export.graph import layer_of
from export.progress import Progress, Stage
from export.quantization.backend import modelopt_version
from export.quantization.layers import Algorithm, Recipe
from export.quantization.quantize import Calibration, layer_scales, nominal_calibration, quantise_network
from export.scenes import Encode, Scene, held_out_scenes, roll
from export.sources import RANDOM_WEIGHTS, open_source, picture_encoder, shipped
from export.verify import check_sizes, made_up_scene
from model.checkpoint import weights_sha256
from model.decoders import encoder_of
from model.world_model import WorldModel

NUM_CHUNKS = 20
"""Chunks that are generated in each world."""
NUM_PASSES: dict[Algorithm, int] = {"max": 1, "mse": 1, "awq": 2, "svdquant": 3}
"""Times that an algorithm runs the forward loop."""


@dataclass(frozen=True)
class Walks:
    """What is generated to calibrate on."""

    scenes: Sequence[Scene]
    num_chunks: int
    """Of every scene, after the conditioning one."""
    timesteps: Sequence[float]

    @property
    def described(self) -> str:
        """What was generated, in words."""
        return f"chunks in each world: {self.num_chunks}, worlds: {', '.join(s.name for s in self.scenes)}"


def calibrate_bundle(
    bundle: Bundle,
    recipe: Recipe,
    source: str,
    stage: Stage,
    notice: Callable[[str], None],
    student: WorldModel | None = None,
) -> Calibration:
    """Calibrate on the worlds that fit a bundle, or on a made-up walk where there is none.

    Args:
        source: What the bundle was exported from, as `open_source` takes it; not opened for random weights.
        student: Distilled from it under the recipe; its weights take the place of the quantised layers'.
        notice: Told, in a sentence, what is calibrated on where that is no world.

    Raises:
        ValueError: The bundle was exported from other weights.
    """
    spec, layers = bundle.spec, quantised_products(bundle, recipe)
    if student is not None and (spec.notes == RANDOM_WEIGHTS or not layers):
        raise ValueError(
            "a student takes the place of quantised layers of trained weights; leave --student out"
        )
    if spec.notes == RANDOM_WEIGHTS:
        notice("weights from a seed: there is nothing to measure, activations get a nominal scale")
        return nominal_calibration(layers)
    if not layers:
        return Calibration({}, "")
    name, _ = shipped(source, False)
    model, decoder = open_source(name, False, (spec.frame_width, spec.frame_height))
    check_sizes(spec, model.config)
    if weights_sha256(model) != spec.weights_sha256:
        raise ValueError(
            f"{bundle.path} was exported from other weights than {name}; name its own with --weights"
        )
    if student is not None:
        replace_weights(model, student, layers)
    walks = calibration_walks(spec, picture_encoder(encoder_of(decoder)), notice)
    passes = NUM_PASSES[recipe.algorithm] * len(walks.scenes) * (walks.num_chunks + 1)
    if student is None:
        return calibrate(model, recipe, walks, stage("calibrating", passes))
    weights = {name: model.get_parameter(f"{name}.weight").numpy().copy() for name in layers}
    found = calibrate(model, recipe, walks, stage("calibrating", passes))
    distilled = {name: replace(scales, weight=weights[name]) for name, scales in found.layers.items()}
    return Calibration(
        distilled, f"{found.origin}; weights of the distilled student {weights_sha256(student)[:12]}"
    )


def replace_weights(model: WorldModel, student: WorldModel, layers: Sequence[str]) -> None:
    """Put a student's weights into the layers that were rounded while it learned.

    Raises:
        ValueError: It is no student of this model: something else differs.
    """
    own, learned = model.state_dict(), student.state_dict()
    changed = {f"{name}.weight" for name in layers}
    if own.keys() != learned.keys() or any(
        not torch.equal(own[name], learned[name]) for name in own.keys() - changed
    ):
        raise ValueError(
            "the student was not distilled from this model under this layer table; name its own with --weights"
        )
    model.load_state_dict({name: learned[name] for name in changed}, strict=False)


def calibration_walks(spec: EngineSpec, encode: Encode | None, notice: Callable[[str], None]) -> Walks:
    """Choose what to calibrate on: held-out walks through the worlds of a model and frame size, else a made-up walk."""
    pixels = (spec.frame_height, spec.frame_width)
    if any(world.first_frame.shape[:2] == pixels for world in fitting_worlds(spec.weights_sha256)):
        num_frames = 1 + NUM_CHUNKS * spec.frames_per_chunk
        memory = encode if spec.memory_channels else None
        return Walks(
            held_out_scenes(spec.weights_sha256, num_frames, spec.fps, memory), NUM_CHUNKS, spec.timesteps
        )
    notice("no world here was made for this model; calibrating on a made-up walk")
    return Walks([made_up_scene(spec, 1)], 1, spec.timesteps)


def calibrate(model: WorldModel, recipe: Recipe, walks: Walks, progress: Progress) -> Calibration:
    """Let ModelOpt calibrate a model, which is quantised in place.

    Args:
        progress: Told how many chunks were generated, over all passes of the algorithm.
    """
    done = 0

    def generate(network: WorldModel) -> None:
        nonlocal done
        for scene in walks.scenes:
            for _ in roll(network, scene, walks.timesteps, walks.num_chunks, seed=0):
                done += 1
                progress(done)

    quantise_network(model, recipe, generate)
    origin = f"{recipe.algorithm} of {modelopt_version()}, {walks.described}"
    return Calibration(layer_scales(model, recipe), origin)


def quantised_products(bundle: Bundle, recipe: Recipe) -> list[str]:
    """Return the layers of a bundle's step graph that get 8 or 4 bits."""
    graph = onnx.load(bundle.step_graph(bundle.spec.chunk_size), load_external_data=False).graph
    products = [layer_of(node) for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    return [name for name in products if recipe.is_quantised(name)]
