"""A refiner's plans on a device: here on host memory, with ONNX Runtime in the place of plans."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backends.device_graphs import DeviceGraphs
from engine.backends.onnxruntime import OnnxRuntimeGraphs
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle
from engine.files.refiner import RefinerFolder, open_refiner
from engine.files.world import World
from engine.machine import hardware
from engine.session.chunk_refiner import ChunkRefiner
from engine.session.refiner import RefinerStream
from tests.exported_bundles import with_refiner
from tests.host_device import Array, HostDevice, HostPlan


@pytest.fixture(scope="module")
def folder(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory, shared_folder: Path
) -> RefinerFolder:
    bundle = with_refiner(make_bundle(3, 4), tmp_path_factory.mktemp("refined") / "bundle", shared_folder)
    return open_refiner(bundle.path / "refiner")


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


def on(folder: RefinerFolder, device: HostDevice) -> DeviceGraphs:
    return DeviceGraphs(folder, device, lambda path: HostPlan(device, path))


def clip(folder: RefinerFolder, count: int) -> Array:
    spec = folder.spec
    shape = (spec.latent_channels, spec.block_size, spec.latent_height, spec.latent_width)
    return np.random.default_rng(0).standard_normal((count, 2, *shape), np.float32)


def test_a_stream_on_a_device_is_the_stream_on_arrays(
    folder: RefinerFolder, toy_world: World, device: HostDevice
) -> None:
    refined = []
    for runner in (OnnxRuntimeGraphs(folder, 1), on(folder, device)):
        refiner = ChunkRefiner(folder, runner)
        refiner.enter(toy_world)
        refiner.begin(toy_world.first_latent)
        made = [refiner.refine(*block) for block in clip(folder, 6)]
        refiner.restore(refiner.history)
        refined.append([*made, refiner.refine(*clip(folder, 7)[-1])])
        refiner.close()
    np.testing.assert_array_equal(*refined)
    assert not device.live
    assert device.closed


@pytest.mark.parametrize("length", [1, 3, 9])
def test_texts_of_any_length_fit(folder: RefinerFolder, device: HostDevice, length: int) -> None:
    text = np.random.default_rng(1).standard_normal((length, folder.spec.text_dim), np.float32)
    made = []
    for runner in (OnnxRuntimeGraphs(folder, 1), on(folder, device)):
        stream = RefinerStream(folder.spec, runner, text, np.ones(length, np.float32))
        [[latents, noise]] = clip(folder, 1)
        stream.begin(latents[:, 0])
        made.append(stream.refine(latents[None], noise[None]))
    np.testing.assert_array_equal(*made)


def test_memory_holds_one_state_and_a_segment_of_the_next(
    folder: RefinerFolder, toy_world: World, device: HostDevice
) -> None:
    refiner = ChunkRefiner(folder, on(folder, device))
    refiner.enter(toy_world)
    refiner.begin(toy_world.first_latent)
    blocks = clip(folder, 12)
    for block in blocks[:2]:
        refiner.refine(*block)
    gc.collect()
    allocated = set(device.live)
    for block in blocks[2:]:
        refiner.refine(*block)
    refiner.begin(toy_world.first_latent)
    refiner.refine(*blocks[0])
    assert set(device.live) == allocated
    caches = [tensor for tensor in folder.spec.state[1:] if "history" in tensor.name]
    of_that_size = [memory for memory in device.live.values() if memory.size == caches[0].num_bytes]
    # Two segments of a block each: both of the state, and one that is written.
    assert len(folder.spec.segments) == 2
    assert len(of_that_size) == len(caches) * 3 // 2


def test_a_pass_that_fails_leaves_a_stream_that_is_rebuilt(
    folder: RefinerFolder, toy_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = OnnxRuntimeGraphs(folder, 1)
    first, second = clip(folder, 2)
    undisturbed, refiner = ChunkRefiner(folder, runner), ChunkRefiner(folder, runner)
    for each in (undisturbed, refiner):
        each.enter(toy_world)
        each.begin(toy_world.first_latent)
        each.refine(*first)
    expected = undisturbed.refine(*second)
    run, left = runner.run, [folder.spec.segments[1].commit_graph]

    def failing(graph: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Array]:
        # The first segment of the state is new by then.
        if graph in left:
            left.clear()
            raise SpecMismatch("no memory")
        return run(graph, inputs, outputs)

    monkeypatch.setattr(runner, "run", failing)
    with pytest.raises(SpecMismatch):
        refiner.refine(*second)
    np.testing.assert_array_equal(refiner.refine(*second), expected)


def test_an_input_of_another_size_is_refused(folder: RefinerFolder, device: HostDevice) -> None:
    graphs = on(folder, device)
    with pytest.raises(SpecMismatch, match="takes latents as float32"):
        graphs.run(
            folder.spec.embed_graph,
            {"latents": np.zeros((1, 2, 3), np.float32), "sigma": np.zeros((1, 1), np.float32)},
            ["hidden"],
        )


def test_values_on_a_device_are_read_as_arrays(folder: RefinerFolder, device: HostDevice) -> None:
    zeros = on(folder, device).zeros(folder.spec.state[1])
    array = np.asarray(zeros)
    assert array.shape == folder.spec.state[1].shape
    assert not array.any()
    assert np.asarray(zeros, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.array(zeros, copy=False)


def test_plans_without_a_gpu_are_refused_in_one_sentence(
    folder: RefinerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.backends.tensorrt import open_refiner_plans

    monkeypatch.setattr(hardware.shutil, "which", lambda _name: None)
    plans = replace(folder, spec=folder.spec.model_copy(update={"target": "sm120"}))
    with pytest.raises(
        BackendUnavailable, match=r"the refiner .* was built for sm120, and there is no NVIDIA GPU"
    ):
        open_refiner_plans(plans)
    free = [hardware.Gpu("RTX 5090", "sm120", 1 << 20)]
    assert "GiB are free" in str(hardware.why_not("it", "sm120", hardware.refiner_bytes(folder), free))
