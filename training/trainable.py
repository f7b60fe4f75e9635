"""What the loop and the machine ask of a stage of training."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import nn

from training.optimizer import StageOptimizer


class Trainable(Protocol):
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
        """Draw a batch, leave gradients on the model's parameters, return metrics to log."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A stage that carries more than its weights from step to step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside weights and random states: tensors and JSON values."""
        ...

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        ...


@runtime_checkable
class CountsFrames(Protocol):
    """A stage that knows how much video it trains on."""

    @property
    def frames_per_step(self) -> float:
        """Video frames that the loss of one step looks at."""
        ...
