"""The loop that drives every stage: steps, learning-rate schedule, progress, log, atomic checkpoints, resume."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from training.checkpoint import random_state, set_random_state
from training.parallel.single_process import ALONE, Cluster
from training.precision import PRECISIONS, PrecisionName, computing_in
from training.progress import Phase, RecipeProgress
from training.stage_log import StageLog
from training.throughput import Remaining, Throughput, stage_throughput
from training.trainable import Stateful, Trainable


@dataclass(frozen=True)
class LoopConfig:
    """How long a stage runs and how its learning rate moves."""

    num_steps: int
    max_minutes: float = math.inf
    """Training time at which the stage ends even if steps are left; the schedule follows whichever is further."""
    warmup: float = 0.02
    """Share of the run in which the learning rate rises from 0."""
    decay: float = 0.5
    """Share of the run, at its end, in which the learning rate falls linearly to `final_lr`."""
    final_lr: float = 0.02
    save_every_s: float = 120.0
    log_every: int = 20
    precision: PrecisionName | None = None
    """What to compute in, Muon included. None measures what is fastest when the stage begins, and writes it into the stage's
    state: a resumed run computes in the same, on whatever machine."""

    def progress(self, step: int, trained_s: float) -> float:
        """Share of the stage that is over, in [0, 1]."""
        if self.num_steps == 0 or self.max_minutes == 0:
            return 1.0
        return min(1.0, max(step / self.num_steps, trained_s / (60.0 * self.max_minutes)))

    def left_s(self, step: int, trained_s: float) -> float:
        """Seconds that are left, judged by those that are over; infinite where nothing can be told yet."""
        by_steps = trained_s / step * (self.num_steps - step) if step else math.inf
        return max(0.0, min(by_steps, 60.0 * self.max_minutes - trained_s))


def learning_rate_scale(progress: float, config: LoopConfig) -> float:
    """Trapezoid: rise, hold, fall; `progress` in [0, 1]."""
    if progress < config.warmup:
        return max(progress / config.warmup, 0.02)
    left = (1.0 - progress) / config.decay
    return max(config.final_lr, min(1.0, left))


def run_stage(
    stage: Trainable,
    config: LoopConfig,
    run_dir: Path,
    seed: int,
    on_save: Callable[[], None] | None = None,
    progress: RecipeProgress | None = None,
    cluster: Cluster = ALONE,
) -> bool:
    """Train a stage to its end, resuming where an earlier call stopped, on however many processes.

    Writes `<stage>.state.safetensors` (all that resuming needs), `<stage>.log.jsonl` and `<stage>.throughput.json`.
    The model is left in float32. Ctrl-C ends the step that is under way, saves, and is raised then.

    Returns:
        Whether anything was trained (False where the stage was finished before).
    """
    run = StageRun(stage, config, run_dir, seed, on_save, cluster)
    if run.resume() or config.progress(run.step, run.trained_s) >= 1.0:
        return False
    rates, computing = cluster.rates(stage), nullcontext()
    if cluster.precision is not None:
        run.precision = cluster.precision
    else:
        remaining = Remaining(config.num_steps - run.step, 60.0 * config.max_minutes - run.trained_s)
        throughput = stage_throughput(
            stage, run_dir / f"{stage.name}.throughput.json", remaining, config.precision or run.precision
        )
        rates = batch_rates(throughput, cluster.batches_per_step)
        run.precision = throughput.precision
        computing = computing_in(throughput.precision, stage.model)
    stage.optimizer.orthogonalise_in(PRECISIONS[run.precision].computed_in)
    bars = progress or RecipeProgress({}, shown=cluster.is_first)
    with bars.phase(stage.name) as phase, asked_to_stop() as stop, computing:
        stage.optimizer.publish()
        run.train(rates, phase, stop)
    stage.optimizer.publish()
    if stop.is_set():
        raise KeyboardInterrupt
    return True


def batch_rates(throughput: Throughput, num_batches: int) -> Callable[[float], dict[str, float]]:
    """Say what a throughput, which is that of one batch, comes to in steps of several."""
    return lambda steps_per_s: throughput.metrics(num_batches * steps_per_s)


class StageRun:
    """One stage on its way: step, time, random numbers, and their file."""

    def __init__(
        self,
        stage: Trainable,
        config: LoopConfig,
        run_dir: Path,
        seed: int,
        on_save: Callable[[], None] | None,
        cluster: Cluster = ALONE,
    ) -> None:
        self.stage, self.config, self.run_dir, self.seed, self.on_save = stage, config, run_dir, seed, on_save
        self.cluster = cluster
        self.path = run_dir / f"{stage.name}.state.safetensors"
        self.rng = np.random.default_rng(seed)
        self.step, self.trained_s = 0, 0.0
        self.precision: PrecisionName | None = None
        """What the stage computes in; None before that is decided."""

    def resume(self) -> bool:
        """Go back to where the file says the stage was, or to its beginning; whether it is finished."""
        if not self.cluster.has_state(self.path):
            # What was computed before a stage must not decide its noise: a resumed run computes less.
            torch.manual_seed(self.seed)
            return False
        state = self.cluster.load(self.path)
        self.stage.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        self.rng.bit_generator.state = json.loads(state["numpy_random"])
        self.step, self.trained_s = state["step"], state["trained_s"]
        self.precision = state.get("precision")
        if isinstance(self.stage, Stateful) and "memory" in state and not state["finished"]:
            self.stage.load_state_dict(state["memory"])
        return state["finished"]

    def save(self, finished: bool) -> None:
        """Write everything that a resumed run needs, whole or not at all."""
        tree: dict[str, Any] = {
            "optimizer": self.stage.optimizer.state_dict(),
            "random": random_state(),
            "numpy_random": json.dumps(self.rng.bit_generator.state),
            "step": self.step,
            "trained_s": self.trained_s,
            "precision": self.precision,
            "finished": finished,
        }
        if isinstance(self.stage, Stateful) and not finished:
            tree["memory"] = self.stage.state_dict()
        self.cluster.save(self.path, tree)
        if self.on_save is not None and self.cluster.is_first:
            self.on_save()

    def train(self, rates: Callable[[float], dict[str, float]], phase: Phase, stop: threading.Event) -> None:
        """Take steps until the stage ends or is asked to stop."""
        config, cluster = self.config, self.cluster
        path = self.run_dir / f"{self.stage.name}.log.jsonl"
        log: StageLog | None = None
        if cluster.is_first:
            log = StageLog(path, config.log_every, self.step, self.trained_s, rates)
        last_save, stopping = time.monotonic(), 0.0
        while (share := config.progress(self.step, self.trained_s)) < 1.0 and not stopping:
            start = time.monotonic()
            metrics = cluster.gradients(self.stage, self.rng, self.seed, self.step)
            metrics["grad_norm"] = self.stage.optimizer.step(learning_rate_scale(share, config))
            now = time.monotonic()
            # Clocks and signals differ from process to process; what follows from them must not.
            self.trained_s, unsaved_s, stopping = cluster.greatest(
                self.trained_s + now - start, now - last_save, float(stop.is_set())
            )
            self.step += 1
            if log is not None:
                log.add(self.step, self.trained_s, metrics)
                told = f"step {self.step} {log.latest}"
                phase.update(share, config.left_s(self.step, self.trained_s), told)
            if unsaved_s > config.save_every_s:
                self.save(finished=False)
                last_save = time.monotonic()
        if log is not None:
            log.flush(self.step, self.trained_s)
        self.save(finished=config.progress(self.step, self.trained_s) >= 1.0)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or request to end into an event; a second one breaks off at once.

    Outside of the main thread, which alone hears them, nothing is changed.
    """
    stop = threading.Event()

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
