"""A clip whose frames are shared out among processes, each holding as many in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed import ProcessGroup

from model.attention.gdn import BorderStates, Chunks, FrameUpdates
from model.attention.sharding import FrameShard


def clip_ranges(ranges: Chunks, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut half-open ranges down to `start` to `stop` and count from `start`."""
    cut = [(max(first, start) - start, min(last, stop) - start) for first, last in ranges]
    return [(first, last) for first, last in cut if first < last]


class ContextShard(FrameShard):
    """This process's share of the frames; the last process's may end in frames that repeat the clip's last one.

    Those make a chunk of their own after all others, so no frame of the clip attends to them, and `all_gather` leaves them out.
    """

    def __init__(self, chunks: Chunks, group: ProcessGroup) -> None:
        self.group = group
        self.num_frames = chunks[-1][1]
        self.num_held = -(-self.num_frames // group.size())
        self.start = group.rank() * self.num_held
        num_padded = self.num_held * group.size()
        self.all_chunks = [*chunks]
        if num_padded > self.num_frames:
            self.all_chunks.append((self.num_frames, num_padded))
        super().__init__(clip_ranges(self.all_chunks, self.start, self.start + self.num_held))

    @property
    def frames(self) -> Sequence[int]:
        frames = range(self.start, self.start + self.num_held)
        return [min(frame, self.num_frames - 1) for frame in frames]

    def shard(self, x: Tensor, dim: int, per_frame: int = 1) -> Tensor:
        """Take this process's frames; all processes must be given the same whole."""
        frames = x.unflatten(dim, (self.num_frames, per_frame))
        index = torch.tensor(self.frames, device=x.device)
        return frames.index_select(dim, index).flatten(dim, dim + 1)

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        per_frame = x.shape[dim] // self.num_held
        return gather(x, dim, self.group).narrow(dim, 0, self.num_frames * per_frame).contiguous()

    def add_halo(self, x: Tensor, reach: int) -> tuple[Tensor, Chunks]:
        """Get the neighbours' nearest frames.

        Raises:
            ValueError: A neighbour holds fewer than `reach` frames.
        """
        if reach > self.num_held:
            raise ValueError(
                f"{self.num_frames} latent frames on {self.group.size()} processes are {self.num_held} for each, but a "
                f"convolution over time reaches over {reach}; let fewer processes share a clip"
            )
        before, after = self._beside(reach)
        rank, size = self.group.rank(), self.group.size()
        # What one side sends the other receives: as many frames go to a neighbour as come from it.
        counts = [0] * size
        edges: list[Tensor] = []
        if before:
            counts[rank - 1] = before
            edges.append(x[:, :reach])
        if after:
            counts[rank + 1] = after
            edges.append(x[:, -reach:])
        sent = torch.cat(edges or [x[:, :0]], dim=1).transpose(0, 1)
        received = exchange(sent, counts, counts, self.group).transpose(0, 1)
        wider = torch.cat([received[:, :before], x, received[:, before:]], dim=1)
        return wider, clip_ranges(self.all_chunks, self.start - before, self.start + self.num_held + after)

    def drop_halo(self, x: Tensor, reach: int) -> Tensor:
        return x.narrow(1, self._beside(reach)[0], self.num_held)

    def border_states(self, updates: FrameUpdates) -> BorderStates:
        return self._state_before(updates), self._state_after(updates)

    def _state_before(self, updates: FrameUpdates) -> Tensor:
        """Apply the composites of all processes that hold earlier frames, zero where there are none."""
        factor, term = updates.composite(range(self.num_held))
        size = self.group.size()
        return prefix(factor, term, range(size), [True] * size, self.group)

    def _state_after(self, updates: FrameUpdates) -> Tensor | None:
        """Apply the composites of the rest of the chunk that goes on behind this process's last frame."""
        size = self.group.size()
        cuts = [self._cuts_chunk(process) for process in range(size)]
        if not any(cuts):
            return None
        stop = self.chunks[0][1]
        factor, term = updates.composite(range(stop - 1, -1, -1))
        if stop < self.num_held:
            # The chunk ends in here: nothing from behind comes through it.
            factor = torch.zeros_like(factor)
        order = range(size - 1, -1, -1)
        return prefix(factor, term, order, [cuts[process] for process in order], self.group)

    def _cuts_chunk(self, process: int) -> bool:
        """Whether the border before a process's first frame lies within a chunk."""
        border = process * self.num_held
        return any(start < border < stop for start, stop in self.all_chunks)

    def _beside(self, reach: int) -> Sequence[int]:
        """Frames that `add_halo` adds before and after."""
        rank = self.group.rank()
        return (reach if rank else 0, reach if rank + 1 < self.group.size() else 0)


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
