"""NVFP4 and FP8: rounding in PyTorch, and products of a graph rewritten to them."""

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
from torch import Tensor

from export.graph import GraphWeights, layer_of, num_bytes, prune
from export.progress import Progress
from export.quantization.layers import LayerRule, Low, Precision, precision_of

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


PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
OPSET = 23
"""First operator set with 4-bit floats."""
IR_VERSION = 11
HADAMARD = "hadamard"
MAX_AXES = 3


@dataclass(frozen=True)
class LayerRecord:
    """One layer as it was written."""

    name: str
    precision: Precision
    weight_bytes: int


def rewrite_products(
    model: onnx.ModelProto,
    weights: GraphWeights,
    low: Low,
    rules: tuple[LayerRule, ...],
    largest: Mapping[str, float],
    hadamard: bool = False,
    progress: Progress | None = None,
) -> list[LayerRecord]:
    """Rewrite a tidied float32 graph in place.

    Args:
        largest: Largest magnitude that reaches each layer of 8 or 4 bits, by name (after rotation, where there is one).
        progress: Told how many nodes are done.

    Raises:
        ValueError: The graph's nodes are not named after layers, or a layer was not calibrated.
    """
    graph = model.graph
    if not any(layer_of(node) for node in graph.node if node.op_type in PRODUCTS):
        raise ValueError("the graph does not name its layers; export the bundle again with this version")
    writer = _Writer(graph, weights, low, largest, hadamard)
    nodes, records = [], []
    for done, node in enumerate(graph.node, 1):
        if node.op_type in PRODUCTS:
            record, written = writer.product(node, precision_of(layer_of(node), low, rules))
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
        low: Low,
        largest: Mapping[str, float],
        hadamard: bool,
    ) -> None:
        self.graph, self.weights, self.low, self.largest = graph, weights, low, largest
        self.names = {tensor.name for tensor in graph.initializer}
        self.bytes_written = 0
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*graph.value_info, *graph.input]
        }
        self.rotation = hadamard_matrix() if hadamard else None
        if self.rotation is not None:
            self.constant(HADAMARD, self.rotation.numpy().astype(ml_dtypes.bfloat16))

    def product(self, node: onnx.NodeProto, precision: Precision) -> tuple[LayerRecord, list[onnx.NodeProto]]:
        layer = layer_of(node)
        before = self.bytes_written
        if precision == "fp32":
            stored = self.weights.read(node.input[1])
            return LayerRecord(layer, precision, 0 if stored is None else stored.nbytes), [node]
        if precision == "bf16":
            operands = [self.in_bf16(name, f"{node.name}.{i}") for i, name in enumerate(node.input)]
        else:
            largest = self.largest.get(layer)
            if largest is None:
                raise ValueError(f"the layer {layer} was not calibrated; calibrate on chunks that reach it")
            weight = self.weights.read(node.input[1])
            assert weight is not None, "layers of 8 and 4 bits multiply by constants"
            write = self.in_nvfp4 if precision == "nvfp4" else self.in_fp8
            operands = write(node, weight, largest)
        nodes = [made for _, made_nodes in operands for made in made_nodes]
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
        nodes.append(_cast(result, output, TensorProto.FLOAT, f"{node.name}.widen"))
        return LayerRecord(layer, precision, self.bytes_written - before), nodes

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
        self, node: onnx.NodeProto, weight: NDArray[np.float32], largest: float
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        n = node.name
        scale = self.constant(f"{n}.x_scale", np.float32(max(largest, 1e-12) / MAX_E4M3))
        zero = self.constant(f"{n}.x_zero", np.zeros((), ml_dtypes.float8_e4m3fn))
        weight_scale = np.float32(max(np.abs(weight).max(), 1e-12) / MAX_E4M3)
        packed = np.clip(weight / weight_scale, -MAX_E4M3, MAX_E4M3).astype(ml_dtypes.float8_e4m3fn)
        w = [self.constant(f"{n}.w", packed), self.constant(f"{n}.w_scale", weight_scale)]
        x_nodes = [
            _node("QuantizeLinear", [node.input[0], scale, zero], [f"{n}.x8"]),
            _node("DequantizeLinear", [f"{n}.x8", scale], [f"{n}.x32"]),
            _cast(f"{n}.x32", f"{n}.x16", TensorProto.BFLOAT16),
        ]
        w_nodes = [
            _node("DequantizeLinear", w, [f"{n}.w32"]),
            _cast(f"{n}.w32", f"{n}.w16", TensorProto.BFLOAT16),
        ]
        return [(f"{n}.x16", x_nodes), (f"{n}.w16", w_nodes)]

    def in_nvfp4(
        self, node: onnx.NodeProto, weight: NDArray[np.float32], largest: float
    ) -> list[tuple[str, list[onnx.NodeProto]]]:
        n, x = node.name, node.input[0]
        scale = self.constant(f"{n}.x_scale", np.float32(global_scale(largest)))
        x_nodes = []
        if self.flattened(x):
            flat = self.constant(f"rows_{weight.shape[0]}", np.array([1, -1, weight.shape[0]], np.int64))
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
        return [(f"{n}.x16", x_nodes), (f"{n}.w16", self.nvfp4_weight(n, weight))]

    def nvfp4_weight(self, n: str, weight: NDArray[np.float32]) -> list[onnx.NodeProto]:
        """Store a weight [K, N] in 4 bits, blocks along K, and write what restores it."""
        rows = torch.from_numpy(np.ascontiguousarray(weight.T))
        if self.rotation is not None:
            rows = rotate_blocks(rows, self.rotation)
        stored = zip(("w4", "w_scales", "w_scale"), packed(rows), strict=True)
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


def packed(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Return a weight [N, K] as an engine file holds it: 4-bit values, 8-bit scales of blocks along K, the tensor's scale."""
    kept = quantise(rows)
    values = kept.values.numpy().astype(ml_dtypes.float4_e2m1fn)
    return values, kept.scales.numpy().astype(ml_dtypes.float8_e4m3fn), np.float32(kept.global_scale)


def _node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, inputs, outputs, f"{outputs[0]}.{op_type}", **attributes)


def _cast(source: str, target: str, to: int, name: str = "") -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name or f"{target}.Cast", to=to)
