"""How much of a processor a training uses: operations of a step, and the most that its matrix products reach.

Counted are matrix products, convolutions and attention, forward and backward; an optimiser's own products are not, since they
train no frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

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
