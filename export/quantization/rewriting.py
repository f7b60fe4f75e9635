"""Products of a graph rewritten to NVFP4, FP8, INT8 or BF16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from export.graph import INLINE_LIMIT_BYTES, GraphWeights, layer_of, num_bytes, prune
from export.progress import Progress
from export.quantization.backend import packed_by_modelopt
from export.quantization.layers import Precision, Recipe
from export.quantization.nvfp4 import BLOCK, MAX_E4M3, global_scale, hadamard_matrix, packed, rotate_blocks
from export.quantization.quantize import LayerScales

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
OPSET = 23
"""First operator set with 4-bit floats."""
IR_VERSION = 11
HADAMARD = "hadamard"
MAX_AXES = 3
SMALLEST = 1e-12
"""Magnitude that a scale is made from at least."""
MAX_INT8 = 127


@dataclass(frozen=True)
class LayerRecord:
    """One layer as it was written."""

    name: str
    precision: Precision
    weight_bytes: int


def rewrite_products(
    model: onnx.ModelProto,
    weights: GraphWeights,
    recipe: Recipe,
    layers: Mapping[str, LayerScales],
    progress: Progress | None = None,
) -> list[LayerRecord]:
    """Rewrite a tidied float32 graph in place.

    Args:
        layers: Scales of the layers of 8 or 4 bits, by name.
        progress: Told how many nodes are done.

    Raises:
        ValueError: The graph's nodes are not named after layers, or a layer was not calibrated.
    """
    graph = model.graph
    if not any(layer_of(node) for node in graph.node if node.op_type in PRODUCTS):
        raise ValueError("the graph does not name its layers; export the bundle again with this version")
    writer = _Writer(graph, weights, layers, recipe.hadamard)
    nodes, records = [], []
    for done, node in enumerate(graph.node, 1):
        if node.op_type in PRODUCTS:
            record, written = writer.product(node, recipe.precision(layer_of(node)))
            records.append(record)
            nodes += written
        else:
            nodes.append(node)
        if progress:
            progress(done)
    del graph.node[:]
    graph.node.extend(nodes)
    prune(graph)
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid("trt", 1)])
    return records


class _Writer:
    """Writes products in their precision, and the constants they need into the graph."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        weights: GraphWeights,
        layers: Mapping[str, LayerScales],
        hadamard: bool,
    ) -> None:
        self.graph, self.weights, self.layers = graph, weights, layers
        self.names = {tensor.name for tensor in graph.initializer}
        self.bytes_written = 0
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*graph.value_info, *graph.input]
        }
        self.is_held = sum(map(num_bytes, graph.initializer)) <= INLINE_LIMIT_BYTES
        """Whether all weights of the graph fit into memory, where ModelOpt packs them."""
        self.rotation = hadamard_matrix() if hadamard else None
        if self.rotation is not None:
            self.constant(HADAMARD, self.rotation.numpy().astype(ml_dtypes.bfloat16))

    def product(self, node: onnx.NodeProto, precision: Precision) -> tuple[LayerRecord, list[onnx.NodeProto]]:
        layer = layer_of(node)
        before = self.bytes_written
        if precision == "fp32":
            stored = self.weights.read(node.input[1])
            return LayerRecord(layer, precision, 0 if stored is None else stored.nbytes), [node]
        added: list[onnx.NodeProto] = []
        side = ""
        if precision == "bf16":
            operands = [self.in_bf16(name, f"{node.name}.{i}") for i, name in enumerate(node.input)]
        else:
            operands, added, side = self.quantised(node, precision)
        nodes = [*added, *(made for _, made_nodes in operands for made in made_nodes)]
        output = node.output[0]
        narrow = onnx.NodeProto()
        narrow.CopyFrom(node)
        narrow.input[:] = [name for name, _ in operands]
        narrow.output[:] = [f"{output}.bf16"]
        nodes.append(narrow)
        result = narrow.output[0]
        if precision == "nvfp4" and (shape := self.flattened(node.input[0])):
            back = self.constant(f"{node.name}.shape", np.array([*shape[:-1], -1], np.int64))
            result = f"{output}.shaped"
            nodes.append(_node("Reshape", [narrow.output[0], back], [result]))
        if side:
            nodes.append(_node("Add", [result, side], [f"{output}.both"]))
            result = f"{output}.both"
        nodes.append(_cast(result, output, TensorProto.FLOAT, f"{node.name}.widen"))
        return LayerRecord(layer, precision, self.bytes_written - before), nodes

    def quantised(
        self, node: onnx.NodeProto, precision: Precision
    ) -> tuple[list[tuple[str, list[onnx.NodeProto]]], list[onnx.NodeProto], str]:
        """Write the operands of a layer of 8 or 4 bits.

        Returns:
            The operands, each with its nodes; nodes before them; and the product of low rank beside them, "" where there is none.
        """
        layer, n, x = layer_of(node), node.name, node.input[0]
        scales = self.layers.get(layer)
        if scales is None:
            raise ValueError(f"the layer {layer} was not calibrated; calibrate on chunks that reach it")
        weight = self.weights.read(node.input[1])
        assert weight is not None, "layers of 8 and 4 bits multiply by constants"
        if node.op_type == "Conv":
            assert precision == "fp8", "convolutions are offered in FP8 alone"
            bias = [self.in_bf16(name, f"{n}.{i}") for i, name in enumerate(node.input[2:], 2)]
            return [*self.convolution_in_fp8(n, x, weight, scales), *bias], [], ""
        rows = torch.from_numpy(np.ascontiguousarray(weight.T) if scales.weight is None else scales.weight)
        nodes, side = [], ""
        if scales.smoothing is not None:
            factors = self.constant(f"{n}.smoothing", scales.smoothing)
            nodes.append(_node("Mul", [x, factors], [f"{n}.smoothed"]))
            self.shapes[f"{n}.smoothed"] = self.shapes[x]
            x = f"{n}.smoothed"
        rows = smoothed_weight(rows, scales)
        if scales.low_rank is not None:
            down, up = (factor.T.astype(ml_dtypes.bfloat16) for factor in scales.low_rank)
            side = f"{n}.low_rank"
            nodes += [
                _cast(x, f"{n}.x_side", TensorProto.BFLOAT16),
                _node("MatMul", [f"{n}.x_side", self.constant(f"{n}.down", down)], [f"{n}.x_down"]),
                _node("MatMul", [f"{n}.x_down", self.constant(f"{n}.up", up)], [side]),
            ]
        write = self.in_nvfp4 if precision == "nvfp4" else self.in_fp8 if precision == "fp8" else self.in_int8
        return write(n, x, rows, scales), nodes, side

    def in_bf16(self, name: str, prefix: str) -> tuple[str, list[onnx.NodeProto]]:
        """Return an operand in bf16: a constant stored so, anything else cast."""
        if not name:
            return name, []
        if self.weights.is_constant(name):
            stored = self.weights.read(name)
            assert stored is not None
            return self.constant(f"{name}.bf16", stored.astype(ml_dtypes.bfloat16)), []
        return f"{prefix}.bf16", [_cast(name, f"{prefix}.bf16", TensorProto.BFLOAT16, f"{prefix}.narrow")]

    def in_fp8(
        self, n: str, x: str, rows: torch.Tensor, scales: LayerScales
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        """One scale for the inputs, one for the weight."""
        weight = rows.numpy()
        largest = np.abs(weight).max() if scales.weight_largest is None else scales.weight_largest
        weight_scale = np.float32(np.maximum(largest, SMALLEST) / MAX_E4M3)
        stored = np.clip(weight / weight_scale, -MAX_E4M3, MAX_E4M3).astype(ml_dtypes.float8_e4m3fn)
        x_scale = np.float32(max(scales.largest, SMALLEST) / MAX_E4M3)
        return self.in_8_bits(n, x, x_scale, stored.T, weight_scale)

    def convolution_in_fp8(
        self, n: str, x: str, weight: np.ndarray, scales: LayerScales
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        """One scale for the inputs, one for each output channel of the weight [N, K, ...]."""
        largest = scales.weight_largest
        if largest is None:
            largest = np.abs(weight).reshape(len(weight), -1).max(1)
        weight_scale = (np.maximum(largest, SMALLEST) / MAX_E4M3).astype(np.float32)
        scaled = weight / weight_scale.reshape(-1, *[1] * (weight.ndim - 1))
        stored = np.clip(scaled, -MAX_E4M3, MAX_E4M3).astype(ml_dtypes.float8_e4m3fn)
        x_scale = np.float32(max(scales.largest, SMALLEST) / MAX_E4M3)
        return self.in_8_bits(n, x, x_scale, stored, weight_scale, axis=0)

    def in_int8(
        self, n: str, x: str, rows: torch.Tensor, scales: LayerScales
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        """One scale for the inputs, one for each output channel of the weight."""
        weight = rows.numpy()
        largest = np.abs(weight).max(1) if scales.weight_largest is None else scales.weight_largest
        weight_scale = (np.maximum(largest, SMALLEST) / MAX_INT8).astype(np.float32)
        stored = np.clip(np.round(weight / weight_scale[:, None]), -MAX_INT8 - 1, MAX_INT8).astype(np.int8)
        x_scale = np.float32(max(scales.largest, SMALLEST) / MAX_INT8)
        return self.in_8_bits(n, x, x_scale, stored.T, weight_scale)

    def in_8_bits(
        self,
        n: str,
        x: str,
        x_scale: np.float32,
        weight: np.ndarray,
        weight_scale: np.ndarray | np.float32,
        axis: int = 1,
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        """Quantise inputs, and store a weight with one scale, or one for each output channel, which lies along `axis`."""
        scale = self.constant(f"{n}.x_scale", x_scale)
        zero = self.constant(f"{n}.x_zero", np.zeros((), weight.dtype))
        stored = [self.constant(f"{n}.w", weight), self.constant(f"{n}.w_scale", weight_scale)]
        channels = {"axis": axis} if np.ndim(weight_scale) else {}
        x_nodes = [
            _node("QuantizeLinear", [x, scale, zero], [f"{n}.x8"]),
            _node("DequantizeLinear", [f"{n}.x8", scale], [f"{n}.x32"]),
            _cast(f"{n}.x32", f"{n}.x16", TensorProto.BFLOAT16),
        ]
        w_nodes = [
            _node("DequantizeLinear", stored, [f"{n}.w32"], **channels),
            _cast(f"{n}.w32", f"{n}.w16", TensorProto.BFLOAT16),
        ]
        return [(f"{n}.x16", x_nodes), (f"{n}.w16", w_nodes)]

    def in_nvfp4(
        self, n: str, x: str, rows: torch.Tensor, scales: LayerScales
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        scale = self.constant(f"{n}.x_scale", np.float32(global_scale(scales.largest)))
        x_nodes = []
        if self.flattened(x):
            width = rows.shape[1]
            flat = self.constant(f"rows_{width}", np.array([1, -1, width], np.int64))
            x_nodes.append(_node("Reshape", [x, flat], [f"{n}.rows"]))
            x = f"{n}.rows"
        if self.rotation is not None:
            x_nodes += self.rotated(x, n)
            x = f"{n}.rotated"
        quantised = [f"{n}.x4", f"{n}.x_block_scales"]
        attributes = {"axis": -1, "block_size": BLOCK, "scale_type": TensorProto.FLOAT8E4M3FN}
        x_nodes += [
            onnx.helper.make_node(
                "TRT_FP4DynamicQuantize", [x, scale], quantised, f"{n}.quantise", domain="trt", **attributes
            ),
            _node("DequantizeLinear", [quantised[1], scale], [f"{n}.x_scales32"]),
            _node(
                "DequantizeLinear", [quantised[0], f"{n}.x_scales32"], [f"{n}.x32"], axis=-1, block_size=BLOCK
            ),
            _cast(f"{n}.x32", f"{n}.x16", TensorProto.BFLOAT16),
        ]
        return [(f"{n}.x16", x_nodes), (f"{n}.w16", self.nvfp4_weight(n, rows, scales.weight_largest))]

    def nvfp4_weight(
        self, n: str, rows: torch.Tensor, largest: NDArray[np.float32] | None
    ) -> list[onnx.NodeProto]:
        """Store a weight [N, K] in 4 bits, blocks along K, and write what restores it as [K, N]."""
        if self.rotation is not None:
            rows = rotate_blocks(rows, self.rotation)
        own = largest is None or float(largest) == float(rows.abs().max())
        pack = (
            packed_by_modelopt(rows) if own and self.is_held and len(rows) % 2 == 0 else packed(rows, largest)
        )
        stored = zip(("w4", "w_scales", "w_scale"), pack, strict=True)
        w, scales, scale = (self.constant(f"{n}.{name}", values) for name, values in stored)
        return [
            _node("DequantizeLinear", [scales, scale], [f"{n}.w_scales32"]),
            _node("DequantizeLinear", [w, f"{n}.w_scales32"], [f"{n}.w32"], axis=-1, block_size=BLOCK),
            _cast(f"{n}.w32", f"{n}.w_rows", TensorProto.BFLOAT16),
            _node("Transpose", [f"{n}.w_rows"], [f"{n}.w16"], perm=[1, 0]),
        ]

    def flattened(self, x: str) -> list[int] | None:
        """Return the shape of a tensor that must be flattened first: dynamic quantisation takes at most three axes."""
        shape = self.shapes[x]
        if len(shape) <= MAX_AXES:
            return None
        assert all(shape), "tokens come in a fixed number"
        return shape

    def rotated(self, x: str, n: str) -> list[onnx.NodeProto]:
        """Write the rotation of the blocks of [B, rows, K] to `{n}.rotated`; a zero in a shape keeps a dimension."""
        split = self.constant("split_blocks", np.array([0, 0, -1, BLOCK], np.int64))
        merge = self.constant("merge_blocks", np.array([0, 0, -1], np.int64))
        return [
            _cast(x, f"{n}.x_narrow", TensorProto.BFLOAT16),
            _node("Reshape", [f"{n}.x_narrow", split], [f"{n}.blocks"]),
            _node("MatMul", [f"{n}.blocks", HADAMARD], [f"{n}.turned"]),
            _node("Reshape", [f"{n}.turned", merge], [f"{n}.rotated16"]),
            _cast(f"{n}.rotated16", f"{n}.rotated", TensorProto.FLOAT),
        ]

    def constant(self, name: str, values: np.ndarray | np.generic) -> str:
        """Store a constant, once."""
        if name not in self.names:
            tensor = onnx.numpy_helper.from_array(np.asarray(values), name)
            self.graph.initializer.append(tensor)
            self.names.add(name)
            self.bytes_written += num_bytes(tensor)
        return name


def smoothed_weight(rows: torch.Tensor, scales: LayerScales) -> torch.Tensor:
    """Return what is left of a weight [N, K] to be quantised, in the arithmetic and order of ModelOpt."""
    if scales.smoothing is not None:
        rows = rows * (1.0 / torch.from_numpy(scales.smoothing))[None]
    if scales.low_rank is not None:
        down, up = map(torch.from_numpy, scales.low_rank)
        rows = rows - up @ down
    return rows


def _node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, outputs, f"{outputs[0]}.{op_type}", **attributes)


def _cast(source: str, target: str, to: int, name: str = "") -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name or f"{target}.Cast", to=to)
