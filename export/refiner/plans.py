"""An exported refiner turned into TensorRT plans for a GPU, segment by segment, its products in the layer table's precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from torch import Tensor, nn

from engine.files.bundle import CPU, LayerGroup, hash_file
from engine.files.refiner import REFINER_FILE, RefinerFolder, RefinerSpec
from export.engine import MAX_TEXT_LENGTH, PLAN_SUFFIX, build_engine, group_layers, phases, rewrite_graph
from export.folders import making_bundle, partial_folder, write_spec
from export.graph import layer_of
from export.progress import Stage
from export.quantization.calibration import NOMINAL_LARGEST, Calibration
from export.quantization.layers import REFINER_RULES, Low, precision_of
from export.quantization.nvfp4 import PRODUCTS, LayerRecord
from export.refiner.folder import LENGTH_AXES
from model.refiner import Refiner


def nominal_refiner_calibration(refiner: Refiner, low: Low) -> Calibration:
    """Take one magnitude for every layer; for random weights, in which there is nothing to measure."""
    layers = _low_layers(refiner, low)
    origin = f"nominal, {NOMINAL_LARGEST:g} at most in every layer: random weights were not calibrated"
    return Calibration(dict.fromkeys(layers, NOMINAL_LARGEST), origin if layers else "")


def calibrate_refiner(
    refiner: Refiner, low: Low, latents: Tensor, text: Tensor, text_mask: Tensor, fps: float
) -> Calibration:
    """Measure the largest magnitude that reaches each layer of 8 or 4 bits while a clip is refined.

    Args:
        latents, text, text_mask, fps: As `Refiner.refine` takes them.
    """
    layers = _low_layers(refiner, low)
    largest = dict.fromkeys(layers, 0.0)
    handles = []

    def watch(name: str, layer: nn.Module) -> None:
        def see(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest[name] = max(largest[name], float(inputs[0].abs().max()))

        handles.append(layer.register_forward_pre_hook(see))

    for name, layer in layers.items():
        watch(name, layer)
    try:
        refiner.refine(latents, text, text_mask, fps=fps)
    finally:
        for handle in handles:
            handle.remove()
    origin = f"measured, {latents.shape[2] - 1} latent frames refined"
    return Calibration(largest, origin if layers else "")


def _low_layers(refiner: Refiner, low: Low) -> dict[str, nn.Module]:
    linears = {name: layer for name, layer in refiner.named_modules() if isinstance(layer, nn.Linear)}
    return {
        n: layer for n, layer in linears.items() if precision_of(n, low, REFINER_RULES) in ("nvfp4", "fp8")
    }


def rewrite_refiner_graph(
    source: Path, destination: Path, low: Low, largest: Mapping[str, float], stage: Stage
) -> list[LayerRecord]:
    """Write a graph of an exported refiner again in the layer table's precision; one without products stays as it is."""
    graph = onnx.load(source, load_external_data=False).graph
    if not any(layer_of(node) for node in graph.node if node.op_type in PRODUCTS):
        destination.write_bytes(source.read_bytes())
        return []
    return rewrite_graph(source, destination, low, REFINER_RULES, largest, False, stage)


def build_refiner(
    folder: RefinerFolder, destination: Path, target: str, low: Low, calibration: Calibration, stage: Stage
) -> Path:
    """Write plans for a GPU, whole or not at all; no GPU is needed. One graph is in memory at a time.

    Args:
        folder: In float32, for ONNX Runtime.
        target: Compute capability, such as sm120.
        calibration: For the same precision.

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
            records += rewrite_refiner_graph(folder.path / name, rewritten, low, calibration.largest, stage)
            lengths = text_lengths(rewritten)
            builder = build_engine(rewritten, target, partial / plan_name(name), lengths, phases(stage))
            for left in work.iterdir():
                left.unlink()
        groups = tuple(group_layers(records, REFINER_RULES, ""))
        write_spec(partial, _describe(spec, partial, target, low, groups, calibration, builder), REFINER_FILE)
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
