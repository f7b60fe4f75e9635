"""An exported refiner is rewritten by its layer table, calibrated and built for a GPU segment by segment."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.files.refiner import RefinerFolder, open_refiner
from engine.session.refiner import RefinerStream
from model.refiner import Refiner, released_refiner, save_refiner
from tests.refiner_cases import FPS, random_clip, random_text, relative_error, small_refiner

pytest.importorskip("onnxscript")
from cli.app import run as flaneur
from export.graph import layer_of
from export.progress import unseen
from export.quantization.layers import REFINER_RULES, find_rule
from export.quantization.quantize import Calibration, nominal_calibration, quantised_layers
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from export.refiner.plans import (
    build_refiner,
    calibrate_refiner,
    refiner_recipe,
    rewrite_refiner_graph,
    text_lengths,
)
from export.refiner.verify import PrecisionReport, measure_precision

SIZES = Sizes(grid=(3, 4), fps=FPS, block_size=3, window=4, half_state=True)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return small_refiner(torch.float32, num_layers=1)


@pytest.fixture(scope="module")
def folder(refiner: Refiner, tmp_path_factory: pytest.TempPathFactory) -> RefinerFolder:
    return open_refiner(export_refiner(refiner, tmp_path_factory.mktemp("refiner") / "half", SIZES))


def test_every_linear_layer_of_the_release_has_a_rule_and_the_skipped_ones_stay_in_bf16():
    with torch.device("meta"):
        refiner = Refiner(released_refiner())
    kept = {
        name
        for name, layer in refiner.named_modules()
        if isinstance(layer, nn.Linear) and find_rule(name, REFINER_RULES).precision == "bf16"
    }
    assert kept == {
        "proj_in",
        "proj_out",
        *(f"caption_projection.linear_{n}" for n in (1, 2)),
        *(f"time_embed.emb.timestep_embedder.linear_{n}" for n in (1, 2)),
        "time_embed.linear",
    }


def test_a_state_in_half_precision_follows_one_in_full(refiner: Refiner, folder: RefinerFolder):
    clip, (text, mask) = random_clip(10, torch.float32), random_text(torch.float32)
    context = refiner.encode_text(text, mask)
    state = refiner.begin(clip[:, :, :1], context, FPS, SIZES.history)
    stream = RefinerStream(folder.spec, OnnxRuntimeGraphs(folder, 1), text[0].numpy(), mask[0].numpy())
    stream.begin(clip[0, :, 0].numpy())
    for start in (1, 4, 7):
        block = clip[:, :, start : start + 3]
        expected, state = refiner.step(block, torch.ones_like(block), context, state, FPS)
        refined = stream.refine(block.numpy(), np.ones(block.shape, np.float32))
        # float16 keeps 11 bits of keys and values.
        assert relative_error(torch.from_numpy(refined), expected) < 5e-3
    kept = {tensor.name: tensor.dtype for tensor in folder.spec.state}
    assert kept.pop("num_frames") == "float32"
    assert set(kept.values()) == {"float16"}
    assert {name: str(array.dtype) for name, array in stream.state.items() if name in kept} == kept


def nominal(refiner: Refiner) -> Calibration:
    return nominal_calibration(quantised_layers(refiner, refiner_recipe("nvfp4")))


def test_calibration_sees_the_largest_input_of_every_low_layer(refiner: Refiner):
    clip, (text, mask) = random_clip(4, torch.float32), random_text(torch.float32)
    seen = calibrate_refiner(copy.deepcopy(refiner), refiner_recipe("nvfp4"), clip, text, mask, FPS)
    assert seen.layers.keys() == nominal(refiner).layers.keys()
    assert len(seen.layers) == 10
    assert all(scales.largest > 0 for scales in seen.layers.values())
    captions = refiner.caption_projection(text)
    assert seen.layers["transformer_blocks.0.attn2.to_k"].largest == float(captions.abs().max())
    assert seen.origin.startswith("max of nvidia-modelopt")
    unchanged = calibrate_refiner(refiner, refiner_recipe("bf16"), clip, text, mask, FPS)
    assert (unchanged.layers, unchanged.origin) == ({}, "")


def test_graphs_are_rewritten_in_the_precision_of_the_table(
    refiner: Refiner, folder: RefinerFolder, tmp_path: Path
):
    calibration = nominal(refiner)
    records = {}
    for name in folder.spec.graphs:
        for record in rewrite_refiner_graph(
            folder.path / name, tmp_path / name, refiner_recipe("nvfp4"), calibration.layers, unseen
        ):
            records[record.name] = record.precision
        before, after = (onnx.load(path / name).graph for path in (folder.path, tmp_path))
        assert [value.name for value in before.input] == [value.name for value in after.input]
        assert [value.name for value in before.output] == [value.name for value in after.output]
    assert {name for name, precision in records.items() if precision == "nvfp4"} == set(calibration.layers)
    assert records["proj_in"] == records["caption_projection.linear_1"] == "bf16"
    assert records["transformer_blocks.0.attn1.scores"] == "bf16"
    segment = folder.spec.segments[0]
    positions = onnx.load(tmp_path / folder.spec.positions_graph).graph
    assert not any(layer_of(node).startswith("transformer_blocks") for node in positions.node)
    assert set(text_lengths(tmp_path / segment.blocks_graph)) == {
        "text_bias",
        "blocks.0.text_key",
        "blocks.0.text_value",
    }


@pytest.mark.slow
def test_plans_are_built_without_a_gpu(refiner: Refiner, folder: RefinerFolder, tmp_path: Path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install -e '.[rtx]'")
    calibration = nominal(refiner)
    built = open_refiner(
        build_refiner(folder, tmp_path / "plans", "sm120", refiner_recipe("nvfp4"), calibration, unseen)
    )
    assert built.spec.target == "sm120"
    assert all(name.endswith(".engine") for name in built.spec.graphs)
    assert {group.precision for group in built.spec.layer_groups} == {"nvfp4", "bf16"}
    assert built.spec.activation_scales.startswith("nominal")
    with pytest.raises(ValueError, match="built for sm120 already"):
        build_refiner(built, tmp_path / "again", "sm120", refiner_recipe("nvfp4"), calibration, unseen)


def test_low_precision_errs_by_its_bits_and_faults_do_not_pass(refiner: Refiner, folder: RefinerFolder):
    four, eight, sixteen = (
        measure_precision(refiner, folder.spec, refiner_recipe(low), 4) for low in ("nvfp4", "fp8", "bf16")
    )
    assert len(four.latents) == 4
    assert max(sixteen.latents) < max(eight.latents) < max(four.latents)
    assert four.passed
    assert sixteen.passed
    # Layers that saturate on what the calibration never saw.
    assert not PrecisionReport("nvfp4", (0.1, float("nan"))).passed
    assert not PrecisionReport("nvfp4", (0.5,)).passed


def test_export_engine_and_verify_reach_an_exported_refiner(
    refiner: Refiner, folder: RefinerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    weights, other = tmp_path / "refiner.safetensors", tmp_path / "other.safetensors"
    save_refiner(weights, refiner)
    save_refiner(other, small_refiner(torch.float32, num_layers=2))
    verify = ["export", "verify", str(folder.path), "--model"]
    assert flaneur([*verify, str(weights), "--chunks", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["latents"]) == 2
    against = ["--against", "fp32", "--precision", "bf16", "--json"]
    assert flaneur([*verify, str(weights), *against]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["precision"] == "bf16"
    assert flaneur([*verify, str(other)]) == 2
    assert "other weights" in capsys.readouterr().err
    engine = ["export", "engine", str(folder.path), "-o", str(tmp_path / "plans")]
    assert flaneur([*engine, "--hadamard"]) == 2
    pytest.importorskip("tensorrt_rtx")
    assert flaneur([*engine, "--target", "cpu"]) == 2
    assert flaneur([*engine, "--precision", "bf16", "--weights", str(weights), "--json"]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["precision"] == "bf16"
    assert open_refiner(tmp_path / "plans").spec.target == "sm120"
