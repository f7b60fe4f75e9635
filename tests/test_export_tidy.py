"""Names of nodes say which layer they belong to, and only those that were given by tidying count."""

from __future__ import annotations

import onnx
import onnx.helper
import pytest

from engine.bundle import Bundle
from export.layers import STEP_RULES
from export.quantize import rewrite_products
from export.tidy import SCOPES, layer_of, tidy_graph
from export.weights import GraphWeights


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
        rewrite_products(graph_file, weights, "bf16", STEP_RULES, {})
