"""The decoder's cost by layer, and its convolutions in FP8."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

pytest.importorskip("torch")
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cli.app import run as flaneur
from engine.machine.assets import find_bundle
from engine.machine.decoder_cost import decoder_layers
from engine.machine.memory_plan import DecoderSizes, DenoiserSizes
from evaluation.image_metrics import psnr
from evaluation.rollouts import Frames
from export.graph import GraphWeights, SharedWeights, layer_of
from export.onnx import export_decoder
from export.progress import unseen
from export.quantization.calibration import Walks, calibration_walks
from export.quantization.decoder import calibrate_decoder, convolutions, low_decoder, quantised_decoder
from export.quantization.layers import Recipe, low_decoder_rules
from export.quantization.quantize import LayerScales
from export.quantization.rewriting import rewrite_products
from export.scenes import decode
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_config import LtxAutoencoderConfig

SMALL = LtxAutoencoderConfig(
    latent_channels=16, decoder_block_out_channels=(32, 64, 128), decoder_layers_per_block=(1, 1, 1, 1)
)


def small_decoder() -> LtxStreamingDecoder:
    torch.manual_seed(0)
    autoencoder = LtxAutoencoder(SMALL)
    del autoencoder.encoder
    return LtxStreamingDecoder(autoencoder).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def decoder() -> LtxStreamingDecoder:
    return small_decoder()


Decoded = Callable[[nn.Module], Frames]


@pytest.fixture(scope="module")
def decoded(decoder: LtxStreamingDecoder) -> Decoded:
    """Decode the same four latent frames by any decoder."""
    latents, caches = list(torch.randn(1, 16, 4, 2, 3).split(1, 2)), caches_of(decoder, 2, 3)
    return lambda network: decode(network, latents, caches)


@pytest.fixture(scope="module")
def in_fp8(decoder: LtxStreamingDecoder, decoded: Decoded) -> nn.Module:
    return quantised_decoder(decoder, "fp8", decoded)


def caches_of(decoder: LtxStreamingDecoder, rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(shape) for _, shape in decoder.cache_spec(rows, columns))


def test_operations_are_those_that_are_done(decoder: LtxStreamingDecoder):
    sizes = DecoderSizes.of(
        SMALL.latent_channels, SMALL.decoder_block_out_channels, SMALL.decoder_layers_per_block
    )
    denoiser = replace(DenoiserSizes(), frame_height=64, frame_width=96, chunk_size=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder(torch.zeros(1, 16, 1, 2, 3), *caches_of(decoder, 2, 3))
    layers = decoder_layers("bf16", denoiser, sizes)
    assert sum(layer.operations for layer in layers) == counter.get_total_flops()
    assert sum(layer.count for layer in layers) == len(convolutions(decoder))


def test_fp8_halves_what_is_read_and_nothing_else():
    for half, low in zip(decoder_layers("bf16"), decoder_layers("fp8"), strict=True):
        assert low.weight_bytes == half.weight_bytes / 2
        assert half.product_bytes / 2 < low.product_bytes < half.product_bytes
        assert low.operations == half.operations
        assert low.elementwise_bytes == half.elementwise_bytes


def test_what_is_not_fused_adds_to_the_bound():
    layer = decoder_layers()[3]
    assert layer.bound_ms(2e14, 1.8e12, fused=False) > layer.bound_ms(2e14, 1.8e12, fused=True)
    assert layer.bound_ms(1e30, 1.8e12, fused=True) == layer.memory_ms(1.8e12, fused=True)


def test_bench_tells_the_decoder_layer_by_layer(capsys: pytest.CaptureFixture[str]):
    assert flaneur(["bench", "--layers"]) == 0
    table = capsys.readouterr().out
    assert "Estimate, not a measurement" in table
    assert "128 to 128 at 8 x 176 x 320" in table
    assert flaneur(["bench", "--layers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["minute_s"]["fp8, fused"] < found["minute_s"]["bf16, fused"]
    assert flaneur(["bench", "--layers", "--roofline", "abacus"]) == 2


def test_fp8_convolutions_stay_near_bf16_and_are_not_bf16(
    decoder: LtxStreamingDecoder, decoded: Decoded, in_fp8: nn.Module
):
    in_bf16 = quantised_decoder(decoder, "bf16", decoded)
    found = list(convolutions(in_fp8))
    fp8 = [name for name in found if "weight_quantizer(4, 3)" in quantisers(in_fp8.get_submodule(name))]
    # Latents and colours stay in bf16.
    assert fp8 == found[1:-1]
    exact, half, low = (decoded(network) for network in (decoder, in_bf16, in_fp8))
    assert 30 < psnr(half, low) < 60
    assert psnr(exact, half) > psnr(exact, low)


def quantisers(layer: nn.Module) -> str:
    """Name a layer's quantisers that are on, each with its bits."""
    parts = {name: part for name, part in layer.named_children() if name.endswith("_quantizer")}
    return " ".join(f"{name}{part.num_bits}" for name, part in parts.items() if part.is_enabled)


def test_weights_are_rounded_channel_by_channel():
    decoder = nn.Module()
    decoder.decoder = nn.Sequential(*(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)))
    weight = torch.tensor([1e-3, 300.0]).view(2, 1, 1, 1)
    decoder.decoder[1].load_state_dict({"weight": weight, "bias": torch.zeros(2)})
    twin = quantised_decoder(decoder, "fp8", lambda net: net.decoder(torch.ones(1, 1, 1, 1)))
    rounded = twin.get_submodule("decoder.1.weight_quantizer")(weight)
    torch.testing.assert_close(rounded, weight, rtol=1e-6, atol=0)


def test_an_engine_stores_convolutions_as_they_were_quantised(
    decoder: LtxStreamingDecoder, in_fp8: nn.Module, tmp_path: Path
):
    source = tmp_path / "decoder.onnx"
    export_decoder(decoder, (16, 2, 3), decoder.cache_spec(2, 3), source, SharedWeights(tmp_path))
    graph_file = onnx.load(source)
    names = [layer_of(node) for node in graph_file.graph.node if node.op_type == "Conv"]
    layers: dict[str, Any] = {name: in_fp8.get_submodule(name) for name in dict.fromkeys(names)}
    inner = [name for name in layers if name not in (names[0], names[-1])]
    scales = {name: LayerScales(float(layers[name].input_quantizer.amax)) for name in inner}
    recipe = Recipe("fp8", rules=low_decoder_rules(names[0], names[-1]))
    records = rewrite_products(graph_file, GraphWeights(graph_file.graph, tmp_path), recipe, scales)
    assert {record.name for record in records if record.precision == "bf16"} == {names[0], names[-1]}
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in graph_file.graph.initializer
    }
    nodes = {layer_of(node): node.name for node in graph_file.graph.node if node.op_type == "Conv"}
    for name in scales:
        layer, n = layers[name], nodes[name]
        expected = layer.weight_quantizer(layer.weight).numpy()
        channels = stored[f"{n}.w_scale"].reshape(-1, *[1] * (expected.ndim - 1))
        ours = stored[f"{n}.w"] * channels
        # ModelOpt multiplies by the reciprocal of a scale: a value between two steps may fall to the other.
        assert np.isclose(ours, expected, rtol=1e-5, atol=0).mean() > 0.9999
        np.testing.assert_allclose(ours, expected, rtol=0.13, atol=2e-3 * channels.max())
        assert stored[f"{n}.x_scale"] == pytest.approx(scales[name].largest / 448)


def test_a_decoder_is_calibrated_on_what_the_model_generates(monkeypatch: pytest.MonkeyPatch):
    bundle = find_bundle("pocket")

    def one_world(*arguments: Any) -> Walks:
        walks = calibration_walks(*arguments)
        return replace(walks, scenes=walks.scenes[:1])

    monkeypatch.setattr("export.quantization.decoder.calibration_walks", one_world)
    monkeypatch.setattr("export.quantization.calibration.NUM_CHUNKS", 1)
    recipe, calibration = calibrate_decoder(bundle, "pocket", unseen, pytest.fail)
    assert set(calibration.layers) == set(low_decoder(bundle)[1])
    assert recipe.is_quantised("autoencoder.decoder.blocks.0.conv_in")
    assert all(0 < scales.largest < 1e5 for scales in calibration.layers.values())
    assert calibration.origin.endswith("chunks in each world: 1, worlds: 1")


def test_a_decoder_s_precision_is_for_plans_of_bundles(capsys: pytest.CaptureFixture[str]):
    engine = ["export", "engine", "pocket", "--decoder-precision", "fp8"]
    assert flaneur([*engine, "--target", "cpu"]) == 2
    assert "built for a GPU; leave it out" in capsys.readouterr().err
