"""Names of nodes say which layer they belong to, and only those that were given by tidying count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx_ir
import pytest
from onnx import TensorProto, numpy_helper

from engine.files.bundle import Bundle
from export.graph import SCOPES, GraphWeights, SharedWeights, layer_of, tidy_graph
from export.quantization.layers import Recipe
from export.quantization.rewriting import rewrite_products


def test_nodes_are_named_after_the_modules_around_them(toy_bundle: Bundle, tmp_path) -> None:
    graph_file = onnx.load(toy_bundle.step_graph(1))
    scopes = {
        "MatMul": "['', 'model.blocks.0', 'model.blocks.0.attn', 'model.blocks.0.attn.qkv', 'linear_7']",
        "Tanh": "['', 'model.blocks.3', 'model.blocks.3.attn', 'scaled_dot_product_attention_1']",
        "Sum": "['', 'neg']",
    }
    for node in graph_file.graph.node:
        if node.op_type in scopes:
            node.metadata_props.add(key=SCOPES, value=scopes[node.op_type])
    onnx.save(graph_file, tmp_path / "graph.onnx")
    tidy_graph(tmp_path / "graph.onnx")
    tidied = onnx.load(tmp_path / "graph.onnx").graph.node
    layers = {node.op_type: layer_of(node) for node in tidied}
    assert layers["MatMul"] == "blocks.0.attn.qkv"
    assert layers["Tanh"] == "blocks.3.attn.scores"
    assert layers["Sum"] == layers["Cast"] == ""
    assert len({node.name for node in tidied}) == len(tidied)
    assert not any(node.metadata_props for node in tidied)


def test_graphs_of_older_versions_are_refused_by_what_they_lack(toy_bundle: Bundle) -> None:
    graph_file = onnx.load(toy_bundle.step_graph(1))
    for index, node in enumerate(graph_file.graph.node):
        node.name = f"node_{node.op_type}_{index}"
    weights = GraphWeights(graph_file.graph, toy_bundle.path)
    with pytest.raises(ValueError, match="does not name its layers; export the bundle again"):
        rewrite_products(graph_file, weights, Recipe("bf16"), {})


def test_graphs_store_equal_weights_once(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.float32)
    shared = SharedWeights(tmp_path / "weights.bin")
    ends = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [4096]) for name in ("x", "y")]
    for name in ("first", "second"):
        add = onnx.helper.make_node("Add", ["x", name], ["y"])
        graph = onnx.helper.make_graph(
            [add], "g", ends[:1], ends[1:], [numpy_helper.from_array(values, name)]
        )
        model = onnx_ir.from_proto(onnx.helper.make_model(graph))
        shared.move_out(model.graph)
        onnx_ir.save(model, tmp_path / f"{name}.onnx")
    assert (tmp_path / "weights.bin").stat().st_size == values.nbytes
    for name in ("first", "second"):
        stored = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph
        assert stored.initializer[0].external_data
        read = GraphWeights(stored, tmp_path).read(name)
        assert read is not None
        assert np.array_equal(read, values)
