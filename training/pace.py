"""What a stage's steps cost on this machine, measured before its first: operations, the precision that is fastest, frames."""

from __future__ import annotations

import copy
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from engine.files.atomic import replacing
from training.checkpoint import random_state, set_random_state
from training.optimizer import StageOptimizer
from training.precision import PRECISIONS, PrecisionName, computing_in, training_dtype
from training.throughput import count_operations, matrix_peak

if TYPE_CHECKING:
    from training.cluster import Cluster

TIMED_STEPS = 2
"""For each precision, after one that warms up; the faster one counts."""
MOST_SHARE = 0.05
"""Of a stage's time that finding its precision may take; a shorter stage goes without."""
WORTH_COMPILING_S = 1800.0
"""Compiling takes one to two minutes of a stage; a shorter one would not earn them back."""
LEAST_GAIN = 1.05
"""Compiled steps have to be faster than others by this factor, since every resumed run compiles again."""


class Stage(Protocol):
    """What the loop asks of a stage."""

    name: str

    @property
    def model(self) -> nn.Module:
        """What computes the step; its precision is chosen."""
        ...

    @property
    def optimizer(self) -> StageOptimizer:
        """Steps whatever the stage trains."""
        ...

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw a batch, leave gradients on the model's parameters, return figures to log."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A stage that carries more than its weights from step to step."""

    def memory_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside weights and random states: tensors and JSON values."""
        ...

    def load_memory(self, memory: dict[str, Any]) -> None:
        """Restore what `memory_dict` gave."""
        ...


@runtime_checkable
class CountsFrames(Protocol):
    """A stage that knows how much film it trains on."""

    @property
    def frames_per_step(self) -> float:
        """Video frames that the loss of one step looks at."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """A stage that several processes can train together."""

    def share_out(self, cluster: Cluster) -> None:
        """Hand every network to the processes, before the first step, and take hold anew of what this one keeps."""
        ...


class Pace(BaseModel):
    """What was measured before a stage began, kept so that a resumed run computes as before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    machine: str
    """Where; elsewhere it is measured anew."""
    precision: PrecisionName
    step_s: dict[PrecisionName, float] = {}
    """Of gradients alone, without the optimiser; empty where nothing was compared."""
    notes: tuple[str, ...] = ()
    """What was not tried, and why."""
    operations: int
    """Multiplications and additions of a step's matrix products, convolutions and attention."""
    peak: float
    """Most operations a second that matrix products reach in the chosen precision."""
    frames: float | None
    """Video frames a step trains on; None where the stage does not say."""

    def figures(self, steps_per_s: float) -> dict[str, float]:
        """Frames trained per second and the share of the peak, at some speed."""
        share = {"peak_share": steps_per_s * self.operations / self.peak} if self.operations else {}
        return share if self.frames is None else {"frames_per_s": steps_per_s * self.frames, **share}


def machine_name() -> str:
    """Processor, threads and torch: what a measured pace holds for."""
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@dataclass(frozen=True)
class Ahead:
    """What a stage has before it; it ends with whichever ends first."""

    steps: int
    seconds: float
    """May be infinite."""


def stage_pace(stage: Stage, path: Path, ahead: Ahead, precision: PrecisionName | None) -> Pace:
    """Return the pace of a stage, measuring it where that was not done on this machine.

    Args:
        path: Where it is kept.
        precision: What to compute in; None finds out.

    Raises:
        ValueError: The precision is compiled and there is nothing to compile with.
    """
    if precision is not None and PRECISIONS[precision].compiled and not has_compiler():
        raise ValueError(
            f"{stage.name} is to compute in {precision} and there is no C++ compiler here; install g++, or delete the stage's "
            "state to begin anew"
        )
    if (known := _read(path)) is not None and precision in (None, known.precision):
        return known
    with _leaving_no_trace(stage):
        pace = measure_pace(stage, ahead, precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_text(pace.model_dump_json(indent=1) + "\n")
    return pace


def _read(path: Path) -> Pace | None:
    """A kept pace that still holds here; what cannot be read is measured again."""
    try:
        pace = Pace.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return pace if pace.machine == machine_name() else None


@contextmanager
def _leaving_no_trace(stage: Stage) -> Iterator[None]:
    """Let a block take steps that the training afterwards knows nothing of."""
    random = random_state()
    memory = copy.deepcopy(stage.memory_dict()) if isinstance(stage, Remembering) else None
    try:
        yield
    finally:
        set_random_state(random)
        stage.optimizer.publish()
        for parameter in stage.optimizer.parameters:
            parameter.grad = None
        if isinstance(stage, Remembering) and memory is not None:
            stage.load_memory(memory)


def measure_pace(stage: Stage, ahead: Ahead, precision: PrecisionName | None = None) -> Pace:
    """Take steps of a stage to count and time them; its random numbers and memory are moved on by that."""
    start_s = time.perf_counter()
    operations = count_operations(lambda: stage.backward(np.random.default_rng(0)))
    first_s = time.perf_counter() - start_s
    times: dict[PrecisionName, float] = {}
    notes: tuple[str, ...] = ()
    chosen = precision
    if chosen is None:
        stage_s = min(ahead.seconds, ahead.steps * first_s)
        chosen, times, notes = _fastest(stage, stage_s, first_s)
    frames = stage.frames_per_step if isinstance(stage, CountsFrames) else None
    return Pace(
        machine=machine_name(),
        precision=chosen,
        step_s=times,
        notes=notes,
        operations=operations,
        peak=matrix_peak(PRECISIONS[chosen].computed_in),
        frames=frames,
    )


def _fastest(
    stage: Stage, stage_s: float, first_s: float
) -> tuple[PrecisionName, dict[PrecisionName, float], tuple[str, ...]]:
    """Time a stage's own step in what could be fastest; the fastest, all times, and what was not tried."""
    usual: PrecisionName = "bfloat16" if training_dtype() is torch.bfloat16 else "float32"
    names: list[PrecisionName] = ["float32", "bfloat16", "autocast"]
    notes: list[str] = []
    if usual == "float32":
        names = ["float32"]
        notes.append(
            "bfloat16 and autocast not tried: this processor multiplies bfloat16 no faster than float32"
        )
    if first_s * (1 + TIMED_STEPS) * len(names) > MOST_SHARE * stage_s:
        return usual, {}, (*notes, "nothing compared: the stage is too short")
    times: dict[PrecisionName, float] = {name: _step_s(stage, name) for name in names}
    best: PrecisionName = min(times, key=lambda name: times[name])
    if reason := _no_compiling(best, stage_s):
        return best, times, (*notes, f"not compiled: {reason}")
    compiled: PrecisionName = "bfloat16 compiled" if best == "bfloat16" else "float32 compiled"
    try:
        times[compiled] = _step_s(stage, compiled)
    except RuntimeError as error:
        return best, times, (*notes, f"not compiled: {str(error).strip().splitlines()[0][:200]}")
    return (compiled if times[compiled] * LEAST_GAIN < times[best] else best), times, tuple(notes)


def _no_compiling(best: PrecisionName, stage_s: float) -> str:
    """Why compiling is not even tried; empty where it is."""
    if best == "autocast":
        return "autocast was fastest"
    if stage_s < WORTH_COMPILING_S:
        return f"the stage is shorter than {WORTH_COMPILING_S / 60:.0f} minutes"
    return "" if has_compiler() else "there is no C++ compiler"


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch compiles with."""
    return any(map(shutil.which, ("g++", "clang++", "cl")))


def _step_s(stage: Stage, name: PrecisionName) -> float:
    """Seconds of a step's gradients in a precision."""
    fresh = copy.deepcopy(stage.memory_dict()) if isinstance(stage, Remembering) else None
    with computing_in(name, stage.model):
        stage.optimizer.publish()
        if isinstance(stage, Remembering) and fresh is not None:
            stage.load_memory(fresh)
        stage.backward(np.random.default_rng(0))
        return min(_seconds(lambda: stage.backward(np.random.default_rng(0))) for _ in range(TIMED_STEPS))


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s
