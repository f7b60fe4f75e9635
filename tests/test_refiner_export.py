"""An exported refiner runs in ONNX Runtime like PyTorch, block after block, and appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from cli.app import run as flaneur
from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.errors import SpecMismatch
from engine.files.refiner import REFINER_FILE, RefinerFolder, open_refiner
from engine.session.refiner import RefinerStream
from model.checkpoint import weights_sha256
from model.refiner import Refiner, save_refiner
from model.refiner.adapter import SCALE, Adapter, merge_adapter
from tests.refiner_cases import FPS, random_clip, random_text, refiner_config, small_refiner

pytest.importorskip("onnxscript")
from export.graph import layer_of
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from export.refiner.verify import verify_refiner

SIZES = Sizes(grid=(3, 4), fps=FPS, block_size=3, window=6)
BLOCK = np.zeros((1, 6, 3, 3, 4), np.float32)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return small_refiner(torch.float32, gated_attn=True, num_layers=2, memory_channels=7)


@pytest.fixture(scope="module")
def folder(refiner: Refiner, tmp_path_factory: pytest.TempPathFactory) -> RefinerFolder:
    """Of a refiner that reads a memory."""
    path = tmp_path_factory.mktemp("refiner") / "small"
    return open_refiner(export_refiner(refiner, path, SIZES, blocks_per_segment=1))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's refiner folder, of one layer and without a memory."""
    path = tmp_path_factory.mktemp("release")
    weights = small_refiner(torch.float32, num_layers=1).state_dict()
    (path / "transformer").mkdir()
    (path / "transformer" / "config.json").write_text(json.dumps(refiner_config(num_layers=1)))
    sound = {"audio_proj_in.weight": torch.zeros(2)}
    save_file({**weights, **sound}, path / "transformer" / "diffusion_pytorch_model.safetensors")
    return path


LAYER = "transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def merged(release: Path) -> Refiner:
    """The release with a LoRA in one layer, which lies beside it."""
    network = small_refiner(torch.float32, num_layers=1)
    width_out, width_in = network.get_submodule(LAYER).get_parameter("weight").shape
    adapter = Adapter(0.5, {LAYER: (torch.full((2, width_in), 0.1), torch.full((width_out, 2), 0.3))})
    save_file(adapter.tensors(), release / "lora.safetensors", {SCALE: "0.5"})
    merge_adapter(network, adapter)
    save_refiner(release / "merged.safetensors", network)
    return network


@pytest.fixture(scope="module")
def rounded(release: Path, merged: Refiner) -> dict[str, Any]:
    """What the command prints as it exports the release to `half` beside it, with the LoRA, rounded and as an option."""
    options = ["--adapter", str(release / "lora.safetensors")]
    options += [
        "--frame-size",
        "96x64",
        "--window",
        "4",
        "--half-weights",
        "--option",
        "--verify",
        "2",
        "--json",
    ]
    with redirect_stdout(StringIO()) as printed:
        assert flaneur(["export", "refiner", str(release), "-o", str(release / "half"), *options]) == 0
    return json.loads(printed.getvalue().splitlines()[-1])


def open_stream(folder: RefinerFolder, length: int = 7, valid: int = 5) -> RefinerStream:
    text, mask = random_text(torch.float32, length, valid)
    return RefinerStream(
        folder.spec, OnnxRuntimeGraphs(folder, num_threads=1), text[0].numpy(), mask[0].numpy()
    )


def test_four_blocks_of_graphs_equal_pytorch(refiner: Refiner, folder: RefinerFolder):
    report = verify_refiner(folder, OnnxRuntimeGraphs(folder, num_threads=1), refiner)
    assert report.passed
    assert len(report.latents) == 4
    # Both are float32, summed in another order.
    assert 0 < max(report.latents) < 1e-5


def test_the_embed_graph_reads_the_memory_where_the_refiner_does(
    folder: RefinerFolder, release: Path, rounded: dict[str, Any]
):
    plain = open_refiner(release / "half")
    assert (plain.spec.memory_channels, folder.spec.memory_channels) == (0, 7)
    inputs = [
        [given.name for given in onnx.load(each.path / each.spec.embed_graph).graph.input]
        for each in (plain, folder)
    ]
    assert inputs == [["latents", "sigma"], ["latents", "sigma", "memory"]]
    blind = small_refiner(torch.float32, gated_attn=True, num_layers=2, memory_channels=7)
    with torch.no_grad():
        blind.memory_embedder.weight.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    assert not verify_refiner(folder, OnnxRuntimeGraphs(folder, num_threads=1), blind, num_blocks=1).passed
    stream = open_stream(folder)
    stream.begin(np.zeros((6, 3, 4), np.float32))
    with pytest.raises(ValueError, match="a block's is"):
        stream.refine(BLOCK, BLOCK, BLOCK)


def test_a_description_from_before_the_memory_still_opens(
    release: Path, rounded: dict[str, Any], tmp_path: Path
):
    path = shutil.copytree(release / "half", tmp_path / "small")
    spec = json.loads((path / REFINER_FILE).read_text())
    del spec["memory_channels"], spec["model"]["memory_channels"]
    (path / REFINER_FILE).write_text(json.dumps(spec))
    assert open_refiner(path).spec == open_refiner(release / "half").spec.model_copy(
        update={"model": spec["model"]}
    )


def test_graphs_of_another_network_do_not_pass(folder: RefinerFolder):
    other = small_refiner(torch.float32, gated_attn=True, num_layers=2, memory_channels=7)
    with torch.no_grad():
        other.proj_in.weight.mul_(1.01)
    report = verify_refiner(folder, OnnxRuntimeGraphs(folder, num_threads=1), other, num_blocks=1)
    assert not report.passed
    assert report.to_dict()["passed"] is False


def test_the_command_exports_a_released_folder_and_verifies_it(
    release: Path, merged: Refiner, rounded: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    assert rounded["passed"] is True
    assert rounded["audio_tensors_skipped"] == 1
    assert len(rounded["latents"]) == 2
    half = open_refiner(release / "half")
    assert half.spec.latent_width == 3
    assert not half.spec.by_default
    weights = [t for t in onnx.load(half.path / "blocks_0.onnx").graph.initializer if np.prod(t.dims) >= 1024]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert half.spec.weights_sha256 == weights_sha256(merged.half().float())
    verify = ["export", "verify", str(half.path), "--chunks", "1", "--model"]
    assert flaneur([*verify, str(release / "merged.safetensors")]) == 0
    assert flaneur([*verify, str(release)]) == 2
    assert "other weights" in capsys.readouterr().err
    assert flaneur(["export", "refiner", str(release), "-o", "no", "--frame-size", "96x70"]) == 2
    assert "multiple of 32x32" in capsys.readouterr().err


def test_a_stream_put_back_to_an_older_state_goes_on_the_same_way(folder: RefinerFolder):
    clip = random_clip(10, torch.float32).numpy()
    noise, memory = (
        np.random.default_rng(0).standard_normal((1, channels, 3, 3, 4), np.float32) for channels in (6, 7)
    )
    stream = open_stream(folder)
    stream.begin(clip[0, :, 0])
    stream.refine(clip[:, :, 1:4], noise, memory)
    held = stream.state
    first = stream.refine(clip[:, :, 4:7], noise, memory)
    stream.refine(clip[:, :, 7:10], noise, memory)
    stream.state = held
    assert np.array_equal(stream.refine(clip[:, :, 4:7], noise, memory), first)
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
