"""Saying which extra to install where an optional library is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.machine.installing import install_line

OPTIONAL_LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "ml_dtypes",
    "transformers",
    "yaml",
    "PIL",
    "skimage",
    "scipy",
    "filelock",
    "numba",
)


@contextmanager
def extra_needed(what: str, extra: str) -> Iterator[None]:
    """Turn a missing optional library inside the block into one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in OPTIONAL_LIBRARIES:
            raise
        raise ValueError(
            f"{what} needs {library}, which is not installed; in a clone run {install_line(extra)}"
        ) from error
