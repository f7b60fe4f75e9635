"""Weights packed to NVFP4 by ModelOpt's exporter, for graphs that are held in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from torch import Tensor

from export.quantization.backend import quiet
from export.quantization.nvfp4 import BLOCK, Packed


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
