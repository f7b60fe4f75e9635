"""What ONNX Runtime can run graphs on, and the check by which "auto" takes one: the CPU's numbers, in less time.

It knows nothing of ONNX Runtime itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import FRAMES, INVERSE_DEPTH, LATENT, Backend
from engine.errors import EngineError
from engine.files.bundle import GUIDE_INPUTS, MEMORY, ModelSpec

CPU_PROVIDER = "cpu"
PROVIDERS: Mapping[str, str] = {
    "nv_tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    CPU_PROVIDER: "CPUExecutionProvider",
}
"""Our names and ONNX Runtime's, in the order of trying."""
PACKAGES: Mapping[str, str] = {
    "nv_tensorrt_rtx": "a build of ONNX Runtime with the TensorRT RTX provider",
    "cuda": "onnxruntime-gpu",
    "dml": "onnxruntime-directml",
    "coreml": "onnxruntime on macOS",
    "openvino": "onnxruntime-openvino",
}
"""Which package, in place of `onnxruntime`, has a provider."""

MAX_VELOCITY_ERROR = 1e-3
"""Largest difference of a float32 graph's velocity (of order 1) that passes; measured ones stay below 1e-4."""
MAX_FRAME_ERROR = 2
"""Largest difference of a byte of a decoded frame that passes: rounding may fall either way."""
MAX_DEPTH_ERROR = 1e-3
"""Largest difference of a decoded inverse depth, 1/m, that passes: a millimetre at one metre."""
TIMED_RUNS = 3
TEXT_LENGTH = 4


@dataclass(frozen=True)
class Trial:
    """A made-up chunk on one backend: what came out, and how long it took once it was warm."""

    velocity: NDArray[np.float32]
    state: Mapping[str, NDArray[Any]]
    frames: NDArray[np.uint8]
    inverse_depth: NDArray[np.float32] | None
    seconds: float
    """Of one denoising pass, one commit, one latent frame decoded, and one encoded where there is an encoder."""


@dataclass(frozen=True)
class Verdict:
    """What the check found of a provider."""

    provider: str
    problem: str
    """Why it is not taken, in a few words; empty where it is right."""
    seconds: float | None = None
    """Of the made-up chunk."""


def try_chunk(backend: Backend, spec: ModelSpec) -> Trial:
    """Run a made-up chunk from the start of a rollout, the same on every backend."""
    inputs, guide = made_up_inputs(spec, spec.chunk_size), _made_up_guide(spec)

    def chunk() -> tuple[Any, ...]:
        given = dict(inputs)
        if spec.memory_channels:
            latent = np.repeat(backend.run_encoder(guide[GUIDE_INPUTS[0]]), spec.chunk_size, 2)
            coverage = np.full_like(latent[:, :1], 0.5)
            given[MEMORY] = np.concatenate([latent, coverage], 1)
        velocity, _ = backend.run_step(given, backend.new_state(), keep_state=False)
        given["timesteps"] = np.zeros_like(given["timesteps"])
        _, state = backend.run_step(given, backend.new_state(), keep_state=True)
        shown = {LATENT: np.ascontiguousarray(given["latents"][:, :, :1]), **guide}
        results, _ = backend.run_decoder(shown, backend.new_caches())
        return velocity, state, results

    velocity, state, results = chunk()
    times = []
    for _ in range(TIMED_RUNS):
        began_s = time.perf_counter()
        chunk()
        times.append(time.perf_counter() - began_s)
    arrays = backend.to_arrays(state)
    return Trial(velocity, arrays, results[FRAMES], results.get(INVERSE_DEPTH), min(times))


def made_up_inputs(spec: ModelSpec, num_frames: int) -> dict[str, NDArray[Any]]:
    """Make inputs of a step for that many latent frames, of the right shapes, without state and memory."""
    rng = np.random.default_rng(0)
    stride, grid = spec.temporal_stride, (spec.latent_height, spec.latent_width)
    centre = [spec.frame_width, spec.frame_width, spec.frame_width / 2, spec.frame_height / 2]
    return {
        "latents": rng.standard_normal((1, spec.latent_channels, num_frames, *grid), np.float32),
        "timesteps": np.full((1, num_frames), spec.timesteps[0], np.float32),
        "c2w": np.tile(np.eye(4, dtype=np.float32), (1, num_frames * stride, 1, 1)),
        "intrinsics": np.tile(np.array(centre, np.float32), (1, num_frames * stride, 1)),
        "start_frame": np.ones(1, np.int64),
        "text": rng.standard_normal((1, TEXT_LENGTH, spec.text_dim), np.float32),
        "text_mask": np.ones((1, TEXT_LENGTH), np.float32),
    }


def _made_up_guide(spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Make what a spatial memory would show of one latent frame; nothing for models without."""
    rng = np.random.default_rng(1)
    shape = (spec.temporal_stride, spec.frame_height, spec.frame_width)
    frames, covered = rng.integers(0, 256, (*shape, 3), np.uint8), rng.random(shape, np.float32)
    return dict(zip(GUIDE_INPUTS, (frames, covered, covered), strict=True)) if spec.memory_channels else {}


def difference(trial: Trial, truth: Trial) -> str:
    """Say in a few words what is too far from the CPU's numbers; "" where nothing is."""
    errors = {
        "velocity": (np.abs(trial.velocity - truth.velocity).max(), MAX_VELOCITY_ERROR),
        "frames": (np.abs(trial.frames.astype(int) - truth.frames).max(), MAX_FRAME_ERROR),
    }
    if trial.inverse_depth is not None and truth.inverse_depth is not None:
        errors["inverse depth"] = np.abs(trial.inverse_depth - truth.inverse_depth).max(), MAX_DEPTH_ERROR
    for name, array in trial.state.items():
        scale = max(1.0, float(np.abs(truth.state[name]).max()))
        errors[name] = np.abs(array - truth.state[name]).max() / scale, MAX_VELOCITY_ERROR
    # NaN is not within any bound.
    wrong = {name: error for name, (error, bound) in errors.items() if not error <= bound}
    if not wrong:
        return ""
    name, error = next(iter(wrong.items()))
    return f"its {name} differs from the cpu's by {error:.2g}"


def choose_provider(
    spec: ModelSpec, candidates: Sequence[str], open_backend: Callable[[str], Backend]
) -> tuple[Backend, list[Verdict]]:
    """Return the fastest backend whose numbers are the CPU's, and what was found of each.

    Args:
        candidates: Providers to try beside the CPU.
        open_backend: Opens the graphs on a provider.
    """
    best = open_backend(CPU_PROVIDER)
    if not candidates:
        return best, []
    truth = try_chunk(best, spec)
    verdicts, fastest_s = [Verdict(CPU_PROVIDER, "", truth.seconds)], truth.seconds
    for provider in candidates:
        try:
            backend = open_backend(provider)
            trial = try_chunk(backend, spec)
        except EngineError as error:
            verdicts.append(Verdict(provider, str(error)))
            continue
        problem = difference(trial, truth)
        verdicts.append(Verdict(provider, problem, trial.seconds))
        if not problem and trial.seconds < fastest_s:
            best, backend, fastest_s = backend, best, trial.seconds
        backend.close()
    return best, verdicts
