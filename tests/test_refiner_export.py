"""An exported refiner runs in ONNX Runtime like PyTorch, block after block, and appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.errors import SpecMismatch
from engine.files.refiner import REFINER_FILE, RefinerFolder, open_refiner
from engine.session.refiner import RefinerStream
from model.refiner import Refiner
from tests.refiner_cases import FPS, random_clip, random_text, relative_error, small_refiner

pytest.importorskip("onnxscript")
from export.graph import layer_of
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes

SIZES = Sizes(grid=(3, 4), fps=FPS, block_size=3, window=6)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return small_refiner(torch.float32, gated_attn=True, num_layers=2)


@pytest.fixture(scope="module")
def folder(refiner: Refiner, tmp_path_factory: pytest.TempPathFactory) -> RefinerFolder:
    path = tmp_path_factory.mktemp("refiner") / "small"
    return open_refiner(export_refiner(refiner, path, SIZES, blocks_per_segment=1))


def open_stream(folder: RefinerFolder, length: int = 7, valid: int = 5) -> RefinerStream:
    text, mask = random_text(torch.float32, length, valid)
    return RefinerStream(
        folder.spec, OnnxRuntimeGraphs(folder, num_threads=1), text[0].numpy(), mask[0].numpy()
    )


@pytest.mark.parametrize("length", [7, 12])
def test_four_blocks_of_graphs_equal_pytorch(refiner: Refiner, folder: RefinerFolder, length: int):
    clip, text = random_clip(13, torch.float32), random_text(torch.float32, length)
    noise = torch.randn(1, 6, 12, 3, 4, generator=torch.Generator().manual_seed(8))
    context = refiner.encode_text(*text)
    state = refiner.begin(clip[:, :, :1], context, FPS, SIZES.history)
    stream = open_stream(folder, length)
    stream.begin(clip[0, :, 0].numpy())
    for start in (1, 4, 7, 10):
        block, eps = clip[:, :, start : start + 3], noise[:, :, start - 1 : start + 2]
        expected, state = refiner.step(block, eps, context, state, FPS)
        refined = stream.refine(block.numpy(), eps.numpy())
        # Both are float32, summed in another order.
        assert relative_error(torch.from_numpy(refined), expected) < 1e-5
        assert list(stream.state) == list(state.tensors)
        for name, tensor in state.tensors.items():
            assert relative_error(torch.from_numpy(stream.state[name]), tensor) < 1e-4


def test_a_stream_put_back_to_an_older_state_goes_on_the_same_way(folder: RefinerFolder):
    clip = random_clip(10, torch.float32).numpy()
    noise = np.random.default_rng(0).standard_normal((1, 6, 3, 3, 4), np.float32)
    stream = open_stream(folder)
    stream.begin(clip[0, :, 0])
    stream.refine(clip[:, :, 1:4], noise)
    held = stream.state
    first = stream.refine(clip[:, :, 4:7], noise)
    stream.refine(clip[:, :, 7:10], noise)
    stream.state = held
    assert np.array_equal(stream.refine(clip[:, :, 4:7], noise), first)
    stream.begin(clip[0, :, 0])
    assert float(stream.state["num_frames"][0]) == 1


def test_segments_hold_their_own_blocks_only(folder: RefinerFolder):
    assert [list(segment.blocks) for segment in folder.spec.segments] == [[0], [1]]
    for segment in folder.spec.segments:
        graph = onnx.load(folder.path / segment.blocks_graph).graph
        layers = {layer_of(node) for node in graph.node if node.op_type in ("MatMul", "Gemm")}
        assert {".".join(layer.split(".")[:2]) for layer in layers} == {
            f"transformer_blocks.{segment.first_block}"
        }
        weights = sum(np.prod(tensor.dims) for tensor in graph.initializer)
        # Cross-attention's keys and values stand in the text graph.
        assert weights == pytest.approx(14 * 32 * 32, rel=0.1)
        commit = onnx.load(folder.path / segment.commit_graph).graph
        assert sum(np.prod(tensor.dims) for tensor in commit.initializer) < 64


def test_blocks_of_another_shape_are_refused(folder: RefinerFolder):
    stream = open_stream(folder)
    stream.begin(np.zeros((6, 3, 4), np.float32))
    short = np.zeros((1, 6, 2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="a block is"):
        stream.refine(short, short)


def test_a_damaged_refiner_is_refused(folder: RefinerFolder, tmp_path: Path):
    path = shutil.copytree(folder.path, tmp_path / "small")
    with (path / "head.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SpecMismatch, match=r"head\.onnx is not the file"):
        open_refiner(path)
    (path / "head.onnx").unlink()
    with pytest.raises(SpecMismatch, match=r"lacks its file head\.onnx"):
        open_refiner(path)
    spec = json.loads((path / REFINER_FILE).read_text())
    for change, message in (
        ({"sigmas": [0.5, 0.6, 0.0]}, "decrease"),
        ({"state": spec["state"][1:]}, "frame count"),
        ({"segments": spec["segments"] * 2}, "in order"),
        ({"head_graph": "other.onnx"}, "not listed"),
        ({"format_version": 2}, "format_version"),
    ):
        (path / REFINER_FILE).write_text(json.dumps({**spec, **change}))
        with pytest.raises(SpecMismatch, match=message):
            open_refiner(path)


def test_nothing_else_is_overwritten(refiner: Refiner, tmp_path: Path):
    (tmp_path / "letters").mkdir()
    with pytest.raises(ValueError, match="name a new folder"):
        export_refiner(refiner, tmp_path / "letters", SIZES)
    with pytest.raises(ValueError, match="two latent frames or more"):
        export_refiner(refiner, tmp_path / "new", Sizes((3, 4), FPS, 3, window=1))
