"""An exported refiner turned into TensorRT plans for a GPU, segment by segment, its products in the layer table's precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from torch import Tensor

from engine.files.bundle import CPU, LayerGroup, hash_file
from engine.files.refiner import REFINER_FILE, RefinerFolder, RefinerSpec
from export.engine import MAX_TEXT_LENGTH, PLAN_SUFFIX, build_engine, group_layers, phases, rewrite_graph
from export.folders import making_bundle, partial_folder, write_spec
from export.graph import layer_of
from export.progress import Stage
from export.quantization.backend import modelopt_version
from export.quantization.layers import REFINER_RULES, Algorithm, Low, Recipe
from export.quantization.quantize import (
    Calibration,
    LayerScales,
    layer_scales,
    quantise_network,
    quantised_layers,
)
from export.quantization.rewriting import PRODUCTS, LayerRecord
from export.refiner.folder import LENGTH_AXES
from model.refiner import Refiner


def refiner_recipe(low: Low, algorithm: Algorithm = "max") -> Recipe:
    """Return a recipe with the refiner's layer table."""
    return Recipe(low, algorithm, rules=REFINER_RULES)


def calibrate_refiner(
    refiner: Refiner,
    recipe: Recipe,
    latents: Tensor,
    text: Tensor,
    text_mask: Tensor,
    fps: float,
    memory: Tensor | None = None,
) -> Calibration:
    """Let ModelOpt calibrate a refiner, which is quantised in place, while it refines a clip.

    Args:
        latents, text, text_mask, fps, memory: As `Refiner.refine` takes them.
    """
    if not quantised_layers(refiner, recipe):
        return Calibration({}, "")
    quantise_network(
        refiner, recipe, lambda network: network.refine(latents, text, text_mask, fps=fps, memory=memory)
    )
    origin = f"{recipe.algorithm} of {modelopt_version()}, {latents.shape[2] - 1} latent frames refined"
    return Calibration(layer_scales(refiner, recipe), origin)


def rewrite_refiner_graph(
    source: Path, destination: Path, recipe: Recipe, layers: Mapping[str, LayerScales], stage: Stage
) -> list[LayerRecord]:
    """Write a graph of an exported refiner again in the layer table's precision; one without products stays as it is."""
    graph = onnx.load(source, load_external_data=False).graph
    if not any(layer_of(node) for node in graph.node if node.op_type in PRODUCTS):
        destination.write_bytes(source.read_bytes())
        return []
    return rewrite_graph(source, destination, recipe, layers, stage)


def build_refiner(
    folder: RefinerFolder,
    destination: Path,
    target: str,
    recipe: Recipe,
    calibration: Calibration,
    stage: Stage,
) -> Path:
    """Write plans for a GPU, whole or not at all; no GPU is needed. One graph is in memory at a time.

    Args:
        folder: In float32, for ONNX Runtime.
        target: Compute capability, such as sm120.
        calibration: For the same recipe.

    Raises:
        ValueError: The folder holds plans already.
        BuildFailed: TensorRT refused.
    """
    spec = folder.spec
    if spec.target != CPU:
        raise ValueError(f"this refiner was built for {spec.target} already; name the exported one")
    records: list[LayerRecord] = []
    builder = ""
    with making_bundle(Path(destination), REFINER_FILE) as partial, partial_folder(Path(destination)) as work:
        for name in spec.graphs:
            rewritten = work / name
            records += rewrite_refiner_graph(folder.path / name, rewritten, recipe, calibration.layers, stage)
            lengths = text_lengths(rewritten)
            builder = build_engine(rewritten, target, partial / plan_name(name), lengths, phases(stage))
            for left in work.iterdir():
                left.unlink()
        groups = tuple(group_layers(records, REFINER_RULES, ""))
        write_spec(
            partial, _describe(spec, partial, target, recipe.low, groups, calibration, builder), REFINER_FILE
        )
    return Path(destination)


def plan_name(graph: str) -> str:
    """Name the plan of a graph."""
    return Path(graph).stem + PLAN_SUFFIX


def text_lengths(graph: Path) -> dict[str, tuple[int, int, int]]:
    """Least, usual and greatest length of the inputs whose text axis varies."""
    given = onnx.load(graph, load_external_data=False).graph.input
    names = [tensor.name for tensor in given if tensor.name.rpartition(".")[2] in LENGTH_AXES]
    return dict.fromkeys(names, (1, MAX_TEXT_LENGTH, MAX_TEXT_LENGTH))


def _describe(
    spec: RefinerSpec,
    folder: Path,
    target: str,
    low: Low,
    groups: tuple[LayerGroup, ...],
    calibration: Calibration,
    builder: str,
) -> RefinerSpec:
    shared = ("caption_graph", "positions_graph", "embed_graph", "head_graph")
    own = ("text_graph", "blocks_graph", "commit_graph")
    changes = {name: plan_name(getattr(spec, name)) for name in shared} | {
        "segments": tuple(
            segment.model_copy(update={name: plan_name(getattr(segment, name)) for name in own})
            for segment in spec.segments
        ),
        "precision": low,
        "layer_groups": groups,
        "activation_scales": calibration.origin,
        "target": target,
        "builder": builder,
        "files": {file.name: hash_file(file) for file in sorted(folder.iterdir())},
    }
    return RefinerSpec.model_validate(spec.model_dump() | changes)
