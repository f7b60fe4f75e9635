"""A float32 bundle turned into a bundle for one target: TensorRT plans for a GPU, or graphs for ONNX Runtime.

Plans are built ahead of time on any machine: by TensorRT for RTX, or by classic TensorRT where it alone is there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from engine.errors import BackendUnavailable, BuildFailed
from engine.files.bundle import CPU, Bundle, EngineSpec, LayerGroup, hash_file
from engine.machine.hardware import TENSORRT_LIBRARIES
from export.folders import check_destination, link_or_copy, making_bundle, partial_folder, write_spec
from export.graph import GraphWeights, save_graph, store_in_half
from export.progress import Progress, Stage
from export.quantization.calibration import calibrate_bundle
from export.quantization.decoder import Rounding, calibrate_decoder
from export.quantization.layers import (
    DECODER_RULES,
    Algorithm,
    LayerRule,
    Recipe,
    Rules,
    find_rule,
    low_precision,
)
from export.quantization.quantize import Calibration, LayerScales
from export.quantization.rewriting import LayerRecord, rewrite_products
from model.config import ModelConfig
from model.world_model import WorldModel

MAX_TEXT_LENGTH = 1024
"""Tokens of text that a plan takes at most, as many as a world file holds."""
PLAN_SUFFIX = ".engine"
DECODER = "decoder/"
BF16_DECODER = Recipe("bf16", rules=DECODER_RULES), Calibration({}, "")
"""Of decoders and encoders that are not quantised."""


def chosen_recipe(
    target: str, precision: str, hadamard: bool, algorithm: Algorithm, rules: Rules
) -> Recipe | None:
    """Put a recipe together from what a user asks for; None where float32 is computed.

    Args:
        target: `cpu`, or a GPU's compute capability such as sm120.
        precision: nvfp4, fp8, int8 or bf16 on a GPU; fp32 or fp16 on a cpu.

    Raises:
        ValueError: Something does not go together.
    """
    if target != CPU and not re.fullmatch(r"sm\d{2,3}", target):
        raise ValueError(f"--target takes cpu or a GPU's compute capability such as sm120, got {target!r}")
    if target != CPU:
        return Recipe(low_precision(precision, hadamard), algorithm, hadamard, rules)
    if precision not in ("fp32", "fp16") or hadamard:
        raise ValueError(f"a cpu computes in float32: --precision fp32 or fp16, not {precision}")
    return None


def build_bundle(
    bundle: Bundle,
    destination: Path,
    target: str,
    recipe: Recipe,
    source: str,
    stage: Stage,
    notice: Callable[[str], None],
    student: WorldModel | None = None,
    decoder: Rounding = "bf16",
) -> Path:
    """Turn a bundle into one for a GPU; whatever can be refused is refused before minutes of calibration.

    Args:
        target: Compute capability, such as sm120.
        source: What the bundle was exported from, to calibrate on.
        notice: Told in a sentence what is calibrated on, where that is no world.
        student: Of `flaneur train qad`, whose weights take the place of the quantised layers'.
        decoder: What the decoder's convolutions are in.
    """
    check_paths(bundle, destination)
    check_target(load_library(), target)
    calibration = calibrate_bundle(bundle, recipe, source, stage, notice, student)
    decoding = BF16_DECODER if decoder == "bf16" else calibrate_decoder(bundle, source, stage, notice)
    return build_plans(bundle, destination, target, recipe, calibration, stage, decoding)


def check_paths(bundle: Bundle, destination: Path) -> None:
    """Refuse to build from plans, and into what is there."""
    check_source(bundle.spec)
    check_destination(destination)
    if destination.resolve() == bundle.path.resolve():
        raise ValueError(f"{destination} is the bundle to build from; name another folder")


def build_plans(
    bundle: Bundle,
    destination: Path,
    target: str,
    recipe: Recipe,
    calibration: Calibration,
    stage: Stage,
    decoding: tuple[Recipe, Calibration] = BF16_DECODER,
) -> Path:
    """Write a bundle of plans for a GPU, whole or not at all; no GPU is needed.

    Args:
        bundle: In float32, for ONNX Runtime.
        target: Compute capability, such as sm120.
        calibration: For the same recipe.
        decoding: Recipe and calibration of the decoder.

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
        quantised = dict.fromkeys(spec.step_graphs.values(), (recipe, calibration))
        quantised[spec.decoder_graph] = decoding
        for name in _graphs(spec):
            is_step = name in spec.step_graphs.values()
            own, scales = quantised.get(name, BF16_DECODER)
            rewritten = work / name
            records = rewrite_graph(bundle.path / name, rewritten, own, scales.layers, stage)
            if name in (spec.step_graphs[str(spec.chunk_size)], spec.decoder_graph):
                groups += group_layers(records, own.rules, "" if is_step else DECODER)
            plans[name] = Path(name).stem + PLAN_SUFFIX
            shapes = text if is_step else None
            builder = build_engine(rewritten, target, folder / plans[name], shapes, phases(stage))
            for left in work.iterdir():
                left.unlink()
        precision = dict.fromkeys(spec.precision, "bf16")
        precision["step"] = f"{recipe.low} with hadamard" if recipe.hadamard else recipe.low
        precision["decoder"] = decoding[0].low
        origins = [calibration.origin, f"decoder: {decoding[1].origin}" if decoding[1].origin else ""]
        changes = {
            "step_graphs": {size: plans[name] for size, name in spec.step_graphs.items()},
            "decoder_graph": plans[spec.decoder_graph],
            "encoder_graph": None if spec.encoder_graph is None else plans[spec.encoder_graph],
            "depth_graph": None,
            "precision": precision,
            "layer_groups": tuple(groups),
            "activation_scales": "; ".join(filter(None, origins)),
            "target": target,
            "builder": builder,
        }
        _describe(folder, spec, changes)
    return destination


def _text_lengths(config: ModelConfig) -> dict[str, tuple[int, int, int]]:
    """Least, usual and greatest length of the inputs that vary."""
    lengths = (1, min(config.text_length, MAX_TEXT_LENGTH), MAX_TEXT_LENGTH)
    return {"text": lengths, "text_mask": lengths}


def _graphs(spec: EngineSpec) -> list[str]:
    """Names of a bundle's graphs, each once."""
    encoder = () if spec.encoder_graph is None else (spec.encoder_graph,)
    return sorted({*spec.step_graphs.values(), spec.decoder_graph, *encoder})


def build_graphs(bundle: Bundle, destination: Path, half: bool, stage: Stage) -> Path:
    """Write a bundle for ONNX Runtime, whole or not at all; float32 arithmetic, weights rounded to float16 on request."""
    spec = bundle.spec
    check_paths(bundle, destination)
    with making_bundle(destination) as folder:
        graphs = [*_graphs(spec), *([] if spec.depth_graph is None else [spec.depth_graph])]
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
        _describe(folder, spec, {"precision": dict.fromkeys(spec.precision, stored), "target": CPU})
    return destination


def group_layers(records: Iterable[LayerRecord], rules: Rules, prefix: str) -> list[LayerGroup]:
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


def rewrite_graph(
    source: Path,
    destination: Path,
    recipe: Recipe,
    layers: Mapping[str, LayerScales],
    stage: Stage,
) -> list[LayerRecord]:
    """Write a float32 graph again with every product in the precision that the recipe gives it."""
    graph_file = onnx.load(source, load_external_data=False)
    weights = GraphWeights(graph_file.graph, source.parent)
    advance = stage(f"rewriting {source.stem}", len(graph_file.graph.node))
    records = rewrite_products(graph_file, weights, recipe, layers, advance)
    weights.bring_in()
    save_graph(graph_file, destination)
    return records


def phases(stage: Stage) -> Callable[[str, int, int], None]:
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


MAX_WORDS = 400
"""Of TensorRT's own complaint, in characters."""
PhaseProgress = Callable[[str, int, int], None]
"""Told the phase, steps done and steps in all."""


def load_library() -> ModuleType:
    """Return TensorRT for RTX, or classic TensorRT."""
    for name in TENSORRT_LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise BackendUnavailable(
        "building an engine needs TensorRT for RTX, which is not installed; run pip install -e '.[rtx]' in a clone"
    )


def builder_version(trt: ModuleType) -> str:
    return f"{trt.__name__} {trt.__version__}"


def build_engine(
    graph: Path,
    target: str,
    destination: Path,
    text_lengths: Mapping[str, tuple[int, int, int]] | None = None,
    progress: PhaseProgress | None = None,
) -> str:
    """Build a graph's plan for a GPU, which need not be there.

    Args:
        target: Compute capability, such as sm120.
        text_lengths: Least, usual and greatest length of the one dynamic axis, by input.

    Returns:
        The builder's name and version.

    Raises:
        BuildFailed: TensorRT refused; its first complaint is in the sentence.
    """
    trt = load_library()
    complaints: list[str] = []
    logger = _logger(trt, complaints)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        complaint = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise BuildFailed(_sentence(f"cannot read {graph.name}", complaint, target))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(check_target(trt, target), 0)
    if text_lengths:
        config.add_optimization_profile(_profile(builder, network, text_lengths))
    monitor = _monitor(trt, progress or (lambda _phase, _done, _total: None))
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.stopped:
        raise KeyboardInterrupt
    if plan is None:
        complaint = complaints[0] if complaints else "no reason given"
        raise BuildFailed(_sentence(f"cannot build {graph.stem}", complaint, target))
    destination.write_bytes(memoryview(plan))
    return builder_version(trt)


def check_target(trt: ModuleType, target: str) -> Any:
    """Return TensorRT's own name of a GPU to build for.

    Raises:
        ValueError: There is no such target.
        BuildFailed: This TensorRT builds for the GPU beside it alone.
    """
    capabilities = getattr(trt, "ComputeCapability", None)
    if capabilities is None:
        raise BuildFailed(
            f"this TensorRT builds for the GPU beside it alone, not for {target}; install tensorrt-rtx"
        )
    offered = [name.lower() for name in capabilities.__members__ if name.startswith("SM")]
    if target not in offered:
        raise ValueError(f"{target} is no target of {trt.__name__}; use {', '.join(sorted(offered))}")
    return getattr(capabilities, target.upper())


def _profile(builder: Any, network: Any, text_lengths: Mapping[str, tuple[int, int, int]]) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if tensor.name in text_lengths:
            shape = list(tensor.shape)
            profile.set_shape(
                tensor.name,
                *([length if n < 0 else n for n in shape] for length in text_lengths[tensor.name]),
            )
    return profile


def _sentence(what: str, complaint: str, target: str) -> str:
    words = " ".join(complaint.split())[:MAX_WORDS].rstrip(".")
    return f"TensorRT {what} for {target} ({words}); choose another --target or --precision"


def _logger(trt: ModuleType, complaints: list[str]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                complaints.append(msg)

    return Logger()


def _monitor(trt: ModuleType, progress: PhaseProgress) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Hands on the outermost phases; inner ones come and go by the thousand."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.totals: dict[str, int] = {}
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.totals[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            # An exception must not pass through the library, which ends a build that it is told to end.
            try:
                if phase_name in self.totals:
                    progress(phase_name, step, self.totals[phase_name])
            except KeyboardInterrupt:
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self.totals.pop(phase_name, None)

    return Monitor()
