"""A float32 bundle turned into a bundle for one target: plans for a GPU, or graphs for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from engine.files.bundle import CPU, Bundle, EngineSpec, LayerGroup, hash_file
from export.calibrate import Calibration
from export.folders import link_or_copy, making_bundle, partial_folder, write_spec
from export.layers import DECODER_RULES, STEP_RULES, LayerRule, Low, find_rule
from export.progress import Progress, Stage
from export.quantize import LayerRecord, rewrite_products
from export.tensorrt import build_engine
from export.tidy import store_in_half
from export.weights import GraphWeights, save_graph
from model.config import ModelConfig

MAX_TEXT_LENGTH = 1024
"""Tokens of text that a plan takes at most, as many as a world file holds."""
PLAN_SUFFIX = ".engine"
DECODER = "decoder/"


def build_plans(
    bundle: Bundle,
    destination: Path,
    target: str,
    low: Low,
    calibration: Calibration,
    hadamard: bool,
    stage: Stage,
) -> Path:
    """Write a bundle of plans for a GPU, whole or not at all; no GPU is needed.

    Args:
        bundle: In float32, for ONNX Runtime.
        target: Compute capability, such as sm120.
        calibration: For the same precision.

    Raises:
        ValueError: The bundle holds plans already.
        BuildFailed: TensorRT refused.
    """
    spec = bundle.spec
    check_source(spec)
    text = _text_lengths(ModelConfig.from_dict(spec.model))
    with making_bundle(destination) as folder, partial_folder(destination) as work:
        groups: list[LayerGroup] = []
        plans: dict[str, str] = {}
        builder = ""
        graphs = {*spec.step_graphs.values(), spec.decoder_graph}
        for name in sorted(graphs):
            is_step = name != spec.decoder_graph
            rules = STEP_RULES if is_step else DECODER_RULES
            rewritten = work / name
            records = _rewrite(
                bundle.path / name, rewritten, low, rules, calibration.largest, hadamard, stage
            )
            if name in (spec.step_graphs[str(spec.chunk_size)], spec.decoder_graph):
                groups += group_layers(records, rules, "" if is_step else DECODER)
            plans[name] = Path(name).stem + PLAN_SUFFIX
            shapes = text if is_step else None
            builder = build_engine(rewritten, target, folder / plans[name], shapes, _phases(stage))
            for left in work.iterdir():
                left.unlink()
        precision = {"step": f"{low} with hadamard" if hadamard else low, "decoder": "bf16"}
        changes = {
            "step_graphs": {size: plans[name] for size, name in spec.step_graphs.items()},
            "decoder_graph": plans[spec.decoder_graph],
            "precision": precision,
            "layer_groups": tuple(groups),
            "activation_scales": calibration.origin,
            "target": target,
            "builder": builder,
        }
        _describe(folder, spec, changes)
    return destination


def _text_lengths(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """Least, usual and greatest length of the inputs that vary, memory rows included."""
    rows, usual = config.memory_rows, min(config.text_length, MAX_TEXT_LENGTH)
    lengths = (rows + 1, rows + usual, rows + MAX_TEXT_LENGTH)
    return {"text": lengths, "text_mask": lengths}


def build_graphs(bundle: Bundle, destination: Path, half: bool, stage: Stage) -> Path:
    """Write a bundle for ONNX Runtime, whole or not at all; float32 arithmetic, weights rounded to float16 on request."""
    spec = bundle.spec
    check_source(spec)
    with making_bundle(destination) as folder:
        graphs = sorted({*spec.step_graphs.values(), spec.decoder_graph})
        advance = stage("storing weights", len(graphs))
        for done, name in enumerate(graphs, 1):
            if half:
                graph_file = onnx.load(bundle.path / name)
                store_in_half(graph_file.graph, rounding=True)
                save_graph(graph_file, folder / name)
            advance(done)
        if not half:
            for name in spec.files:
                link_or_copy(bundle.path / name, folder)
        stored = "float32, weights stored in float16" if half else "float32"
        _describe(folder, spec, {"precision": {"step": stored, "decoder": stored}, "target": CPU})
    return destination


def group_layers(
    records: Iterable[LayerRecord], rules: tuple[LayerRule, ...], prefix: str
) -> list[LayerGroup]:
    """Sum up layers by the rule that decided on them, in the order of the table."""
    by_rule: dict[LayerRule, list[LayerRecord]] = {rule: [] for rule in rules}
    for record in records:
        by_rule[find_rule(record.name, rules)].append(record)
    return [
        LayerGroup(
            pattern=prefix + (rule.pattern or "geometry"),
            precision=found[0].precision,
            why=rule.why,
            num_layers=len({record.name for record in found}),
            weight_bytes=sum(record.weight_bytes for record in found),
        )
        for rule, found in by_rule.items()
        if found
    ]


def _rewrite(
    source: Path,
    destination: Path,
    low: Low,
    rules: tuple[LayerRule, ...],
    largest: Mapping[str, float],
    hadamard: bool,
    stage: Stage,
) -> list[LayerRecord]:
    graph_file = onnx.load(source, load_external_data=False)
    weights = GraphWeights(graph_file.graph, source.parent)
    advance = stage(f"rewriting {source.stem}", len(graph_file.graph.node))
    records = rewrite_products(graph_file, weights, low, rules, largest, hadamard, advance)
    weights.bring_in()
    save_graph(graph_file, destination)
    return records


def _phases(stage: Stage) -> Callable[[str, int, int], None]:
    """Open a bar for each phase that the builder speaks of."""
    bars: dict[str, Progress] = {}

    def show(phase: str, done: int, total: int) -> None:
        if phase not in bars:
            bars[phase] = stage(phase, total)
        bars[phase](done)

    return show


def check_source(spec: EngineSpec) -> None:
    """Refuse to build from plans."""
    if spec.is_plan:
        raise ValueError(
            f"this bundle was built for {spec.target} already; name the bundle of `flaneur export onnx`"
        )


def _describe(folder: Path, spec: EngineSpec, changes: dict[str, object]) -> None:
    files = {file.name: hash_file(file) for file in sorted(folder.iterdir())}
    values = spec.model_dump() | changes | {"files": files}
    write_spec(folder, EngineSpec.model_validate(values))
