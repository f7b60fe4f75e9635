"""What this process holds of the machine: memory, threads, open files."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.machine.hardware import peak_memory_bytes


@dataclass(frozen=True)
class ResourceUsage:
    """What a process holds at one moment."""

    memory_bytes: int
    """Resident memory; the highest so far where the system tells no more."""
    num_threads: int
    """Python's threads."""
    num_handles: int | None
    """Open files, sockets and pipes; None where the system does not list them."""


def resource_usage() -> ResourceUsage:
    """Measure this process."""
    return ResourceUsage(memory_bytes(), threading.active_count(), num_handles())


def memory_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Return the memory in use; 0 where nothing can be learnt."""
    if sys.platform == "win32":
        return 0
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return peak_memory_bytes() or 0


def num_handles() -> int | None:
    """Return how many files this process has open, None where the system does not list them."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            # The listing itself holds one.
            return len(os.listdir(folder)) - 1
        except OSError:
            continue
    return None


def release_memory() -> None:
    """Hand freed memory back to the system; glibc keeps it otherwise, in pieces, for as long as the program runs."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
