"""The decoder's cost by layer, and its convolutions in FP8."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch.utils.flop_counter import FlopCounterMode

from cli.app import run as flaneur
from engine.machine.decoder_cost import decoder_layers
from engine.machine.memory_plan import DecoderSizes, DenoiserSizes
from evaluation.image_metrics import psnr
from export.quantization.decoder import (
    RoundedConvolution,
    calibrated_decoder,
    convolutions,
    emulate_decoder,
)
from export.scenes import decode
from model.config import pocket
from model.decoders import new_decoder
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_config import LtxAutoencoderConfig

SMALL = LtxAutoencoderConfig(
    latent_channels=16, decoder_block_out_channels=(32, 64, 128), decoder_layers_per_block=(1, 2, 1, 1)
)


def small_decoder() -> LtxStreamingDecoder:
    torch.manual_seed(0)
    autoencoder = LtxAutoencoder(SMALL)
    del autoencoder.encoder
    return LtxStreamingDecoder(autoencoder).eval().requires_grad_(False)


def caches_of(decoder: LtxStreamingDecoder, rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(shape) for _, shape in decoder.cache_spec(rows, columns))


def test_operations_are_those_that_are_done():
    decoder = small_decoder()
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


def test_fp8_convolutions_stay_near_bf16_and_are_not_bf16():
    decoder = small_decoder()
    latents = list(torch.randn(1, 16, 4, 2, 3).split(1, 2))
    caches = caches_of(decoder, 2, 3)
    with calibrated_decoder(decoder) as largest:
        decode(decoder, latents, caches)
    assert largest.keys() == convolutions(decoder).keys()
    half, low = (decode(emulate_decoder(decoder, name, largest), latents, caches) for name in ("bf16", "fp8"))
    assert 30 < psnr(half, low) < 60
    exact = decode(decoder, latents, caches)
    assert psnr(exact, half) > psnr(exact, low)
    # The twin is a copy.
    np.testing.assert_array_equal(exact, decode(decoder, latents, caches))


def test_latents_and_colours_stay_bf16():
    for decoder in (small_decoder(), new_decoder(pocket())):
        found = convolutions(decoder)
        twin = emulate_decoder(decoder, "fp8", dict.fromkeys(found, 1.0))
        rounded = [m for m in twin.modules() if isinstance(m, RoundedConvolution)]
        assert len(rounded) == len(found)
        assert [m.rounding for m in rounded][:: len(rounded) - 1] == ["bf16", "bf16"]
        assert {m.rounding for m in rounded[1:-1]} == {"fp8"}


def test_weights_are_rounded_channel_by_channel():
    convolution = torch.nn.Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1e-3, 300.0]).view(2, 1, 1, 1))
    rounded = RoundedConvolution(convolution, "fp8", 1.0)
    made = rounded(torch.ones(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(made, torch.tensor([1e-3, 300.0]).bfloat16().float())
