"""Times one denoising pass and one commit of a bundle under ONNX Runtime's settings and in PyTorch, in turns in one run.

    python scripts/bench_onnxruntime.py [BUNDLE] [--model CHECKPOINT] [--rounds 15] [--json]

The first variant is what Flaneur plays with. Beside the median time stands the median time of processors, all threads together,
which other work on the machine moves less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import engine  # noqa: F401, I001 (turns ONNX Runtime's telemetry off, so it comes first)
import numpy as np
import onnx
import onnxruntime
import torch

from engine.files.bundle import MEMORY, STEP_INPUTS, Bundle
from engine.machine.assets import checkpoints_dir, find_bundle
from export.onnx import step_inputs
from export.sources import open_source
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.rollout import RolloutState

Level = onnxruntime.GraphOptimizationLevel


def session(
    graph: Path, threads: int, level: Any, optimised: Path | None = None, spinning: bool = False
) -> Any:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.intra_op_num_threads = threads
    options.graph_optimization_level = level
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def plain(graph: Any, feed: dict[str, np.ndarray]) -> Callable[[], object]:
    """Return one pass that gives back the velocity, and one that gives back everything, as a session makes them."""

    def run() -> None:
        graph.run(["velocity"], feed)
        graph.run(None, feed)

    return run


def bound(graph: Any, feed: dict[str, np.ndarray]) -> Callable[[], object]:
    """Return the same two passes with inputs and outputs bound once."""
    bindings = []
    for outputs in (["velocity"], [output.name for output in graph.get_outputs()]):
        binding = graph.io_binding()
        for name, values in feed.items():
            binding.bind_cpu_input(name, values)
        for name in outputs:
            binding.bind_output(name, "cpu")
        bindings.append(binding)
    return lambda: [graph.run_with_iobinding(binding) for binding in bindings]


def in_torch(checkpoint: Path, inputs: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    model, _ = open_source(str(checkpoint), random_weights=False)
    tensors = RolloutState.zeros(model.config).tensors
    state = RolloutState(dict(zip(tensors, inputs[-len(tensors) :], strict=True)))
    memory = inputs[len(STEP_INPUTS)] if model.config.memory_channels else None

    latents, timesteps, c2w, intrinsics, start_frame, text, text_mask = inputs[: len(STEP_INPUTS)]
    conditioning = Conditioning(text, text_mask, c2w, intrinsics, start_frame, memory)

    @torch.no_grad()
    def run() -> None:
        for _ in range(2):
            model.step(latents, timesteps, conditioning, state)

    return run


def measure(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the median milliseconds of every variant, on the clock and of processors; each round runs all of them."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for index in range(rounds + 1):
        for name, run in variants.items():
            start, busy = time.perf_counter(), time.process_time()
            run()
            # The first round warms up.
            if index:
                times[name].append((time.perf_counter() - start, time.process_time() - busy))
    return {
        name: [1000 * statistics.median(values) for values in zip(*found, strict=True)]
        for name, found in times.items()
    }


def compare(bundle: Bundle, checkpoint: Path, rounds: int) -> dict[str, Any]:
    config = ModelConfig.from_dict(bundle.spec.model)
    graph = bundle.step_graph(config.chunk_size)
    inputs = step_inputs(config, config.chunk_size)
    memory = [MEMORY] if config.memory_channels else []
    names = [*STEP_INPUTS, *memory, *RolloutState.zeros(config).tensors]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        used = session(graph, 1, Level.ORT_ENABLE_ALL, optimised)
        kinds = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    variants = {
        "one thread, all optimisations": plain(used, feed),
        "the same, inputs and outputs bound": bound(used, feed),
        "two threads": plain(session(graph, 2, Level.ORT_ENABLE_ALL), feed),
        "two threads that wait by spinning": plain(
            session(graph, 2, Level.ORT_ENABLE_ALL, spinning=True), feed
        ),
        "one thread, basic optimisations": plain(session(graph, 1, Level.ORT_ENABLE_BASIC), feed),
        "one thread, none": plain(session(graph, 1, Level.ORT_DISABLE_ALL), feed),
        "PyTorch, one thread": in_torch(checkpoint, inputs),
    }
    before = Counter(node.op_type for node in onnx.load(graph, load_external_data=False).graph.node)
    return {
        "weights": bundle.spec.weights_sha256[:12],
        "milliseconds": measure(variants, rounds),
        "operators": {"before": before.total(), "after": kinds.total()},
        "fused": {kind: count for kind, count in kinds.items() if kind not in before},
        "casts": {"before": before["Cast"], "after": kinds["Cast"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", nargs="?", default="pocket")
    parser.add_argument("--model", type=Path, default=checkpoints_dir() / "pocket.safetensors")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = compare(find_bundle(arguments.bundle), arguments.model, arguments.rounds)
    if arguments.json:
        print(json.dumps(report))
        return
    for name, (took, busy) in report["milliseconds"].items():
        print(f"{took:8.1f} ms, processors {busy:6.1f} ms  {name}")
    del report["milliseconds"]
    for name, value in report.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
