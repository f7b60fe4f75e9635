"""Cores, and NVIDIA GPUs by what their driver says, and whether a bundle can run on one; nothing is loaded for it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.files.bundle import Bundle
from engine.files.refiner import RefinerFolder

TENSORRT_LIBRARIES = ("tensorrt_rtx", "tensorrt")
"""By preference."""
WORKING_SHARE = 1.5
"""Memory that a plan works in, as a share of its own size; an estimate until it is measured."""
MIN_WORKING_BYTES = 512 << 20
"""Of the driver's context and the smallest plans."""
STATE_SETS = 3
"""State that is read, state that is written, and a snapshot on its way."""


@dataclass(frozen=True)
class Gpu:
    """One device."""

    name: str
    capability: str
    """Such as sm120."""
    free_bytes: int


def find_gpus() -> list[Gpu] | None:
    """Ask the NVIDIA driver for its devices; None where there is no driver, or it gives no answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,compute_cap,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpus(answer.stdout)


def parse_gpus(table: str) -> list[Gpu]:
    """Read the driver's lines of name, compute capability and free MiB; lines of another form are left out."""
    found = []
    for line in table.splitlines():
        name, _, rest = line.rpartition(",")[0].rpartition(",")
        capability, free = rest.strip(), line.rpartition(",")[2].strip()
        if capability.replace(".", "", 1).isdigit() and free.isdigit():
            found.append(Gpu(name.strip(), "sm" + capability.replace(".", ""), int(free) << 20))
    return found


def needed_bytes(bundle: Bundle) -> int:
    """Estimate the device memory that a bundle's plans and state take."""
    spec = bundle.spec
    plans = sum(
        (bundle.path / name).stat().st_size for name in {*spec.step_graphs.values(), spec.decoder_graph}
    )
    tensors = sum(tensor.num_bytes for tensor in (*spec.state, *spec.decoder_caches))
    return int(plans * WORKING_SHARE) + STATE_SETS * tensors + MIN_WORKING_BYTES


def refiner_bytes(folder: RefinerFolder) -> int:
    """Estimate the device memory that a refiner's plans, its state and the part of the next state that is under way take."""
    spec = folder.spec
    plans = sum((folder.path / name).stat().st_size for name in spec.graphs)
    state = sum(tensor.num_bytes for tensor in spec.state)
    return plans + state + state // len(spec.segments) + MIN_WORKING_BYTES


def why_not(what: str, target: str, needed: int, gpus: Sequence[Gpu] | None) -> str | None:
    """Return one sentence if no GPU here can run plans that need so many bytes, else None.

    Plans run on the GPU kind they were built for alone.

    Args:
        what: The bundle or refiner in words.
        target: Compute capability, such as sm120.
    """
    built = f"{what} was built for {target}"
    if not gpus:
        return (
            f"{built}, and there is no NVIDIA GPU or no driver here; install the driver, or take one for cpu"
        )
    fitting = [gpu for gpu in gpus if gpu.capability == target]
    if not fitting:
        here = ", ".join(f"{gpu.name} is {gpu.capability}" for gpu in gpus)
        return f"{built}, and {here}; build one with `flaneur export engine --target {gpus[0].capability}`"
    free = fitting[0].free_bytes
    if free < needed:
        return (
            f"{what} needs about {needed / 2**30:.1f} GiB on its GPU and {free / 2**30:.1f} GiB are free; "
            "close other programs"
        )
    return None


def num_cores() -> int:
    """Return the number of cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int | None:
    """Return the largest resident size this process ever had; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kilobytes.
    return peak if sys.platform == "darwin" else peak * 1024


def machine_bytes() -> int | None:
    """Return how much memory this machine has; None where the system does not say."""
    if sys.platform == "win32":
        status = windows_memory(ctypes.windll.kernel32)
        return None if status is None else status.total
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def available_memory_gb(meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """Return the memory that could be had without swapping; None where the system does not say."""
    if sys.platform == "win32":
        status = windows_memory(ctypes.windll.kernel32)
        return None if status is None else status.available / 2**30
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return None


class MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


def windows_memory(kernel32: Any) -> MemoryStatus | None:
    """Ask Windows' kernel library for its memory; None where it gives no answer."""
    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    return status if kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
