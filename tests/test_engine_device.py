"""The backend that GPUs share: its bookkeeping runs here on host memory, with ONNX Runtime in the place of plans."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from engine.backends.device import BufferPool, DeviceBackend
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle, EngineSpec, TensorSpec
from engine.files.world import World
from engine.machine import hardware as gpu
from engine.machine.hardware import Gpu, needed_bytes, parse_gpus, why_not
from engine.session.model_session import ModelSession
from engine.session.opening import open_session
from engine.types import CameraTrack
from tests.host_device import Array, HostDevice, HostPlan


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def backend(toy_bundle: Bundle, device: HostDevice) -> Iterator[DeviceBackend]:
    opened = DeviceBackend("host", "host memory", toy_bundle, device, lambda path: HostPlan(device, path))
    yield opened
    if not device.closed:
        opened.close()


def walk(session: ModelSession, num_chunks: int) -> tuple[list[str], list[Array]]:
    session.reset(3)
    hashes, frames = [], []
    for n in range(num_chunks):
        c2w = np.tile(session.world.c2w, (session.frames_per_chunk, 1, 1))
        c2w[:, 2, 3] += 0.1 * n
        lens = np.tile(session.world.intrinsics, (len(c2w), 1))
        chunk = session.step(CameraTrack(c2w, lens))
        hashes.append(chunk.latents_sha256)
        frames.append(chunk.frames)
    return hashes, frames


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3)])
def test_a_walk_on_a_device_is_the_walk_on_arrays(
    make_bundle: Callable[..., Bundle], toy_world: World, device: HostDevice, sizes: tuple[int, int]
) -> None:
    bundle = make_bundle(*sizes)
    on_device = DeviceBackend("host", "host", bundle, device, lambda path: HostPlan(device, path))
    on_arrays = OnnxRuntimeBackend(bundle, 1, 1)
    hashes, frames = walk(ModelSession(bundle, toy_world, on_device), 6)
    expected, pictures = walk(ModelSession(bundle, toy_world, on_arrays), 6)
    assert hashes == expected
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(frames, pictures, strict=True))
    on_device.close()
    on_arrays.close()


def test_state_alternates_between_two_sets_of_buffers(
    toy_bundle: Bundle, toy_world: World, backend: DeviceBackend, device: HostDevice
) -> None:
    session = ModelSession(toy_bundle, toy_world, backend)
    walk(session, 2)
    gc.collect()
    allocated = set(device.live)
    walk(session, 8)
    assert set(device.live) == allocated
    assert device.num_streams == 2


def test_a_state_that_is_held_is_never_written(toy_bundle: Bundle, backend: DeviceBackend) -> None:
    rng = np.random.default_rng(0)
    spec = toy_bundle.spec
    inputs = step_inputs(spec, rng)
    _, first = backend.run_step(inputs, backend.new_state(), keep_state=True)
    before = backend.to_arrays(first)
    state = first
    for _ in range(4):
        _, state = backend.run_step(inputs, state, keep_state=True)
    after = backend.to_arrays(first)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not np.array_equal(before["memory"], backend.to_arrays(state)["memory"])


def test_a_denoise_call_leaves_the_state_alone(toy_bundle: Bundle, backend: DeviceBackend) -> None:
    state = backend.new_state()
    _, same = backend.run_step(
        step_inputs(toy_bundle.spec, np.random.default_rng(1)), state, keep_state=False
    )
    assert same is state
    assert all(not array.any() for array in backend.to_arrays(same).values())


def test_states_survive_the_way_to_the_host_and_back(toy_bundle: Bundle, backend: DeviceBackend) -> None:
    inputs = step_inputs(toy_bundle.spec, np.random.default_rng(2))
    _, state = backend.run_step(inputs, backend.new_state(), keep_state=True)
    restored = backend.from_arrays(backend.to_arrays(state))
    ours, theirs = (backend.run_step(inputs, held, keep_state=False)[0] for held in (state, restored))
    assert np.array_equal(ours, theirs)
    latent = np.ones((1, toy_bundle.spec.latent_channels, 1, 2, 3), np.float32)
    _, caches = backend.run_decoder({"latent": latent}, backend.new_caches())
    assert backend.from_arrays(backend.to_arrays(caches)).keys() == caches.keys()


def test_texts_of_any_length_fit(toy_bundle: Bundle, backend: DeviceBackend) -> None:
    arrays = OnnxRuntimeBackend(toy_bundle, 1, 1)
    for length in (5, 2, 9):
        inputs = step_inputs(toy_bundle.spec, np.random.default_rng(length), length)
        ours, _ = backend.run_step(inputs, backend.new_state(), keep_state=False)
        assert np.array_equal(ours, arrays.run_step(inputs, arrays.new_state(), keep_state=False)[0])


def test_an_input_of_another_size_is_refused(toy_bundle: Bundle, backend: DeviceBackend) -> None:
    inputs = step_inputs(toy_bundle.spec, np.random.default_rng(3))
    inputs["c2w"] = inputs["c2w"][:, :1]
    with pytest.raises(SpecMismatch, match="takes c2w as float32"):
        backend.run_step(inputs, backend.new_state(), keep_state=False)


def test_closing_frees_every_buffer(toy_bundle: Bundle, toy_world: World, device: HostDevice) -> None:
    backend = DeviceBackend("host", "host", toy_bundle, device, lambda path: HostPlan(device, path))
    session = ModelSession(toy_bundle, toy_world, backend)
    walk(session, 3)
    assert device.live
    session.close()
    assert not device.live
    assert device.closed


def test_a_plan_with_other_names_is_refused(toy_bundle: Bundle, device: HostDevice) -> None:
    extra = TensorSpec(name="surprise", shape=(1,), dtype="float32")
    spec = toy_bundle.spec.model_copy(update={"state": (*toy_bundle.spec.state, extra)})
    with pytest.raises(SpecMismatch, match="lacks input surprise"):
        DeviceBackend(
            "host", "host", replace(toy_bundle, spec=spec), device, lambda path: HostPlan(device, path)
        )


def test_a_pool_hands_a_set_out_once(device: HostDevice) -> None:
    before = len(device.live)
    pool = BufferPool(device, [TensorSpec(name="a", shape=(4,), dtype="float32")])
    first, second = pool.take(), pool.take()
    assert first["a"] != second["a"]
    address = first["a"]
    del first
    gc.collect()
    assert pool.take()["a"] == address
    assert len(device.live) == before + 2


def step_inputs(spec: EngineSpec, rng: np.random.Generator, length: int = 5) -> dict[str, Array]:
    frames = spec.chunk_size * spec.temporal_stride
    return {
        "latents": rng.standard_normal(
            (1, spec.latent_channels, spec.chunk_size, spec.latent_height, spec.latent_width), np.float32
        ),
        "timesteps": np.full((1, spec.chunk_size), 500, np.float32),
        "c2w": rng.standard_normal((1, frames, 4, 4), np.float32),
        "intrinsics": rng.standard_normal((1, frames, 4), np.float32),
        "start_frame": np.array([1], np.int64),
        "text": rng.standard_normal((1, length, spec.text_dim), np.float32),
        "text_mask": np.ones((1, length), np.float32),
    }


NVIDIA = "NVIDIA GeForce RTX 5090, 12.0, 31000\nNVIDIA L4, 8.9, 100\n[N/A], [N/A], [N/A]\n\n"


def test_the_drivers_table_is_read() -> None:
    assert parse_gpus(NVIDIA) == [
        Gpu("NVIDIA GeForce RTX 5090", "sm120", 31000 << 20),
        Gpu("NVIDIA L4", "sm89", 100 << 20),
    ]
    assert parse_gpus("Failed to initialize NVML: Driver/library version mismatch\n") == []


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (None, "no NVIDIA GPU or no driver"),
        ([], "no NVIDIA GPU or no driver"),
        ([Gpu("L4", "sm89", 20 << 30)], "L4 is sm89; build one with `flaneur export engine --target sm89`"),
        ([Gpu("RTX 5090", "sm120", 1 << 20)], "are free; close other programs"),
        ([Gpu("L4", "sm89", 1), Gpu("RTX 5090", "sm120", 31 << 30)], None),
    ],
)
def test_what_a_gpu_lacks_is_one_sentence(
    toy_bundle: Bundle, gpus: list[Gpu] | None, words: str | None
) -> None:
    found = why_not("the bundle toy", "sm120", needed_bytes(toy_bundle), gpus)
    assert (found is None) == (words is None)
    assert words is None or (words in str(found) and str(found).count(". ") == 0)


@pytest.fixture
def plan_bundle(toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle for another machine, on one without a GPU."""
    monkeypatch.setattr(gpu.shutil, "which", lambda _name: None)
    return replace(toy_bundle, spec=toy_bundle.spec.model_copy(update={"target": "sm120"}))


def test_plans_without_a_gpu_are_refused_before_anything_loads(
    plan_bundle: Bundle, toy_world: World, toy_bundle: Bundle
) -> None:
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU or no driver"):
        open_session(toy_world, plan_bundle)
    with pytest.raises(BackendUnavailable, match="ONNX Runtime takes the one it was built from"):
        open_session(toy_world, plan_bundle, "onnxruntime")
    with pytest.raises(BackendUnavailable, match="needs an NVIDIA GPU"):
        open_session(toy_world, toy_bundle, "tensorrt")
