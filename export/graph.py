"""Graphs as files: nodes named after the model's layers, weights stored small and read one at a time."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnxscript.optimizer import fold_constants

from engine.files.bundle import Bundle

INLINE_LIMIT_BYTES = 1_500_000_000
"""Weights above this go to a file beside the graph; a protobuf message ends at 2 GiB."""
FOLDED = ("Cast", "Transpose", "Identity", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape")
"""Operators that may stand between a weight and its use; they only choose and turn."""
SHARED_FROM_BYTES = 1024
ALIGNMENT_BYTES = 1 << 16
"""Systems map files into memory from multiples of this on."""


class SharedWeights:
    """A file in which the graphs of a bundle keep their weights, each of them once however many graphs use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[bytes, int] = {}

    def move_out(self, graph: onnx_ir.Graph) -> None:
        """Write a graph's constants to the file, one in memory at a time, and leave their places in the graph."""
        with self._path.open("ab") as file:
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < SHARED_FROM_BYTES:
                    continue
                content = tensor.tobytes()
                digest = hashlib.sha256(content).digest()
                if digest not in self._offsets:
                    file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
                    self._offsets[digest] = file.tell()
                    file.write(content)
                value.const_value = onnx_ir.ExternalTensor(
                    self._path.name,
                    self._offsets[digest],
                    len(content),
                    tensor.dtype,
                    shape=onnx_ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                    base_dir=self._path.parent,
                )


class GraphWeights:
    """A graph's constants by the name under which nodes use them."""

    def __init__(self, graph: onnx.GraphProto, folder: Path) -> None:
        """Look at a graph whose external weights lie in `folder`; nothing is read yet."""
        self._graph = graph
        self._folder = folder
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node if node.op_type in FOLDED for name in node.output}

    def read(self, name: str) -> NDArray[np.float32] | None:
        """Return a constant as its user sees it, in float32; None for what is no constant."""
        if not self.is_constant(name):
            return None
        return np.ascontiguousarray(self._value(name), np.float32)

    def _value(self, name: str) -> NDArray[Any]:
        if name in self._stored:
            return onnx.numpy_helper.to_array(self._stored[name], str(self._folder))
        node = self._makers[name]
        inputs = {source: self._value(source) for source in node.input if source}
        if node.op_type == "Cast":
            # Only half-stored weights are cast, to what everything here is read as.
            return inputs[node.input[0]].astype(np.float32)
        # One node gives a list, whatever the annotation allows.
        return cast("list[NDArray[Any]]", ReferenceEvaluator(node).run(None, inputs))[0]

    def bring_in(self) -> None:
        """Read the external constants that are still in the graph into it."""
        for tensor in self._graph.initializer:
            if tensor.external_data:
                values = onnx.numpy_helper.to_array(tensor, str(self._folder))
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    def is_constant(self, name: str) -> bool:
        """Whether `read` would find a constant, without reading it."""
        if name in self._makers:
            return all(self.is_constant(source) for source in self._makers[name].input if source)
        return name in self._stored


def prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and constants that nothing uses any more."""
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
    nodes = list(reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def refer_to(path: Path, tensors: Path) -> None:
    """Let a graph read its weights from a safetensors file in its folder, wherever that holds the very same bytes."""
    places = {content: place for place, content in _contents(tensors)}
    graph_file = onnx.load(path, load_external_data=False)
    for tensor in graph_file.graph.initializer:
        place = places.get(tensor.raw_data) if len(tensor.raw_data) >= HALF_FROM_BYTES else None
        if place is not None:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", tensors.name), ("offset", place[0]), ("length", place[1])):
                tensor.external_data.add(key=key, value=str(value))
    onnx.save(graph_file, path)


def _contents(path: Path) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Where each tensor of a safetensors file begins and how long it is, in bytes, and what stands there."""
    raw = path.read_bytes()
    data = 8 + int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:data]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            yield (data + begin, end - begin), raw[data + begin : data + end]


def num_bytes(tensor: onnx.TensorProto) -> int:
    """Return how much room a constant takes where it is stored."""
    for entry in tensor.external_data:
        if entry.key == "length":
            return int(entry.value)
    return len(tensor.raw_data) or tensor.ByteSize()


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph, with its weights beside it where they are too large for one file."""
    large = sum(map(num_bytes, model.graph.initializer)) > INLINE_LIMIT_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")


HALF_FROM_BYTES = 4096
"""Smaller tensors are not worth a node."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter's record of the modules around a node."""
WRAPPED = "model."
"""What the step graph's wrapper puts before the names of the model's layers."""


def fold_graph(model: onnx_ir.Model) -> None:
    """Fold and deduplicate as the exporter's optimiser does, without its search for patterns.

    That search takes a third of an export, and in a graph of twenty blocks longer than everything else together; runtimes end
    with the same speed without it.
    """
    passes.InlinePass()(model)
    fold_constants(model)
    for tidy in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        # What comes in and goes out unchanged needs a node in between to have two names.
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)


def tidy_graph(path: Path) -> None:
    """Name the nodes after layers, drop the exporter's stack traces, and store weights small."""
    graph_file = onnx.load(path, load_external_data=False)
    for index, node in enumerate(graph_file.graph.node):
        node.name = f"{_layer(node)}/{node.op_type}_{index}"
    holders: list[Any] = [graph_file, graph_file.graph, *graph_file.functions]
    holders += [node for holder in holders[1:] for node in holder.node]
    holders += list(graph_file.graph.value_info)
    for holder in holders:
        # Stack traces name files of the machine that exported.
        del holder.metadata_props[:]
    store_in_half(graph_file.graph)
    onnx.save(graph_file, path)


def layer_of(node: onnx.NodeProto) -> str:
    """Return the layer that a tidied node belongs to, such as `blocks.3.attn.qkv`; "" above all blocks and before tidying."""
    layer, slash, _ = node.name.partition("/")
    return layer if slash else ""


def _layer(node: onnx.NodeProto) -> str:
    """Read a node's layer out of the exporter's record: its module, and `.scores` for products of attention."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    modules = ast.literal_eval(scopes)
    if len(modules) < 2:
        return ""
    layer = modules[-2].removeprefix(WRAPPED)
    return f"{layer}.scores" if modules[-1].startswith("scaled_dot_product_attention") else layer


def store_in_half(graph: onnx.GraphProto, rounding: bool = False) -> None:
    """Store weights as float16; runtimes turn them back once, when they open the graph.

    Args:
        rounding: Store all weights so, and not only those that float16 holds exactly.
    """
    casts = []
    for tensor in graph.initializer:
        if (
            tensor.data_type != onnx.TensorProto.FLOAT
            or tensor.external_data
            or len(tensor.raw_data) < HALF_FROM_BYTES
        ):
            continue
        values = onnx.numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if np.isfinite(half).all() if rounding else np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def store_in_int8(path: Path) -> None:
    """Round the float32 matrices of a graph file to 8 bits with a scale for each output, a quarter of the bytes; runtimes turn
    them back once, when they open it."""
    model = onnx.load(path)
    graph, nodes = model.graph, []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        scale = np.abs(values).reshape(len(values), -1).max(1).clip(1e-12) / 127
        codes = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(codes, f"{name}.int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        inputs = [f"{name}.int8", f"{name}.scale"]
        nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=0))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    save_graph(model, path)


def constants_of_int8(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """What `store_in_int8` rounded, in float32 and under its name again, beside the float32 constants that it left."""
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values = {name: array for name, array in stored.items() if array.dtype == np.float32}
    for code_name, codes in stored.items():
        if codes.dtype == np.int8:
            name = code_name.removesuffix(".int8")
            scale = values[f"{name}.scale"]
            values[name] = codes * scale.reshape(-1, *[1] * (codes.ndim - 1))
    return values


def is_large(bundle: Bundle) -> bool:
    """Whether a bundle's weights are too many to be held in memory more than once."""
    return any((bundle.path / name).stat().st_size > INLINE_LIMIT_BYTES for name in bundle.spec.files)
