"""Engines for a GPU, built ahead of time on any machine: TensorRT for RTX first, classic TensorRT where it alone is there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import BackendUnavailable, BuildFailed
from engine.machine.hardware import TENSORRT_LIBRARIES

MAX_WORDS = 400
"""Of TensorRT's own complaint, in characters."""
Progress = Callable[[str, int, int], None]
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
    progress: Progress | None = None,
) -> str:
    """Build a graph's plan for a GPU, which need not be there.

    Args:
        target: Compute capability, such as sm120.
        text_lengths: Least, usual and greatest length of the dynamic second axis, by input.

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
                tensor.name, *((shape[0], length, *shape[2:]) for length in text_lengths[tensor.name])
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


def _monitor(trt: ModuleType, progress: Progress) -> Any:
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
