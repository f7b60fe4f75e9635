"""The memory plan against the tensors themselves, and against measured peaks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from cli.app import run as flaneur
from engine.backends import torch as torch_backend
from engine.backends.providers import made_up_inputs
from engine.backends.torch import TorchBackend, TorchModel, TorchOptions, model_spec, released_model
from engine.machine.memory_plan import DecoderSizes, DenoiserSizes, memory_plan
from export.quantization.layers import precision_of
from model.config import ModelConfig, sana_wm
from model.rollout import state_shapes
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder
from model.vae.ltx_config import LtxAutoencoderConfig
from model.world_model import WorldModel
from tests.memory_meter import MemoryMeter
from tests.releases import write_release

# Small, since processors without bfloat16 convolve in it a hundred times more slowly.
WIDE = replace(sana_wm(), hidden_size=224, num_heads=2, num_layers=4, frame_height=128, frame_width=224)
DEEP = replace(
    sana_wm(),
    hidden_size=112,
    num_heads=1,
    num_layers=6,
    softmax_every_n=2,
    frame_height=256,
    frame_width=384,
)
NARROW = LtxAutoencoderConfig(decoder_block_out_channels=(8, 16, 32))
TOLERANCE = 0.15
"""What the plan may be off by, of the measured peak."""


def test_weights_state_and_caches_are_those_of_the_released_model():
    with torch.device("meta"):
        network = WorldModel(sana_wm())
        autoencoder = LtxAutoencoder(LtxAutoencoderConfig())
    sizes, decoder = DenoiserSizes(), DecoderSizes()
    assert DenoiserSizes.of(sana_wm().to_dict()) == sizes
    vae = autoencoder.config
    assert (
        DecoderSizes.of(vae.latent_channels, vae.decoder_block_out_channels, vae.decoder_layers_per_block)
        == decoder
    )
    state_dict = network.state_dict()
    assert sizes.num_weights == sum(tensor.numel() for tensor in state_dict.values())
    large = [
        layer.weight.numel()
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and precision_of(name, "nvfp4") == "nvfp4"
    ]
    assert sizes.large_weights == sum(large)
    assert sizes.state_bytes(4) == 4 * sum(math.prod(shape) for shape in state_shapes(sana_wm()).values())
    assert decoder.num_weights == sum(parameter.numel() for parameter in autoencoder.decoder.parameters())
    caches = LtxStreamingDecoder(autoencoder).cache_spec(22, 40)
    assert decoder.num_cached((22, 40)) == sum(
        math.prod(shape) for name, shape in caches if name != "started"
    )


def measured_bytes(config: ModelConfig, autoencoder: LtxAutoencoder, dtype: str) -> int:
    """Walk three chunks, and return weights and the peaks of denoiser and decoder, which run side by side."""
    network = WorldModel(config)
    decoder = LtxStreamingDecoder(autoencoder)
    spec = model_spec(config, decoder, "0" * 64, (1000.0,), 16.0)
    backend = TorchBackend(TorchModel(spec, "", network, decoder, None), TorchOptions("cpu", dtype))
    modules = (network, autoencoder.decoder)
    weights = sum(t.numel() * t.element_size() for module in modules for t in module.state_dict().values())
    with MemoryMeter() as step:
        state = backend.new_state()
        for size in (config.first_chunk_size, config.chunk_size, config.chunk_size):
            inputs = made_up_inputs(spec, size)
            for keep in (False, True):
                _, state = backend.run_step(inputs, state, keep)
    with MemoryMeter() as decode:
        caches = backend.new_caches()
        for _ in range(3):
            latent = np.zeros(
                (1, config.in_channels, 1, *DenoiserSizes.of(config.to_dict()).grid), np.float32
            )
            _, caches = backend.run_decoder({"latent": latent}, caches)
    return weights + step.peak_bytes + decode.peak_bytes


@pytest.mark.parametrize(("config", "dtype"), [(WIDE, "bfloat16"), (DEEP, "float32")])
def test_the_plan_is_near_the_measured_peak(config: ModelConfig, dtype: str):
    autoencoder = LtxAutoencoder(NARROW)
    del autoencoder.encoder
    decoder = DecoderSizes.of(
        NARROW.latent_channels, NARROW.decoder_block_out_channels, NARROW.decoder_layers_per_block
    )
    precision = "fp32" if dtype == "float32" else "bf16"
    plan = memory_plan(precision, False, DenoiserSizes.of(config.to_dict()), decoder, context_bytes=0)
    measured = measured_bytes(config, autoencoder, dtype)
    print(f"{dtype}: planned {plan.num_bytes / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB")
    assert abs(plan.num_bytes / measured - 1) < TOLERANCE


def test_a_world_that_cannot_fit_is_refused_before_a_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_release(tmp_path)
    monkeypatch.setattr(torch_backend, "available_memory_gb", lambda: 0.0001)

    def read(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(torch_backend, "open_network", read)
    with pytest.raises(ValueError, match=r"the model needs about .* GiB in fp32"):
        released_model(tmp_path, (2, 3))


def test_doctor_plans_for_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]):
    assert flaneur(["doctor", "--model", "sana-wm", "--memory", "12", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["fits"]
    assert sum(found["bytes"].values()) == found["total_bytes"]
    assert found["cards"]["8"]["first_stage"] == []
    assert flaneur(["doctor", "--model", "sana-wm", "--memory", "12", "--precision", "nvfp4", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["fits"]


def test_doctors_plan_names_what_never_lies_on_the_device(capsys: pytest.CaptureFixture[str]):
    assert flaneur(["doctor", "--model", "sana-wm", "--refiner", "--frame-size", "640x352"]) == 0
    table = capsys.readouterr().out
    for words in ("640x352", "refiner, cache", "text encoders", "refiner_diffusers 38 GB"):
        assert words in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "pocket"], "not for 'pocket'"),
        (["--model", "sana-wm", "--frame-size", "100x100"], "do not divide by 32"),
        (["--model", "sana-wm", "--precision", "fp16"], "no memory plan is known in 'fp16'"),
        (["--model", "sana-wm", "--precision", "fp32", "--refiner"], "not planned in fp32"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert flaneur(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err
