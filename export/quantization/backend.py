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

import ml_dtypes
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from torch import Tensor

from export.quantization.nvfp4 import BLOCK, Packed, global_scale, hadamard_matrix, quantise, rotate_blocks

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


@cache
def nvfp4_exporter() -> Any:
    """Import ModelOpt's exporter, which takes seconds."""
    with quiet():
        from modelopt.onnx.export import NVFP4QuantExporter
    return NVFP4QuantExporter


def packed_by_modelopt(rows: Tensor) -> Packed:
    """Pack a weight [N, K], N even, under its own largest magnitude.

    The exporter works on graphs, and would cast the operands around a weight too, which this package's graphs do themselves: so
    it is given a graph of the weight alone, and what it packed is taken from it.
    """
    node = onnx.helper.make_node("TRT_FP4QDQ", ["w"], ["w_rounded"], domain="trt", block_size=BLOCK)
    weight = onnx.numpy_helper.from_array(rows.contiguous().numpy(), "w")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "weight", [], [], [weight]))
    with quiet():
        model = nvfp4_exporter().compress_weights(nvfp4_exporter().compute_scales(model))
    found = {attribute.name: attribute for attribute in model.graph.node[0].attribute}
    bytes_ = onnx.numpy_helper.to_array(found["_w_f4"].t).reshape(-1)
    codes = np.stack([bytes_ & 15, bytes_ >> 4], -1).reshape(rows.shape)
    scales = onnx.numpy_helper.to_array(found["_sw_f8_per_block"].t)
    return (
        codes.view(ml_dtypes.float4_e2m1fn),
        scales.view(ml_dtypes.float8_e4m3fn),
        np.float32(found["_sw_f32_per_tensor"].floats[0]),
    )
