"""What a stage's steps cost on this machine, measured before its first: operations, the precision that is fastest, frames."""

from __future__ import annotations

import copy
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch.utils.flop_counter import FlopCounterMode

from engine.files.atomic import replacing
from training.checkpoint import random_state, set_random_state
from training.precision import PRECISIONS, PrecisionName, computing_in
from training.trainable import CountsFrames, Stateful, Trainable

TIMED_STEPS = 2
"""For each precision, after one that warms up; the faster one counts."""
MOST_SHARE = 0.05
"""Of a stage's time that finding its precision may take; a shorter stage goes without."""
WORTH_COMPILING_S = 1800.0
"""Compiling takes one to two minutes of a stage; a shorter one would not earn them back."""
LEAST_GAIN = 1.05
"""Compiled steps have to be faster than others by this factor, since every resumed run compiles again."""


class Throughput(BaseModel):
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

    def metrics(self, steps_per_s: float) -> dict[str, float]:
        """Frames trained per second and the share of the peak, at some speed."""
        share = {"peak_share": steps_per_s * self.operations / self.peak} if self.operations else {}
        return share if self.frames is None else {"frames_per_s": steps_per_s * self.frames, **share}


def machine_name() -> str:
    """Processor, threads and torch: what a measured throughput holds for."""
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@dataclass(frozen=True)
class Remaining:
    """What a stage has before it; it ends with whichever ends first."""

    steps: int
    seconds: float
    """May be infinite."""


def stage_throughput(
    stage: Trainable, path: Path, remaining: Remaining, precision: PrecisionName | None
) -> Throughput:
    """Return the throughput of a stage, measuring it where that was not done on this machine.

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
        throughput = measure_throughput(stage, remaining, precision)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_text(throughput.model_dump_json(indent=1) + "\n")
    return throughput


def _read(path: Path) -> Throughput | None:
    """A kept throughput that still holds here; what cannot be read is measured again."""
    try:
        throughput = Throughput.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return throughput if throughput.machine == machine_name() else None


@contextmanager
def _leaving_no_trace(stage: Trainable) -> Iterator[None]:
    """Let a block take steps that the training afterwards knows nothing of."""
    random = random_state()
    memory = copy.deepcopy(stage.state_dict()) if isinstance(stage, Stateful) else None
    try:
        yield
    finally:
        set_random_state(random)
        stage.optimizer.publish()
        for parameter in stage.optimizer.parameters:
            parameter.grad = None
        if isinstance(stage, Stateful) and memory is not None:
            stage.load_state_dict(memory)


def measure_throughput(
    stage: Trainable, remaining: Remaining, precision: PrecisionName | None = None
) -> Throughput:
    """Take steps of a stage to count and time them; its random numbers and memory are moved on by that."""
    start_s = time.perf_counter()
    operations = count_operations(lambda: stage.backward(np.random.default_rng(0)))
    first_s = time.perf_counter() - start_s
    times: dict[PrecisionName, float] = {}
    notes: tuple[str, ...] = ()
    chosen = precision
    if chosen is None:
        stage_s = min(remaining.seconds, remaining.steps * first_s)
        chosen, times, notes = _fastest(stage, stage_s, first_s)
    frames = stage.frames_per_step if isinstance(stage, CountsFrames) else None
    return Throughput(
        machine=machine_name(),
        precision=chosen,
        step_s=times,
        notes=notes,
        operations=operations,
        peak=matrix_peak(PRECISIONS[chosen].computed_in),
        frames=frames,
    )


def _fastest(
    stage: Trainable, stage_s: float, first_s: float
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


def _step_s(stage: Trainable, name: PrecisionName) -> float:
    """Seconds of a step's gradients in a precision."""
    fresh = copy.deepcopy(stage.state_dict()) if isinstance(stage, Stateful) else None
    with computing_in(name, stage.model):
        stage.optimizer.publish()
        if isinstance(stage, Stateful) and fresh is not None:
            stage.load_state_dict(fresh)
        stage.backward(np.random.default_rng(0))
        return min(_seconds(lambda: stage.backward(np.random.default_rng(0))) for _ in range(TIMED_STEPS))


def _seconds(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


SIDES = (256, 512, 1024, 2048)
"""Of the square matrices whose product is timed; processors differ in which suits their caches."""
LEAST_S = 0.05
"""For each size; the best of the runs counts, so that other work on the machine does not make the peak smaller."""
MOST_S = 0.02
"""A product that takes longer than this says enough; larger ones are left out."""


def count_operations(step: Callable[[], object]) -> int:
    """Run a step and count its multiplications and additions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@cache
def matrix_peak(dtype: torch.dtype) -> float:
    """Measure the most operations a second that a product of two square matrices reaches, with torch's threads."""
    best = 0.0
    for side in SIDES:
        seconds = product_s(dtype, side, LEAST_S)
        best = max(best, 2.0 * side**3 / seconds)
        if seconds > MOST_S:
            break
    return best


def product_s(dtype: torch.dtype, side: int, least_s: float, fewest_runs: int = 3) -> float:
    """Shortest time of a matrix product, seconds; the first one, which may build kernels, is not counted."""
    matrix = torch.ones(side, side, dtype=dtype)
    torch.mm(matrix, matrix)
    times_s: list[float] = []
    while len(times_s) < fewest_runs or sum(times_s) < least_s:
        start_s = time.perf_counter()
        torch.mm(matrix, matrix)
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


@cache
def training_dtype() -> torch.dtype:
    """Return bfloat16 where this processor multiplies it faster than float32, which takes units of its own; else float32."""
    return min((torch.float32, torch.bfloat16), key=lambda dtype: product_s(dtype, side=256, least_s=0.02))
