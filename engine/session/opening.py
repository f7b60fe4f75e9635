"""Opening a session: which bundle, which backend, how many threads."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.backends.protocol import Backend
from engine.backends.providers import CPU_PROVIDER, choose_provider
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle
from engine.files.refiner import FOLDER as REFINER_FOLDER
from engine.files.refiner import bundled_refiner
from engine.files.world import World
from engine.machine import assets
from engine.machine.hardware import TENSORRT_LIBRARIES, find_gpus, num_cores
from engine.machine.installing import install_line
from engine.session.chunk_refiner import ChunkRefiner, open_chunk_refiner, refiner_text
from engine.session.holodeck_session import HolodeckSession
from engine.session.model_session import ModelSession, check_fit
from engine.session.protocol import Clock, Session

BackendName = Literal["auto", "onnxruntime", "torch", "tensorrt", "holodeck"]
RELEASED = "sana-wm"
"""What `--engine` calls the model of a folder of released weights."""
Provider = Literal["auto", "cpu", "cuda", "dml", "coreml", "openvino", "nv_tensorrt_rtx"]
"""What ONNX Runtime runs graphs on; "auto" is whatever was checked against the CPU and is faster."""
RefinerMode = Literal["on", "off", "auto"]
"""Whether a bundle's refiner is opened: "on" asks for it, "auto" takes it where there is one that can play. One that its folder
calls an option is ready then, and refines once somebody asks for it."""
MAX_DENOISE_THREADS = MAX_DECODE_THREADS = 4


@dataclass(frozen=True)
class EngineRequest:
    """What shall make the pictures, as a person asks for it."""

    engine: str | None = None
    """Name or folder of a bundle, or RELEASED with `weights`; None takes the shipped one the world was made for."""
    backend: BackendName = "auto"
    provider: Provider = "auto"
    weights: Path | None = None
    """Folder of released weights, played by PyTorch without a bundle."""


def check_request(request: EngineRequest) -> None:
    """Refuse what cannot be opened, before anything is.

    Raises:
        ValueError: No bundle has that name, or two options contradict one another.
        EngineError: The bundle is damaged, or the backend cannot be had.
    """
    engine, backend, weights = request.engine, request.backend, request.weights
    if backend == "holodeck" and (engine is not None or weights is not None):
        option = "--engine" if weights is None else "--weights"
        raise ValueError(f"--backend holodeck draws the truth and takes no {option}; leave one of them out")
    if request.provider != "auto" and backend not in ("auto", "onnxruntime"):
        raise ValueError(
            f"--provider is ONNX Runtime's, not that of --backend {backend}; leave one of them out"
        )
    if weights is not None:
        if backend not in ("auto", "torch") or request.provider != "auto":
            raise ValueError("--weights are played by PyTorch; use --backend torch, and no --provider")
        if engine not in (None, RELEASED):
            raise ValueError(
                f"--weights is a folder of {RELEASED}, and --engine names {engine}; leave one of them out"
            )
        if not weights.is_dir():
            raise ValueError(f"there is no folder {weights}; name the folder of released weights")
        check_backend("torch")
        return
    check_backend(backend)
    if engine == RELEASED:
        raise ValueError(f"{RELEASED} is played from its released weights; name their folder with --weights")
    if engine is not None:
        assets.find_bundle(engine, verify=False)


def check_backend(backend: BackendName) -> None:
    """Refuse a backend that this machine or installation cannot run, whatever the bundle."""
    if backend == "torch" and importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            f"PyTorch is not installed; in a clone run {install_line('torch')}, or use --backend onnxruntime"
        )
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
    weights: Path | None = None,
    provider: Provider = "auto",
    denoise_threads: int | None = None,
    decode_threads: int | None = None,
    keep_latents: bool = False,
    refiner: RefinerMode = "off",
    clock: Clock = time.perf_counter,
) -> Session:
    """Open a session on `world`; without a bundle, on the shipped one that the world was made for.

    "auto" takes the fastest backend that can run the bundle here. A backend is imported when it is asked for.

    Args:
        weights: Folder of released weights to play in place of a bundle, by PyTorch.
    """
    if backend == "holodeck":
        if refiner == "on":
            raise BackendUnavailable("the holodeck has nothing to refine; leave --refiner on out")
        return HolodeckSession(world, clock)
    if weights is not None:
        backend = "torch"
        if refiner == "on":
            raise BackendUnavailable("a refiner belongs to a bundle; leave --weights or --refiner on out")
    check_backend(backend)
    if weights is not None:
        from engine.backends.torch import TorchBackend, TorchOptions, released_model

        height, width = world.first_latent.shape[1:]
        options = TorchOptions(num_threads=denoise_threads or default_denoise_threads())
        model = released_model(weights, (height, width), options)
        check_fit(world, model.spec)
        return ModelSession(model, world, TorchBackend(model, options), clock, keep_latents)
    bundle = bundle or assets.bundle_for(world.info.model)
    if bundle is None:
        raise BackendUnavailable(
            f"no bundle here fits the world {world.name}; name one with --engine, or take --backend holodeck"
        )
    check_fit(world, bundle.spec)
    denoise_threads = denoise_threads or default_denoise_threads()
    decode_threads = decode_threads or default_decode_threads()
    runner = _open_backend(bundle, backend, provider, denoise_threads, decode_threads)
    second_stage = _open_refiner(bundle, world, refiner, decode_threads)
    by_default = second_stage is not None and (refiner == "on" or second_stage.spec.by_default)
    return ModelSession(bundle, world, runner, clock, keep_latents, second_stage, by_default)


def _open_refiner(bundle: Bundle, world: World, mode: RefinerMode, num_threads: int) -> ChunkRefiner | None:
    folder = None if mode == "off" else bundled_refiner(bundle)
    if folder is None:
        if mode == "on":
            raise BackendUnavailable(
                f"the bundle {bundle.spec.name} has no refiner; export one with `flaneur export refiner ... "
                f"-o {bundle.path / REFINER_FOLDER}`, or leave --refiner on out"
            )
        return None
    try:
        opened = open_chunk_refiner(bundle, folder, num_threads)
        refiner_text(world, opened.spec)
        return opened
    except (BackendUnavailable, SpecMismatch):
        if mode == "on":
            raise
        return None


def _open_backend(
    bundle: Bundle, backend: BackendName, provider: Provider, denoise_threads: int, decode_threads: int
) -> Backend:
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
    if backend == "torch":
        from engine.backends.torch import TorchBackend, TorchOptions, bundle_model

        return TorchBackend(bundle_model(bundle), TorchOptions(num_threads=denoise_threads))
    if spec.is_plan:
        from engine.backends.tensorrt import open_tensorrt

        return open_tensorrt(bundle)
    try:
        from engine.backends.onnxruntime import OnnxRuntimeBackend, installed_providers
    except ImportError as error:
        raise BackendUnavailable(
            "onnxruntime is not installed; install it, or take --backend holodeck"
        ) from error

    def on(provider: str) -> Backend:
        return OnnxRuntimeBackend(bundle, denoise_threads, decode_threads, provider=provider)

    if provider != "auto":
        return on(provider)
    others = [name for name in installed_providers() if name != CPU_PROVIDER]
    return choose_provider(spec, others, on)[0]


def default_denoise_threads() -> int:
    """Leave one core to the decoder and the window; a step is too small to share among many."""
    return min(MAX_DENOISE_THREADS, max(1, num_cores() - 1))


def default_decode_threads() -> int:
    """Take half of the cores: a chunk is decoded beside the next one's denoising."""
    return min(MAX_DECODE_THREADS, max(1, num_cores() // 2))
