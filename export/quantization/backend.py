"""ModelOpt, imported on demand, with this project's NVFP4 rounding in the place of its kernels where there is no GPU.

ModelOpt lets the arithmetic of a quantiser be registered by name. On CUDA the registered function calls ModelOpt's own kernels.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from export.quantization.nvfp4 import BLOCK, global_scale, hadamard_matrix, quantise, rotate_blocks

NVFP4 = "flaneur_nvfp4"
BF16 = "flaneur_bf16"
HADAMARD = "hadamard"
"""Extra argument of the NVFP4 backend: rotate blocks before they are rounded."""
E2M1, E4M3 = (2, 1), (4, 3)
"""Exponent and mantissa bits, as ModelOpt names formats."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what ModelOpt prints, its progress bars and its warnings."""
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield


@cache
def modelopt() -> Any:
    """Import `modelopt.torch.quantization` (seconds) and register the backends.

    Raises:
        ValueError: It is not installed.
    """
    with quiet():
        try:
            import modelopt.torch.quantization as mtq
            from modelopt.torch.quantization.nn import register_quant_backend
        except ImportError as error:
            raise ValueError(f"quantising needs ModelOpt: pip install -e '.[export]' ({error})") from None
        register_quant_backend(NVFP4, round_nvfp4)
        register_quant_backend(BF16, lambda inputs, _quantizer: inputs.bfloat16().to(inputs.dtype))
    return mtq


def modelopt_version() -> str:
    """Return the package's name and version."""
    return f"nvidia-modelopt {version('nvidia-modelopt')}"


def round_nvfp4(inputs: Tensor, quantizer: Any) -> Tensor:
    """Round [..., K] to NVFP4 under a quantiser's `amax`, or that of the inputs where there is none.

    Gradients pass straight through.
    """
    if quantizer.backend_extra_args.get(HADAMARD):
        inputs = rotate_blocks(inputs, hadamard_matrix().to(inputs.device))
    largest = inputs.detach().abs().amax() if quantizer.amax is None else quantizer.amax
    if inputs.is_cuda:
        from modelopt.torch.quantization.tensor_quant import dynamic_block_quant

        # Bias, ONNX types are None; gradients pass through.
        return dynamic_block_quant(inputs, BLOCK, largest, None, E2M1, E4M3, None, None, True)
    return _StraightThrough.apply(inputs, float(largest.amax()))  # type: ignore[no-any-return]


class _StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is that of the identity; `x + (rounded - x)` would not give the same bits."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, largest: float) -> Tensor:
        return quantise(inputs.float(), global_scale(largest)).restored().to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


@cache
def rotated_calibrator() -> type:
    """Return ModelOpt's calibrator of maxima, made to look at rotated blocks as the backend does."""
    modelopt()
    from modelopt.torch.quantization.calib import MaxCalibrator

    class RotatedMaxCalibrator(MaxCalibrator):
        """Largest magnitude after the Hadamard transform."""

        def collect(self, x: Tensor) -> None:
            super().collect(rotate_blocks(x, hadamard_matrix().to(x.device)))

    return RotatedMaxCalibrator
