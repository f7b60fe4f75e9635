"""ONNX Runtime's execution providers: which are there, and which one "auto" takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cli.app import run as flaneur
from engine.backends.onnxruntime import OnnxRuntimeBackend, installed_providers
from engine.backends.protocol import Backend, State
from engine.backends.providers import choose_provider, try_chunk
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle
from engine.machine import assets, doctor


class Altered(OnnxRuntimeBackend):
    """The CPU's graphs, with a delay and an error added to each step."""

    def __init__(self, bundle: Bundle, delay_s: float = 0.0, error: float = 0.0) -> None:
        super().__init__(bundle, 1, 1)
        self._delay_s, self._error = delay_s, error
        self.closed = False

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        time.sleep(self._delay_s)
        velocity, after = super().run_step(inputs, state, keep_state)
        return velocity + np.float32(self._error), after

    def close(self) -> None:
        self.closed = True
        super().close()


def test_auto_takes_the_fastest_provider_whose_numbers_are_right(toy_bundle: Bundle):
    opened: dict[str, Altered] = {}
    delays = {"cpu": (0.03, 0.0), "dml": (0.0, 0.01), "openvino": (0.01, 1e-5), "coreml": (0.06, 0.0)}

    def open_backend(provider: str) -> Backend:
        if provider == "cuda":
            raise BackendUnavailable("the provider cuda does not start here; install its libraries")
        opened[provider] = Altered(toy_bundle, *delays[provider])
        return opened[provider]

    candidates = ["cuda", "dml", "coreml", "openvino"]
    best, verdicts = choose_provider(toy_bundle.spec, candidates, open_backend)
    assert best is opened["openvino"]
    problems = {verdict.provider: verdict.problem for verdict in verdicts}
    assert problems["openvino"] == problems["cpu"] == problems["coreml"] == ""
    assert "does not start" in problems["cuda"]
    assert "velocity differs from the cpu's by 0.01" in problems["dml"]
    assert [name for name, backend in opened.items() if backend.closed] == ["cpu", "dml", "coreml"]


def test_nan_is_not_taken_for_the_cpus_numbers(toy_bundle: Bundle):
    _, verdicts = choose_provider(
        toy_bundle.spec, ["dml"], lambda name: Altered(toy_bundle, error=np.nan if name == "dml" else 0.0)
    )
    assert "velocity" in verdicts[-1].problem


def test_with_the_cpu_alone_nothing_is_tried(toy_bundle: Bundle):
    best, verdicts = choose_provider(toy_bundle.spec, [], lambda _: Altered(toy_bundle, delay_s=60.0))
    assert isinstance(best, Altered)
    assert verdicts == []


def test_a_provider_that_is_not_installed_is_refused_with_its_package(
    capsys: pytest.CaptureFixture[str],
):
    if "dml" in installed_providers():
        pytest.skip("this ONNX Runtime has DirectML")
    assert flaneur(["play", "town", "--provider", "dml", "--headless", "--chunks", "1"]) == 2
    error = capsys.readouterr().err
    assert "onnxruntime-directml" in error
    assert "Traceback" not in error


def test_a_graph_that_the_cpu_cannot_read_is_told_from_a_provider_that_cannot(toy_bundle: Bundle):
    broken = Bundle(toy_bundle.path.parent, toy_bundle.spec, toy_bundle.sha256)
    with pytest.raises(SpecMismatch, match="cannot load"):
        OnnxRuntimeBackend(broken, 1, 1)


def test_doctor_lists_the_providers():
    check = next(check for check in doctor.run_checks({}) if check.name == "providers")
    assert check.status == "ok"
    assert "cpu" in check.detail


@pytest.mark.skipif("openvino" not in installed_providers(), reason="onnxruntime-openvino is not installed")
def test_openvino_gives_the_cpus_numbers():
    """Runs where onnxruntime-openvino stands in the place of onnxruntime, with the pocket's bundle."""
    bundle = assets.find_bundle("pocket")
    _, verdicts = choose_provider(
        bundle.spec, ["openvino"], lambda name: OnnxRuntimeBackend(bundle, 1, 1, provider=name)
    )
    assert [verdict.problem for verdict in verdicts] == ["", ""]


def test_the_made_up_chunk_fits_a_model_with_a_spatial_memory():
    bundle = assets.find_bundle("pocket")
    trial = try_chunk(OnnxRuntimeBackend(bundle, 1, 1), bundle.spec)
    assert trial.inverse_depth is not None
    assert trial.velocity.std() > 0.01
    assert trial.state.keys() == {tensor.name for tensor in bundle.spec.state}
