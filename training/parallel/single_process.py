"""What a training must ask of the processes it runs on; here there is one, which has everything and decides alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import nn

from training.checkpoint import load_state, save_state

if TYPE_CHECKING:
    from model.refiner import Refiner
    from training.precision import PrecisionName
    from training.stages.scenic_model import ScenicModel
    from training.trainable import Trainable

    SharedModel = TypeVar("SharedModel", ScenicModel, Refiner)


class Cluster:
    """One process on its own."""

    size, rank = 1, 0
    """Processes, and the number of this one."""
    group, num_groups = 0, 1
    """Number of the group of processes that this one shares its clips with, among how many."""
    is_shared = False
    """Whether parameters are shared out, in a precision of their own, so that no process may change them by itself."""
    precision: PrecisionName | None = None
    """What such parameters compute in; None where the stage decides."""

    def __init__(self, num_batches: int | None = None) -> None:
        """Prepare.

        Args:
            num_batches: Batches of a step, one after another and each with random numbers of its own, as several processes take
                them; None for one batch that goes on with the stage's own random numbers.
        """
        self.num_batches = num_batches

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes logs and shows bars."""
        return self.rank == 0

    @property
    def batches_per_step(self) -> int:
        """Batches of one step, over all processes."""
        return self.num_batches or 1

    def share(self, model: SharedModel) -> SharedModel:
        """Keep only this process's part of a network; to be called before a stage makes an optimiser of it."""
        return model

    def keep_whole(self, model: nn.Module) -> None:
        """Make a network ready of which every process keeps all."""

    def adopt(self, stage: Trainable) -> None:
        """Share out a stage that was built on whole parameters, before its first step.

        Raises:
            ValueError: It can only be trained by one process.
        """

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process do the block before the others, who then find on the disk what it made."""
        yield

    def wait(self) -> None:
        """Go on when every process has come here."""

    def gradients(self, stage: Trainable, rng: np.random.Generator, seed: int, step: int) -> dict[str, float]:
        """Leave the gradients of one step on the stage's parameters.

        Args:
            rng: Random numbers of a stage that takes one batch a step.
            seed, step: What random numbers are made of where a step has several.

        Returns:
            Metrics to log.
        """
        if self.num_batches is None:
            return stage.backward(rng)
        return batch_after_batch(stage, range(self.num_batches), seed, step)

    def rates(self, stage: Trainable) -> Callable[[float], dict[str, float]]:
        """Give what can be said of a speed in steps a second before any was measured."""
        return lambda steps_per_s: {}

    def greatest(self, *values: float) -> tuple[float, ...]:
        """Agree on the greatest of every process's values, one by one, so that all go the same way."""
        return values

    def has_state(self, path: Path) -> bool:
        """Whether a state was written, by however many processes."""
        return path.exists() or index_path(path).exists()

    def load(self, path: Path) -> dict[Any, Any]:
        """Read the newer of the states that one process and that several have written.

        Raises:
            ValueError: It is damaged or of another version.
        """
        if is_shared_newer(path):
            from training.parallel.sharded_checkpoint import load_shards

            return load_shards(index_path(path))
        return load_state(path)

    def save(self, path: Path, tree: dict[Any, Any]) -> None:
        """Write a state of tensors and JSON values, whole or not at all.

        Raises:
            ValueError: The disk is full or the folder cannot be written.
        """
        save_state(path, tree)


ALONE = Cluster()


@runtime_checkable
class Shareable(Protocol):
    """A stage that several processes can train together."""

    def share_out(self, cluster: Cluster) -> None:
        """Hand every network to the processes, before the first step, and take hold anew of what this one keeps."""
        ...


def batch_after_batch(
    stage: Trainable,
    numbers: range,
    seed: int,
    step: int,
    before: Callable[[bool], None] = lambda is_last: None,
) -> dict[str, float]:
    """Leave the mean gradient of some of a step's batches on the stage's parameters; returns the means of its metrics.

    Each batch has random numbers of its own, made of the seed, the step and its number, so what is drawn does not depend on who
    draws it.

    Args:
        before: Told before each batch whether it is the last.
    """
    sums: dict[str, float] = {}
    for number in numbers:
        before(number == numbers[-1])
        entropy = np.random.SeedSequence([seed, step, number])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        for name, value in stage.backward(np.random.default_rng(entropy)).items():
            sums[name] = sums.get(name, 0.0) + value / len(numbers)
    for parameter in stage.optimizer.parameters:
        if parameter.grad is not None:
            parameter.grad.div_(len(numbers))
    return sums


def index_path(path: Path) -> Path:
    """Where several processes write what one would write to `path`."""
    return path.with_suffix(".json")


def is_shared_newer(path: Path) -> bool:
    """Whether the state to go on from is one that several processes have written."""
    shared = index_path(path)
    if not (path.exists() and shared.exists()):
        return shared.exists()
    return shared.stat().st_mtime_ns >= path.stat().st_mtime_ns
