"""Optimisers of the recipe: Muon for matrices, AdamW for the rest, over fp32 master weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn

from training.parallel.shards import shared_like, whole

NO_MATRIX = 1 << 30
"""Least side of a matrix for Muon that no matrix has: AdamW alone."""


class StageOptimizer(Protocol):
    """What the loop asks of a stage's optimiser."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that learn."""
        ...

    def step(self, lr_scale: float) -> float:
        """Take one step with the gradients on the parameters and clear them; returns the gradient norm."""
        ...

    def publish(self) -> None:
        """Give the models their weights, in their own precision."""
        ...

    def orthogonalise_in(self, dtype: torch.dtype) -> None:
        """Set what Muon computes in."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class OptimizerConfig:
    """Learning rates and decay."""

    muon_lr: float = 0.01
    adam_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW: memories of the gradient and of its square."""
    eps: float = 1e-8
    """Of AdamW."""
    adam_decay: float = 0.0
    """Weight decay of AdamW."""
    weight_decay: float = 0.0
    """Weight decay of Muon."""
    min_side: int = 64
    """Smallest side of a matrix (convolution kernels flattened) that Muon takes."""
    ema_decay: float = 0.999
    clip_norm: float = 1.0


class MasterOptimizer:
    """Steps fp32 master weights; keeps the model's own weights, of whatever precision, and an EMA beside them.

    Convolution kernels become matrices [out, in * kernel] there, which is what lets Muon take them. Where processes share the
    parameters, each steps its own parts; Muon gathers one matrix after another and every process does its work on it.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        is_matrix: Callable[[str, Tensor], bool] | None = None,
        trained: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Take hold of a model's parameters.

        Args:
            is_matrix: Whether Muon may take a parameter, by its name.
            trained: Whether a parameter is trained at all; the others stay as they are.
        """
        self.config = config
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and trained(name)]
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.master_weights = [
            p.detach().float().reshape(len(p), -1).clone() if p.ndim > 2 else p.detach().float().clone()
            for p in self.parameters
        ]
        self.ema = [m.clone() for m in self.master_weights]
        self.is_matrix = judge = is_matrix or (lambda name, p: True)
        matrices, others = [], []
        for name, parameter, master in zip(self.names, self.parameters, self.master_weights, strict=True):
            is_big = master.ndim == 2 and min(master.shape) >= config.min_side
            (matrices if is_big and judge(name, parameter) else others).append(master)
        self.optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            self.optimizers.append(Muon(matrices, config.muon_lr, config.weight_decay))
        if others:
            adam = torch.optim.AdamW(
                others,
                lr=config.adam_lr,
                betas=config.betas,
                eps=config.eps,
                weight_decay=config.adam_decay,
                fused=True,
            )
            self.optimizers.append(adam)
        self.base_lrs = [group["lr"] for o in self.optimizers for group in o.param_groups]
        self.num_updates = 0

    def anew(self, model: nn.Module) -> MasterOptimizer:
        """Take hold of the same parameters as they now lie in a model, before the first step."""
        return MasterOptimizer(model, self.config, self.is_matrix, set(self.names).__contains__)

    @torch.no_grad()
    def step(self, lr_scale: float) -> float:
        """Take one step with the gradients on the model's parameters and clear them; returns the gradient norm.

        A step whose gradients are not finite is skipped, and returns nan.
        """
        for parameter, master in zip(self.parameters, self.master_weights, strict=True):
            gradient = parameter.grad
            master.grad = (
                torch.zeros_like(master) if gradient is None else gradient.float().reshape(master.shape)
            )
            parameter.grad = None
        gradients = [m.grad for m in self.master_weights if m.grad is not None]
        norm = float(whole(nn.utils.get_total_norm(gradients)))
        if not math.isfinite(norm):
            return math.nan
        nn.utils.clip_grads_with_norm_(self.master_weights, self.config.clip_norm, torch.tensor(norm))
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, base in zip(groups, self.base_lrs, strict=True):
            group["lr"] = base * lr_scale
        for optimizer in self.optimizers:
            optimizer.step()
        self.num_updates += 1
        decay = min(self.config.ema_decay, self.num_updates / (self.num_updates + 10))
        for average, master in zip(self.ema, self.master_weights, strict=True):
            average.lerp_(master, 1.0 - decay)
        self.publish()
        return norm

    def orthogonalise_in(self, dtype: torch.dtype) -> None:
        """Set what Muon computes in; float32 until then."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, Muon):
                optimizer.dtype = dtype

    @torch.no_grad()
    def publish(self) -> None:
        """Give the model its weights, in its own precision."""
        for parameter, master in zip(self.parameters, self.master_weights, strict=True):
            parameter.copy_(master.reshape(parameter.shape))

    @torch.no_grad()
    def ema_state(self) -> dict[str, Tensor]:
        """The EMA weights under the model's parameter names, whole, fp32."""
        return {
            n: whole(a.reshape(p.shape)).clone()
            for n, a, p in zip(self.names, self.ema, self.parameters, strict=True)
        }

    @torch.no_grad()
    def start_from(self, earlier: MasterOptimizer) -> None:
        """Take over another run's EMA weights, with a clean optimiser state."""
        for own, average, source in zip(self.master_weights, self.ema, earlier.ema, strict=True):
            own.copy_(source)
            average.copy_(source)
        self.publish()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "masters": self.master_weights,
            "averages": self.ema,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "num_updates": self.num_updates,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, and the model's weights with it."""
        for own, saved in zip(self.master_weights, state["masters"], strict=True):
            own.copy_(shared_like(saved, own))
        for own, saved in zip(self.ema, state["averages"], strict=True):
            own.copy_(shared_like(saved, own))
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, memory in optimizer.state.items():
                for name, tensor in memory.items():
                    if tensor.shape == parameter.shape:
                        memory[name] = shared_like(tensor, parameter)
        self.num_updates = state["num_updates"]
        self.publish()


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
