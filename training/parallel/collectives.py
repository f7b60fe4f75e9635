"""Exchanges between processes that gradients flow back through.

Each backward pass is the exact adjoint of its forward pass when the loss of the whole is the sum of what every process computes.
All processes of a group must take part in all of them in one order, in the backward pass too; so every result is to be used
everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed import ProcessGroup


def gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """Put the equal parts that the processes hold behind one another along `dim`."""
    return _Gather.apply(x.movedim(dim, 0), group).movedim(0, dim)


def exchange(x: Tensor, send: Sequence[int], receive: Sequence[int], group: ProcessGroup) -> Tensor:
    """Send the first `send[0]` rows of x to process 0, the next to process 1, and so on; `receive` rows come from each."""
    return _Exchange.apply(x, list(send), list(receive), group)


def prefix(
    factor: Tensor, term: Tensor, order: Sequence[int], passes: Sequence[bool], group: ProcessGroup
) -> Tensor:
    """Carry a state through every process's update, Z -> factor Z + term, and give each what arrives at it.

    Only composites travel: all are gathered once, and everyone applies those before its own.

    Args:
        factor: [N, D, D]. term: [N, D, E].
        order: Processes as the state visits them; it is zero at the first.
        passes: Whether it goes on from the place of the same number in `order`; where not, the next one starts from zero.

    Returns:
        The state before this process's own update, [N, D, E].
    """
    return _Prefix.apply(factor, term, list(order), list(passes), group)


def _gathered(x: Tensor, group: ProcessGroup) -> Tensor:
    output = x.new_empty(group.size() * x.shape[0], *x.shape[1:])
    dist.all_gather_single(output, x.contiguous(), group)
    return output


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        own = gradient.new_empty(gradient.shape[0] // ctx.group.size(), *gradient.shape[1:])
        dist.reduce_scatter_single(own, gradient.contiguous(), group=ctx.group)
        return own, None


class _Exchange(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> Tensor:
        ctx.send, ctx.receive, ctx.group = send, receive, group
        output = x.new_empty(sum(receive), *x.shape[1:])
        dist.all_to_all_single(output, x.contiguous(), receive, send, group)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        own = gradient.new_empty(sum(ctx.send), *gradient.shape[1:])
        dist.all_to_all_single(own, gradient.contiguous(), ctx.send, ctx.receive, ctx.group)
        return own, None, None, None


class _Prefix(Function):
    """Forward: s' = F s + V from process to process. Backward: the adjoint runs the other way, l = g + F^T l'."""

    @staticmethod
    def forward(
        ctx: Any, factor: Tensor, term: Tensor, order: list[int], passes: list[bool], group: ProcessGroup
    ) -> Tensor:
        width = factor.shape[-1]
        both = _gathered(torch.cat([factor, term], dim=-1)[None], group)
        place = order.index(group.rank())
        state = torch.zeros_like(term)
        for process, goes_on in zip(order[:place], passes, strict=False):
            step = both[process]
            moved = torch.baddbmm(step[..., width:], step[..., :width], state)
            state = moved if goes_on else torch.zeros_like(moved)
        ctx.save_for_backward(both[..., :width], state)
        ctx.order, ctx.passes, ctx.group = order, passes, group
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (gradient,) = gradients
        factors, state = ctx.saved_tensors
        arriving = _gathered(gradient.contiguous()[None], ctx.group)
        place = ctx.order.index(ctx.group.rank())
        later = torch.zeros_like(gradient)
        for number in range(len(ctx.order) - 1, place, -1):
            process = ctx.order[number]
            moved = arriving[process]
            if ctx.passes[number]:
                moved = torch.baddbmm(moved, factors[process].transpose(-1, -2), later)
            later = moved
        if not ctx.passes[place]:
            later = torch.zeros_like(later)
        return later @ state.transpose(-1, -2), later, None, None, None
