"""What an exported graph is tidied into: nodes named after the model's layers, weights stored small, no foreign paths."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants

HALF_FROM_BYTES = 4096
"""Smaller tensors are not worth a node."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter's record of the modules around a node."""
WRAPPED = "model."
"""What the step graph's wrapper puts before the names of the model's layers."""


def fold_graph(model: onnx_ir.Model) -> None:
    """Fold and deduplicate as the exporter's optimiser does, without its search for patterns.

    In a graph of twenty blocks that search takes longer than everything else together.
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
