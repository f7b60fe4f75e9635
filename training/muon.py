"""Muon: momentum whose matrices are made orthogonal before they are followed (Jordan et al., 2024).

torch's own orthogonalises in bfloat16 whatever the processor; without units for it that takes a hundred times as long as float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor

from training.parallel.shards import shared_like, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; singular values end between about 0.7 and 1.2."""
NUM_ITERATIONS = 5
MOMENTUM = 0.95


def orthogonalise(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring all singular values of a matrix [rows, columns] near 1, computing in `dtype`."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(dtype)
    # The Frobenius norm is at least the spectral one, under which the iteration converges.
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for parameters that are matrices."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = torch.float32
        """What matrices are orthogonalised in. A setting: weights depend on it."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Follow the gradients once; parameters without one stay."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._follow(parameter, parameter.grad, group["lr"], group["weight_decay"])
        return loss

    def _follow(self, parameter: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1.0 - MOMENTUM)
        followed = whole(gradient.lerp(momentum, MOMENTUM))
        direction = shared_like(orthogonalise(followed, self.dtype).to(parameter.dtype), parameter)
        rows, columns = parameter.shape
        parameter.mul_(1.0 - lr * weight_decay)
        parameter.add_(direction, alpha=-lr * math.sqrt(max(1.0, rows / columns)))
