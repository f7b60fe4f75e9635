"""Opening a session: which bundle, which backend, how many threads."""

from __future__ import annotations

import importlib.util
import time
from typing import Literal

from engine.backends.protocol import Backend
from engine.errors import BackendUnavailable
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.machine import assets
from engine.machine.hardware import TENSORRT_LIBRARIES, find_gpus, num_cores
from engine.session.holodeck_session import HolodeckSession
from engine.session.model_session import ModelSession, check_fit
from engine.session.protocol import Clock, Session

BackendName = Literal["auto", "onnxruntime", "tensorrt", "holodeck"]
MAX_DENOISE_THREADS = 4


def check_backend(backend: BackendName) -> None:
    """Refuse a backend that this machine or installation cannot run, whatever the bundle."""
    if backend != "tensorrt":
        return
    if not find_gpus():
        raise BackendUnavailable(
            "TensorRT needs an NVIDIA GPU and its driver, and there is none here; use --backend onnxruntime"
        )
    if not any(importlib.util.find_spec(name) for name in TENSORRT_LIBRARIES):
        raise BackendUnavailable(
            "TensorRT for RTX is not installed; run pip install -e '.[rtx]' in a clone, or use --backend onnxruntime"
        )


def open_session(
    world: World,
    bundle: Bundle | None = None,
    backend: BackendName = "auto",
    *,
    denoise_threads: int | None = None,
    decode_threads: int = 1,
    keep_latents: bool = False,
    clock: Clock = time.perf_counter,
) -> Session:
    """Open a session on `world`; without a bundle, on the shipped one that the world was made for.

    "auto" takes the fastest backend that can run the bundle here. A backend is imported when it is asked for.
    """
    if backend == "holodeck":
        return HolodeckSession(world, clock)
    check_backend(backend)
    bundle = bundle or assets.bundle_for(world.info.model)
    if bundle is None:
        raise BackendUnavailable(
            f"no bundle here fits the world {world.name}; name one with --engine, or take --backend holodeck"
        )
    check_fit(world, bundle.spec)
    runner = _open_backend(bundle, backend, denoise_threads or default_denoise_threads(), decode_threads)
    return ModelSession(bundle, world, runner, clock, keep_latents)


def _open_backend(bundle: Bundle, backend: BackendName, denoise_threads: int, decode_threads: int) -> Backend:
    """Open what runs the bundle: plans need TensorRT, graphs need ONNX Runtime."""
    spec = bundle.spec
    if backend == "onnxruntime" and spec.is_plan:
        raise BackendUnavailable(
            f"the bundle {spec.name} was built for {spec.target}; ONNX Runtime takes the one it was built from"
        )
    if backend == "tensorrt" and not spec.is_plan:
        raise BackendUnavailable(
            f"the bundle {spec.name} is not built for a GPU; build one with `flaneur export engine`, "
            "or use --backend onnxruntime"
        )
    if spec.is_plan:
        from engine.backends.tensorrt import open_tensorrt

        return open_tensorrt(bundle)
    try:
        from engine.backends.onnxruntime import OnnxRuntimeBackend
    except ImportError as error:
        raise BackendUnavailable(
            "onnxruntime is not installed; install it, or take --backend holodeck"
        ) from error
    return OnnxRuntimeBackend(bundle, denoise_threads, decode_threads)


def default_denoise_threads() -> int:
    """Leave one core to the decoder and the window; a step is too small to share among many."""
    return min(MAX_DENOISE_THREADS, max(1, num_cores() - 1))
