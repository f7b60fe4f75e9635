"""What this machine can run, and what is missing; nothing is downloaded, and nothing heavier than ONNX Runtime is imported."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from engine.backends.providers import CPU_PROVIDER
from engine.errors import EngineError
from engine.files.refiner import bundled_refiner, open_refiner
from engine.files.world import list_worlds
from engine.machine import assets
from engine.machine.hardware import (
    Gpu,
    available_memory_gb,
    find_gpus,
    machine_bytes,
    needed_bytes,
    num_cores,
    why_not,
)
from engine.machine.installing import install_line
from engine.machine.refiner_cost import RefinerPrecision, missing_memory, refiner_cost
from engine.memory import kernels

Status = Literal["ok", "missing", "problem"]
MIN_PYTHON = (3, 11)
MIN_CORES = 2
MIN_MEMORY_GB = 2.0
PLAY_MODULES = {
    "onnxruntime": "onnxruntime",
    "pygame": "pygame-ce",
    "cv2": "opencv-python-headless",
    "av": "av",
}
"""Import name and distribution of what a walk needs."""
EXTRAS = {
    "export": {"torch": "torch", "onnx": "onnx", "onnxscript": "onnxscript"},
    "torch": {"torch": "torch"},
    "train": {"torch": "torch"},
    "eval": {"torch": "torch", "skimage": "scikit-image", "flip_evaluator": "flip-evaluator"},
    "rtx": {"tensorrt_rtx": "tensorrt-rtx", "cuda": "cuda-python"},
}
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


LEAST_CAPABILITY: Mapping[RefinerPrecision, int] = {"nvfp4": 100, "fp8": 89, "bf16": 80}
"""Compute capability, times ten, from which on tensor cores multiply in a precision."""


@dataclass(frozen=True)
class Check:
    """One row of the report."""

    name: str
    status: Status
    """"problem" keeps a walk from working, "missing" only narrows what can be done."""
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "status": self.status, "detail": self.detail, "remedy": self.remedy}


def run_checks(
    environ: Mapping[str, str],
    engines: Sequence[str] = (),
    refiner: bool = False,
    own_worlds: Path | None = None,
) -> list[Check]:
    """Look at this machine and installation.

    Args:
        refiner: Ask also whether a GPU here could hold the released refiner.
        engines: Bundles to ask about beside the shipped ones, by name or folder.
        environ: The environment variables, for the display.
        own_worlds: Folder of the worlds that this user began; None where no home is known.
    """
    return [
        check_python(),
        check_cores(num_cores()),
        check_memory(available_memory_gb()),
        check_cpu_flags(cpu_flags()),
        *(check_module(module, name) for module, name in PLAY_MODULES.items()),
        check_providers(),
        check_kernels(),
        check_display(environ, sys.platform),
        check_bundles(),
        check_worlds(),
        check_own_worlds(own_worlds),
        check_gpu(),
        *([check_refiner(find_gpus())] if refiner else []),
        *(check_engine(name) for name in engines),
        *(check_extra(extra, modules) for extra, modules in EXTRAS.items()),
    ]


def can_play(checks: list[Check]) -> bool:
    """Whether worlds can be walked through here, in a window or without one."""
    return all(check.status != "problem" for check in checks)


def can_open_window(checks: list[Check]) -> bool:
    """Whether they can be walked through by hand."""
    return can_play(checks) and all(check.status == "ok" for check in checks if check.name == "display")


def verdict(checks: list[Check]) -> str:
    """Say in one sentence what this machine can do."""
    if not can_play(checks):
        return "this machine cannot play yet; mend the problems above"
    if can_open_window(checks):
        return "this machine can play"
    return (
        "this machine can play without a window only, for want of a display: "
        "`flaneur play --headless`, `replay --verify`, `--video` and `bench` work"
    )


def check_python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < MIN_PYTHON:
        return Check("python", "problem", detail, "install Python 3.11 or later")
    return Check("python", "ok", detail)


def check_cores(count: int) -> Check:
    detail = f"{count} usable"
    if count < MIN_CORES:
        return Check("cores", "missing", detail, "give this process two cores, or playback may stutter")
    return Check("cores", "ok", detail)


def check_memory(free_gb: float | None) -> Check:
    if free_gb is None:
        return Check("memory", "ok", "this system does not say how much is free")
    detail = f"{free_gb:.1f} GB free"
    if free_gb < MIN_MEMORY_GB:
        return Check("memory", "problem", detail, f"close other programs until {MIN_MEMORY_GB:g} GB are free")
    return Check("memory", "ok", detail)


def check_cpu_flags(flags: set[str] | None) -> Check:
    if flags is None:
        return Check("cpu", "ok", platform.processor() or platform.machine())
    known = [flag for flag in CPU_FLAGS if flag in flags]
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in flags:
        return Check("cpu", "missing", "no avx2", "expect a slow walk; take a machine made after 2014")
    return Check("cpu", "ok", " ".join(known) or "no known vector extensions")


def check_module(module: str, distribution: str) -> Check:
    version = installed_version(module, distribution)
    if version is None:
        remedy = f"install it with `pip install {distribution}`"
        return Check(distribution, "problem", "not installed", remedy)
    return Check(distribution, "ok", version)


def check_providers() -> Check:
    """List what the installed ONNX Runtime can run graphs on."""
    try:
        from engine.backends.onnxruntime import installed_providers
    except ImportError:
        return Check("providers", "missing", "no ONNX Runtime", "install it with `pip install onnxruntime`")
    others = [name for name in installed_providers() if name != CPU_PROVIDER]
    detail = ", ".join((*others, CPU_PROVIDER))
    if others:
        detail += "; --provider auto takes the fastest whose numbers are the cpu's"
    return Check("providers", "ok", detail)


def check_kernels() -> Check:
    """Tell what renders spatial memories."""
    if kernels.loaded() is not None:
        return Check("memory kernels", "ok", "compiled")
    remedy = "for renderings twice as fast install a C compiler, then `python -m engine.memory.kernels`"
    return Check("memory kernels", "missing", "not compiled; numpy renders memories", remedy)


def check_display(environ: Mapping[str, str], system: str) -> Check:
    if not system.startswith("linux"):
        return Check("display", "ok", "the desktop's own")
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if environ.get(variable):
            return Check("display", "ok", f"{variable}={environ[variable]}")
    remedy = "log in to a desktop for the window; what needs none works, such as `flaneur play --headless`"
    return Check("display", "missing", "none", remedy)


def check_bundles() -> Check:
    """Open every shipped bundle and compare its hashes."""
    names = assets.bundle_names()
    if not names:
        remedy = "install Flaneur again, or make one with `flaneur export onnx`"
        return Check("bundles", "problem", f"none in {assets.bundles_dir()}", remedy)
    try:
        told = [_told_bundle(name) for name in names]
    except EngineError as error:
        return Check("bundles", "problem", str(error), "install Flaneur again")
    return Check("bundles", "ok", ", ".join(told))


def _told_bundle(name: str) -> str:
    """Name a bundle that is whole, and say what its refiner is for, where it has one."""
    folder = bundled_refiner(assets.find_bundle(name))
    return name if folder is None else f"{name} (its refiner {open_refiner(folder).spec.use})"


def check_worlds() -> Check:
    entries = list_worlds([assets.worlds_dir()])
    if not entries:
        return Check("worlds", "problem", f"none in {assets.worlds_dir()}", "install Flaneur again")
    broken = [entry for entry in entries if entry.problem]
    if broken:
        return Check("worlds", "problem", broken[0].problem, "install Flaneur again")
    return Check("worlds", "ok", ", ".join(entry.name for entry in entries))


def check_own_worlds(folder: Path | None) -> Check:
    """Count the worlds that this user began, and name one that cannot be opened."""
    if folder is None:
        return Check("own worlds", "missing", "no home folder is known", "set HOME to an absolute path")
    entries = list_worlds([folder])
    broken = [entry for entry in entries if entry.problem]
    detail = f"{len(entries)} in {folder}" if entries else "none yet; F6 in a walk begins one"
    if broken:
        remedy = f"delete it with `flaneur world delete {shlex.quote(broken[0].name)}`"
        return Check("own worlds", "missing", f"{detail}, {len(broken)} damaged: {broken[0].problem}", remedy)
    return Check("own worlds", "ok", detail)


def check_gpu() -> Check:
    """Report the devices that the NVIDIA driver names, if there is one."""
    gpus = find_gpus()
    if not gpus:
        return Check("gpu", "missing", "no NVIDIA GPU or no driver", "none is needed for the pocket world")
    detail = "; ".join(f"{gpu.name}, {gpu.capability}, {gpu.free_bytes / 2**30:.1f} GiB free" for gpu in gpus)
    return Check("gpu", "ok", detail)


def device_memory() -> tuple[str, float]:
    """Return the device a model would be played on, in words, and its free bytes; 0 where the system does not say."""
    gpus = find_gpus()
    if gpus:
        best = max(gpus, key=lambda gpu: gpu.free_bytes)
        return best.name, best.free_bytes
    free_gb = available_memory_gb()
    free = machine_bytes() or 0 if free_gb is None else free_gb * 2**30
    return "this machine, without a GPU", free


def check_refiner(gpus: Sequence[Gpu] | None) -> Check:
    """Say by arithmetic which precisions of the released refiner a GPU here has the kernels and the free memory for."""
    costs = [refiner_cost(precision) for precision in LEAST_CAPABILITY]
    needs = ", ".join(f"{cost.memory_bytes / 1e9:.1f} GB in {cost.precision}" for cost in costs)
    needs = f"needs {needs}, beside the first stage"
    remedy = "the first stage plays without it"
    if not gpus:
        return Check("refiner", "missing", f"no NVIDIA GPU; {needs}", remedy)
    fitting = {
        gpu.name: [
            cost.precision
            for cost in costs
            if _capability(gpu) >= LEAST_CAPABILITY[cost.precision]
            and not missing_memory(cost, gpu.free_bytes)
        ]
        for gpu in gpus
    }
    found = "; ".join(f"{name} holds it in {', '.join(held)}" for name, held in fitting.items() if held)
    if not found:
        return Check("refiner", "missing", f"no GPU here holds it; {needs}", remedy)
    return Check("refiner", "ok", f"{found}; {needs}")


def _capability(gpu: Gpu) -> int:
    digits = gpu.capability.removeprefix("sm")
    return int(digits) if digits.isdigit() else 0


def check_engine(name_or_path: str) -> Check:
    """Ask whether this machine can run a bundle; its files are compared, nothing is loaded."""
    name = f"engine {Path(name_or_path).name}"
    try:
        bundle = assets.find_bundle(name_or_path)
    except (EngineError, ValueError) as error:
        detail, _, remedy = str(error).partition("; ")
        return Check(name, "problem", detail, remedy)
    if not bundle.spec.is_plan:
        return Check(name, "ok", "runs on any processor")
    if reason := why_not(
        f"the bundle {bundle.spec.name}", bundle.spec.target, needed_bytes(bundle), find_gpus()
    ):
        detail, _, remedy = reason.partition("; ")
        return Check(name, "problem", detail, remedy)
    return Check(name, "ok", f"runs on the GPU here, {bundle.spec.target}")


def check_extra(extra: str, modules: Mapping[str, str]) -> Check:
    """Look for the optional packages of one of our extras."""
    versions = {name: installed_version(module, name) for module, name in modules.items()}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    lacking = ", ".join(name for name, version in versions.items() if version is None)
    if lacking:
        remedy = f"for `{extra}` work, in a clone run `{install_line(extra)}`"
        return Check(f"extra {extra}", "missing", f"no {lacking}", remedy)
    return Check(f"extra {extra}", "ok", found)


def installed_version(module: str, distribution: str) -> str | None:
    """Return a package's version without importing it, None if it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str] | None:
    """Return the processor's feature flags, None where the system has no such file."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return None
