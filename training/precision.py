"""The precision a processor trains fastest in."""

from __future__ import annotations

import time
from functools import cache

import torch

SIDE = 256
"""Of the matrices that are multiplied to find out: as large as the pocket's."""
FEWEST_RUNS, LEAST_S = 3, 0.02


@cache
def training_dtype() -> torch.dtype:
    """Return bfloat16 where this processor multiplies it faster than float32, which takes units of its own; else float32."""
    times_s = {dtype: _product_s(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(times_s, key=lambda dtype: times_s[dtype])


def _product_s(dtype: torch.dtype) -> float:
    """Shortest time of a matrix product, seconds; the first one, which may build kernels, is not counted."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype)
    torch.mm(matrix, matrix)
    times_s: list[float] = []
    while len(times_s) < FEWEST_RUNS or sum(times_s) < LEAST_S:
        start_s = time.perf_counter()
        torch.mm(matrix, matrix)
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)
