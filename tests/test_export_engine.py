"""A bundle is rewritten, calibrated and built for a target; what lands in it is what the emulation computes with."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from torch import nn

pytest.importorskip("onnxscript")
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.errors import BuildFailed, SpecMismatch
from engine.files.bundle import Bundle, open_bundle
from export.engine import BF16_DECODER, build_graphs, build_plans
from export.graph import GraphWeights, layer_of, prune
from export.onnx import export_bundle
from export.progress import unseen
from export.quantization.calibration import (
    NUM_PASSES,
    Walks,
    calibrate,
    quantised_products,
    replace_weights,
)
from export.quantization.decoder import low_decoder
from export.quantization.layers import Low, Recipe
from export.quantization.nvfp4 import packed
from export.quantization.quantize import Calibration, leaf_linears, nominal_calibration
from export.quantization.rewriting import LayerRecord, rewrite_products
from export.sources import shipped
from export.verify import check_sizes, made_up_scene, verify_bundle
from model.config import ModelConfig
from model.config import pocket as pocket_sizes
from model.decoders import encoder_of, new_decoder
from model.world_model import WorldModel
from tests.exported_bundles import TINY, tiny_bundle, tiny_decoder, tiny_model
from tests.models import SmallDecoder, random_model

CHECKPOINT = Path(__file__).parent.parent / "assets" / "checkpoints" / "pocket.safetensors"
NOTHING = Calibration({}, "")


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_model()


@pytest.fixture(scope="module")
def decoder() -> SmallDecoder:
    return tiny_decoder()


@pytest.fixture(scope="module")
def bundle(shared_folder: Path) -> Bundle:
    return tiny_bundle(shared_folder)


def rewritten(
    bundle: Bundle, recipe: Recipe, calibration: Calibration | None = None
) -> tuple[onnx.ModelProto, list[LayerRecord]]:
    graph_file = onnx.load(bundle.step_graph(1))
    weights = GraphWeights(graph_file.graph, bundle.path)
    calibration = calibration or nominal_calibration(quantised_products(bundle, recipe))
    return graph_file, rewrite_products(graph_file, weights, recipe, calibration.layers)


def constants(graph_file: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in graph_file.graph.initializer
    }


def calibrated(bundle: Bundle, model: WorldModel, recipe: Recipe) -> tuple[Any, Calibration, list[int]]:
    """Calibrate a copy of the model on a made-up walk."""
    twin, done = copy.deepcopy(model), []
    walks = Walks([made_up_scene(bundle.spec, 2)], 2, bundle.spec.timesteps)
    return twin, calibrate(twin, recipe, walks, done.append), done


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("nvfp4"),
        Recipe("nvfp4", hadamard=True),
        Recipe("nvfp4", "svdquant"),
        Recipe("int8", "awq"),
        Recipe("fp8", "mse"),
    ],
    ids=lambda recipe: f"{recipe.low} {recipe.algorithm}{' rotated' * recipe.hadamard}",
)
def test_stored_weights_are_those_of_the_quantised_model(
    bundle: Bundle, model: WorldModel, recipe: Recipe
) -> None:
    twin, calibration, done = calibrated(bundle, model, recipe)
    assert done == list(range(1, 1 + 3 * NUM_PASSES[recipe.algorithm]))
    assert calibration.origin.startswith(f"{recipe.algorithm} of nvidia-modelopt 0.")
    assert calibration.origin.endswith("chunks in each world: 2, worlds: made up")
    graph_file, records = rewritten(bundle, recipe, calibration)
    stored = constants(graph_file)
    low = {layer_of(node): node.name for node in graph_file.graph.node if node.name.endswith(".widen")}
    names = {
        record.name: low[record.name].removesuffix(".widen")
        for record in records
        if record.precision == recipe.low
    }
    assert len(names) == 8 * TINY.num_layers
    for layer, n in names.items():
        quantised_layer = twin.get_submodule(layer)
        expected = quantised_layer.weight_quantizer(quantised_layer.weight).detach().numpy()
        if recipe.low == "nvfp4":
            scales = stored[f"{n}.w_scales"] * stored[f"{n}.w_scale"]
            assert np.array_equal(stored[f"{n}.w4"] * np.repeat(scales, 16, axis=-1), expected), layer
        else:
            # ModelOpt multiplies by the reciprocal of a scale.
            weight = (stored[f"{n}.w"] * stored[f"{n}.w_scale"]).T
            assert np.allclose(weight, expected, atol=1e-6 * np.abs(expected).max()), layer
        if recipe.algorithm == "svdquant":
            assert stored[f"{n}.down"].shape == (expected.shape[1], 16)


def test_a_student_s_weights_take_the_place_of_what_is_quantised(bundle: Bundle, model: WorldModel) -> None:
    recipe, layer = Recipe("nvfp4"), "blocks.1.attn.qkv"
    layers = quantised_products(bundle, recipe)
    student, own = copy.deepcopy(model), copy.deepcopy(model)
    learned = student.get_parameter(f"{layer}.weight").requires_grad_(False).pow_(3)
    replace_weights(own, student, layers)
    assert torch.equal(own.get_parameter(f"{layer}.weight"), learned)
    nominal = nominal_calibration(layers)
    distilled = {layer: replace(nominal.layers[layer], weight=learned.numpy())}
    graph_file, _ = rewritten(bundle, recipe, Calibration({**nominal.layers, **distilled}, ""))
    packed_values = packed(learned)[0].astype(np.float32)
    assert any(np.array_equal(values, packed_values) for values in constants(graph_file).values())
    student.get_parameter("final_layer.linear.weight").requires_grad_(False).mul_(2)
    with pytest.raises(ValueError, match="was not distilled from this model"):
        replace_weights(own, student, layers)


def test_four_bit_layers_take_four_and_a_half_bits(bundle: Bundle, model: WorldModel) -> None:
    _, records = rewritten(bundle, Recipe("nvfp4"))
    low = [record for record in records if record.precision == "nvfp4"]
    linears = [model.get_submodule(record.name) for record in low]
    values = sum(linear.weight.numel() for linear in linears if isinstance(linear, torch.nn.Linear))
    # Beside the weights each layer stores its two tensor scales and two shapes.
    assert math.isclose(8 * sum(record.weight_bytes for record in low) / values, 4.5, rel_tol=0.25)
    assert {record.precision for record in records} == {"nvfp4", "bf16", "fp32"}


@pytest.mark.parametrize("low", ["nvfp4", "fp8", "int8", "bf16"])
def test_rewritten_graphs_keep_their_interface_and_no_waste(bundle: Bundle, low: Low) -> None:
    before = onnx.load(bundle.step_graph(1)).graph
    after = rewritten(bundle, Recipe(low))[0].graph
    assert [value.name for value in before.input] == [value.name for value in after.input]
    assert [value.name for value in before.output] == [value.name for value in after.output]
    used = {name for node in after.node for name in node.input} | {value.name for value in after.output}
    assert all(tensor.name in used for tensor in after.initializer)
    made = [name for node in after.node for name in node.output]
    assert len(made) == len(set(made))
    known = {*made, *(t.name for t in after.initializer), *(value.name for value in after.input), ""}
    assert used <= known


def test_half_stored_graphs_are_half_as_large_and_follow(
    bundle: Bundle, model: WorldModel, decoder: SmallDecoder, tmp_path: Path
) -> None:
    half = open_bundle(build_graphs(bundle, tmp_path / "half", True, unseen))
    whole = open_bundle(build_graphs(bundle, tmp_path / "whole", False, unseen))
    assert (half.path / "decoder.onnx").stat().st_size < 0.6 * (whole.path / "decoder.onnx").stat().st_size
    assert half.spec.precision["step"] == "float32, weights stored in float16"
    report = verify_bundle(lambda: (model, decoder), lambda: OnnxRuntimeBackend(half, 1, 1), half.spec, 2)
    # Weights keep 11 bits of mantissa.
    assert 0 < report.velocity < 0.03


def test_graphs_without_layer_names_are_refused(toy_bundle: Bundle) -> None:
    graph_file = onnx.load(toy_bundle.step_graph(1))
    weights = GraphWeights(graph_file.graph, toy_bundle.path)
    with pytest.raises(ValueError, match="does not name its layers"):
        rewrite_products(graph_file, weights, Recipe("bf16"), {})


def test_a_layer_that_was_not_calibrated_is_named(bundle: Bundle) -> None:
    graph_file = onnx.load(bundle.step_graph(1))
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv was not calibrated"):
        rewrite_products(graph_file, GraphWeights(graph_file.graph, bundle.path), Recipe("fp8"), {})


def test_constants_are_read_through_what_folds_away(bundle: Bundle) -> None:
    graph = onnx.load(bundle.step_graph(1)).graph
    weights = GraphWeights(graph, bundle.path)
    convolution = [
        node for node in graph.node if layer_of(node) == "blocks.0.mlp" and node.op_type == "MatMul"
    ]
    assert [weights.read(node.input[1]).shape for node in convolution] == [(32, 32)] * 2  # type: ignore[union-attr]
    assert weights.read("latents") is None
    size = len(graph.node)
    prune(graph)
    assert 0 < len(graph.node) <= size


def test_the_shipped_model_goes_by_its_name() -> None:
    assert shipped("pocket", False) == (str(CHECKPOINT), [1000.0])
    assert shipped("pocket", True) == ("pocket", None)
    assert shipped("sana-wm", False) == ("sana-wm", None)


def test_plans_are_not_built_from_plans(bundle: Bundle, tmp_path: Path) -> None:
    plans = replace(bundle, spec=bundle.spec.model_copy(update={"target": "sm120"}))
    with pytest.raises(ValueError, match="built for sm120 already"):
        build_plans(plans, tmp_path / "out", "sm120", Recipe("nvfp4"), NOTHING, unseen)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_not_held_against_a_model_of_other_sizes(bundle: Bundle) -> None:
    check_sizes(bundle.spec, TINY)
    with pytest.raises(ValueError, match="name the one it was made from with --model"):
        check_sizes(bundle.spec, pocket_sizes())


def test_what_cannot_be_built_is_refused_before_it_is_calibrated(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.app import run

    def fail(*_: object) -> None:
        raise AssertionError("calibrated in vain")

    monkeypatch.setattr("export.engine.calibrate_bundle", fail)
    (tmp_path / "mine.txt").write_text("precious")
    source = str(bundle.path)
    for arguments, words in (
        (["-o", str(tmp_path), "--overwrite"], "is no bundle; name a new folder"),
        (["-o", source, "--overwrite"], "is the bundle to build from"),
        (["-o", str(tmp_path / "out"), "--target", "sm12"], "sm12"),
    ):
        if "sm12" in arguments:
            pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
        assert run(["export", "engine", source, *arguments]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def pocket_model() -> tuple[WorldModel, nn.Module]:
    """A pocket whose every weight matters: many shipped ones are zero, and plans of those differ by less than the weights do."""
    torch.manual_seed(0)
    return random_model(pocket_sizes()), new_decoder(pocket_sizes())


@pytest.fixture(scope="module")
def pocket(pocket_model: tuple[WorldModel, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("pocket") / "pocket"
    return open_bundle(
        export_bundle(*pocket_model, folder, timesteps=(1000,), encoder=encoder_of(pocket_model[1]))
    )


@pytest.fixture(scope="module")
def tensorrt() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install -e '.[rtx]'")


@pytest.mark.slow
@pytest.mark.every_change
def test_pocket_engines_are_built_without_a_gpu(tensorrt: None, pocket: Bundle, tmp_path: Path) -> None:
    scales: dict[Low, Calibration] = {
        low: nominal_calibration(quantised_products(pocket, Recipe(low))) for low in ("nvfp4", "bf16")
    }
    fp8, convolutions = low_decoder(pocket)
    decoding = {"nvfp4": (fp8, nominal_calibration(convolutions)), "bf16": BF16_DECODER}
    built = {
        low: open_bundle(
            build_plans(pocket, tmp_path / low, "sm120", Recipe(low), scales[low], unseen, decoding[low])
        )
        for low in scales
    }
    assert [made.spec.precision["decoder"] for made in built.values()] == ["fp8", "bf16"]
    decoders = [(made.path / "decoder.engine").stat().st_size for made in built.values()]
    assert decoders[0] < decoders[1]
    weights = {
        low: sum(group.weight_bytes for group in made.spec.layer_groups if group.pattern.startswith("blocks"))
        for low, made in built.items()
    }
    plans = {low: (made.path / "step_1.engine").stat().st_size for low, made in built.items()}
    # Both plans hold the same kernels but for the products; the weights make the difference.
    saved = weights["bf16"] - weights["nvfp4"]
    with torch.device("meta"):
        sizes = leaf_linears(WorldModel(ModelConfig.from_dict(pocket.spec.model)))
    values = sum(sizes[name].weight.numel() for name in scales["nvfp4"].layers)
    assert values > 2e6
    assert saved == pytest.approx(values * (16 - 4.5) / 8, rel=0.01)
    # The 4-bit kernels' own code is a sixth of what so small a model saves.
    assert math.isclose(plans["bf16"] - plans["nvfp4"], saved, rel_tol=0.2)
    assert built["nvfp4"].spec.activation_scales.startswith("nominal")
    assert built["bf16"].spec.activation_scales == ""
    low = [group for group in built["nvfp4"].spec.layer_groups if group.precision == "nvfp4"]
    assert sum(group.weight_bytes for group in low) == pytest.approx(values * 4.5 / 8, rel=0.01)
    with pytest.raises(BuildFailed, match="fp4_e2m1"):
        build_plans(pocket, tmp_path / "sm89", "sm89", Recipe("nvfp4"), scales["nvfp4"], unseen)
    assert not (tmp_path / "sm89").exists()
    plan = tmp_path / "nvfp4" / "step_1.engine"
    damaged = bytearray(plan.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    plan.write_bytes(damaged)
    with pytest.raises(SpecMismatch, match=r"step_1\.engine is not the one its bundle was made with"):
        open_bundle(tmp_path / "nvfp4")


@pytest.mark.gpu
def test_a_gpu_follows_onnx_runtime(
    pocket: Bundle, pocket_model: tuple[WorldModel, nn.Module], tmp_path: Path
) -> None:
    from engine.backends.tensorrt import open_tensorrt
    from engine.machine.hardware import find_gpus

    gpus = find_gpus()
    assert gpus, "this test needs an NVIDIA GPU"
    target = gpus[0].capability
    plans = open_bundle(build_plans(pocket, tmp_path / "plans", target, Recipe("bf16"), NOTHING, unseen))
    errors = []
    for open_runner in (lambda: open_tensorrt(plans), lambda: OnnxRuntimeBackend(pocket, 1, 1)):
        errors.append(verify_bundle(lambda: pocket_model, open_runner, pocket.spec, 4))
    assert errors[1].velocity < 1e-3
    # Products in bf16 hold 8 bits; emulated on a CPU the latents differ by 1 %.
    assert errors[0].velocity < 0.2
    assert errors[0].state < 1.0
