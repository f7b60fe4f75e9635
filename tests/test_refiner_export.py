"""An exported refiner runs in ONNX Runtime like PyTorch, block after block, and appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
from model.refiner import Refiner
from tests.refiner_cases import FPS, random_clip, random_text, refiner_config, small_refiner

pytest.importorskip("onnxscript")
from export.graph import layer_of
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from export.refiner.verify import verify_refiner

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


def test_four_blocks_of_graphs_equal_pytorch(refiner: Refiner, folder: RefinerFolder):
    report = verify_refiner(folder, OnnxRuntimeGraphs(folder, num_threads=1), refiner)
    assert report.passed
    assert len(report.latents) == 4
    # Both are float32, summed in another order.
    assert 0 < max(report.latents) < 1e-5


def test_the_embed_graph_reads_the_memory_where_the_refiner_does(folder: RefinerFolder, tmp_path: Path):
    refiner = small_refiner(torch.float32, num_layers=1, memory_channels=7)
    seeing = open_refiner(export_refiner(refiner, tmp_path / "seeing", SIZES))
    assert (folder.spec.memory_channels, seeing.spec.memory_channels) == (0, 7)
    inputs = [
        [given.name for given in onnx.load(each.path / each.spec.embed_graph).graph.input]
        for each in (folder, seeing)
    ]
    assert inputs == [["latents", "sigma"], ["latents", "sigma", "memory"]]
    runner = OnnxRuntimeGraphs(seeing, num_threads=1)
    report = verify_refiner(seeing, runner, refiner)
    assert 0 < max(report.latents) < 1e-5
    blind = small_refiner(torch.float32, num_layers=1, memory_channels=7)
    with torch.no_grad():
        blind.memory_embedder.weight.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    assert not verify_refiner(seeing, runner, blind, num_blocks=1).passed
    stream = open_stream(seeing)
    stream.begin(np.zeros((6, 3, 4), np.float32))
    block = np.zeros((1, 6, 3, 3, 4), np.float32)
    with pytest.raises(ValueError, match="a block's is"):
        stream.refine(block, block, block)


def test_a_description_from_before_the_memory_still_opens(folder: RefinerFolder, tmp_path: Path):
    path = shutil.copytree(folder.path, tmp_path / "small")
    spec = json.loads((path / REFINER_FILE).read_text())
    del spec["memory_channels"], spec["model"]["memory_channels"]
    (path / REFINER_FILE).write_text(json.dumps(spec))
    assert open_refiner(path).spec == folder.spec.model_copy(update={"model": spec["model"]})


def test_graphs_of_another_network_do_not_pass(folder: RefinerFolder):
    other = small_refiner(torch.float32, gated_attn=True, num_layers=2)
    with torch.no_grad():
        other.proj_in.weight.mul_(1.01)
    report = verify_refiner(folder, OnnxRuntimeGraphs(folder, num_threads=1), other, num_blocks=1)
    assert not report.passed
    assert report.to_dict()["passed"] is False


def test_the_command_exports_a_released_folder_and_verifies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    weights = small_refiner(torch.float32, num_layers=1).state_dict()
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(refiner_config(num_layers=1)))
    sound = {"audio_proj_in.weight": torch.zeros(2)}
    save_file({**weights, **sound}, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    arguments = ["export", "refiner", ".", "-o", "small", "--frame-size"]
    assert flaneur([*arguments, "96x70"]) == 2
    assert "multiple of 32x32" in capsys.readouterr().err
    assert flaneur([*arguments, "96x64", "--window", "4", "--verify", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["passed"] is True
    assert result["audio_tensors_skipped"] == 1
    assert len(result["latents"]) == 2
    assert open_refiner("small").spec.latent_width == 3
    small = ["--frame-size", "96x64", "--window", "4", "--half-weights", "--option"]
    assert flaneur(["export", "refiner", ".", "-o", "half", *small]) == 0
    assert [open_refiner(name).spec.by_default for name in ("small", "half")] == [True, False]
    sizes = [(tmp_path / name / "blocks_0.onnx").stat().st_size for name in ("small", "half")]
    assert sizes[1] < 0.75 * sizes[0]
    assert flaneur(["export", "verify", "half", "--model", ".", "--chunks", "1"]) == 0


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
