"""The loop that drives every stage: steps, learning-rate schedule, progress, log, atomic checkpoints, resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.checkpoint import load_state, random_state, save_state, set_random_state
from training.optimizer import MasterOptimizer


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


class Stage(Protocol):
    """What the loop asks of a stage."""

    name: str
    optimizer: MasterOptimizer

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw a batch, leave gradients on the model's parameters, return figures to log."""
        ...


def learning_rate_scale(progress: float, config: LoopConfig) -> float:
    """Trapezoid: rise, hold, fall; `progress` in [0, 1]."""
    if progress < config.warmup:
        return max(progress / config.warmup, 0.02)
    left = (1.0 - progress) / config.decay
    return max(config.final_lr, min(1.0, left))


def run_stage(
    stage: Stage, config: LoopConfig, run_dir: Path, seed: int, on_save: Callable[[], None] | None = None
) -> bool:
    """Train a stage to its end, resuming where an earlier call stopped.

    Writes `<stage>.state.safetensors` (everything needed to go on) and `<stage>.log.jsonl` into `run_dir`.

    Returns:
        Whether anything was trained (False where the stage was finished before).
    """
    state_path = run_dir / f"{stage.name}.state.safetensors"
    rng = np.random.default_rng(seed)
    step, trained_s = 0, 0.0
    if state_path.exists():
        state = load_state(state_path)
        stage.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["random"])
        rng.bit_generator.state = json.loads(state["numpy_random"])
        step, trained_s = state["step"], state["trained_s"]
        if state["finished"]:
            return False

    def save(finished: bool) -> None:
        tree: dict[str, Any] = {
            "optimizer": stage.optimizer.state_dict(),
            "random": random_state(),
            "numpy_random": json.dumps(rng.bit_generator.state),
            "step": step,
            "trained_s": trained_s,
            "finished": finished,
        }
        save_state(state_path, tree)
        if on_save is not None:
            on_save()

    log = StageLog(run_dir / f"{stage.name}.log.jsonl", config.log_every)
    last_save = time.monotonic()
    with _progress() as bar:
        task = bar.add_task(stage.name, total=config.num_steps, completed=step, loss="")
        while True:
            progress = max(step / config.num_steps, trained_s / (60.0 * config.max_minutes))
            if progress >= 1.0:
                break
            start = time.monotonic()
            figures = stage.backward(rng)
            figures["grad_norm"] = stage.optimizer.step(learning_rate_scale(progress, config))
            trained_s += time.monotonic() - start
            step += 1
            log.add(step, trained_s, figures)
            bar.update(task, completed=step, loss=log.latest)
            if time.monotonic() - last_save > config.save_every_s:
                save(finished=False)
                last_save = time.monotonic()
    save(finished=True)
    return True


class StageLog:
    """Means of the logged figures, one JSON line every few steps."""

    def __init__(self, path: Path, every: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.every = path, every
        self.sums: dict[str, float] = {}
        self.count = 0
        self.latest = ""

    def add(self, step: int, trained_s: float, figures: dict[str, float]) -> None:
        """Count one step's figures."""
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if self.count < self.every:
            return
        means = {key: round(value / self.count, 6) for key, value in self.sums.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "trained_s": round(trained_s, 1), **means}) + "\n")
        self.latest = " ".join(f"{k} {v:.4g}" for k, v in means.items())
        self.sums, self.count = {}, 0


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
