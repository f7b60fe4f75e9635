"""NVFP4 arithmetic in PyTorch: rounding as the format defines it, and weights as an engine file holds them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 16
"""Neighbouring values along the last axis that share a scale."""
MAX_E2M1 = 6.0
MAX_E4M3 = 448.0
MIN_E4M3 = 2.0**-9
"""Smallest above zero."""
SIGN_SEED = 4
"""Of the Hadamard transform's signs, which engine and emulation must draw alike."""


def round_e2m1(x: Tensor) -> Tensor:
    """Round to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, ties to the even code."""
    magnitude = x.abs().clamp(max=MAX_E2M1)
    # The spacing doubles at 2 and at 4; `round` sends ties to the even multiple, which is the even code.
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return torch.copysign(torch.round(magnitude / step) * step, x)


def round_e4m3(x: Tensor) -> Tensor:
    """Round to 8-bit floats with 3 bits of mantissa; beyond 448 to 448."""
    return x.clamp(-MAX_E4M3, MAX_E4M3).to(torch.float8_e4m3fn).to(x.dtype)


@dataclass(frozen=True)
class Nvfp4:
    """A tensor in NVFP4: `values * scales * global_scale`, each scale for a block of the last axis."""

    values: Tensor
    """e2m1 numbers in float32, [..., K]."""
    scales: Tensor
    """e4m3 numbers in float32, [..., K / 16]."""
    global_scale: float

    def restored(self) -> Tensor:
        """Return what the format kept, float32 [..., K]."""
        blocks = self.values.unflatten(-1, (-1, BLOCK))
        return (blocks * (self.scales * self.global_scale)[..., None]).flatten(-2)


def global_scale(largest: float) -> float:
    """Return the tensor scale under which a block with the largest magnitude gets the largest block scale."""
    return max(largest, torch.finfo(torch.float32).tiny * 1e6) / (MAX_E2M1 * MAX_E4M3)


def quantise(x: Tensor, scale: float | None = None) -> Nvfp4:
    """Bring float32 [..., K], K a multiple of 16, into NVFP4; block scales follow the values.

    Args:
        scale: The tensor scale; by default that of x itself. Blocks beyond its reach saturate.
    """
    if x.shape[-1] % BLOCK:
        raise ValueError(f"NVFP4 takes rows of a multiple of {BLOCK} values, got {x.shape[-1]}")
    if scale is None:
        scale = global_scale(float(x.abs().max()))
    blocks = x.unflatten(-1, (-1, BLOCK))
    wanted = blocks.abs().amax(-1) / (MAX_E2M1 * scale)
    # Any scale does for a block of zeros; ModelOpt stores 1, and so do we, for the sake of comparing bytes.
    scales = torch.where(wanted > 0, round_e4m3(wanted).clamp_min(MIN_E4M3), 1.0)
    values = round_e2m1(blocks / (scales * scale)[..., None])
    return Nvfp4(values.flatten(-2), scales, scale)


def hadamard_matrix() -> Tensor:
    """Return the orthonormal Hadamard matrix of one block with random signs, [16, 16] float32."""
    matrix = torch.ones(1, 1)
    while len(matrix) < BLOCK:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    generator = torch.Generator().manual_seed(SIGN_SEED)
    signs = torch.randint(0, 2, (BLOCK, 1), generator=generator) * 2.0 - 1
    return signs * matrix / BLOCK**0.5


def rotate_blocks(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate every block of the last axis; products of two tensors rotated alike stay as they are."""
    return (x.unflatten(-1, (-1, BLOCK)) @ rotation.to(x.dtype)).flatten(-2)


Packed = tuple[np.ndarray, np.ndarray, np.float32]
"""A weight [N, K] as an engine file holds it: 4-bit values, 8-bit scales of blocks along K, the tensor's scale."""


def packed(rows: Tensor, largest: NDArray[np.float32] | None = None) -> Packed:
    """Pack a weight [N, K]; no other is in memory meanwhile.

    Args:
        largest: Magnitude that the tensor's scale is made from; that of the weight where None.
    """
    kept = quantise(rows, None if largest is None else global_scale(float(largest)))
    values = kept.values.numpy().astype(ml_dtypes.float4_e2m1fn)
    return values, kept.scales.numpy().astype(ml_dtypes.float8_e4m3fn), np.float32(kept.global_scale)
