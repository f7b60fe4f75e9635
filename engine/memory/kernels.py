"""Compiled twins of what `sources`, `warp` and `blend` define: several times as fast, and without holding the interpreter's lock.

    python -m engine.memory.kernels

compiles `kernels.c` beside itself with the C compiler of this machine, once for each version of it. `make setup` does so. Where
there is no compiler, memories are rendered by numpy and OpenCV: the same pictures to within a grey level, at half the speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.memory.images import Array

Positions = tuple[Array, Array]
"""Columns and rows of pixels in a view, of one shape and without gaps."""
SOURCE = Path(__file__).with_suffix(".c")
FLAGS = (
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
)
COMPILERS = ("cc", "gcc", "clang")
COMPILE_TIMEOUT_S = 120.0
MAX_SURFACES = 24
"""Keyframes times guesses that a pixel may be blended of; as in the C source."""
SOLVE, SEARCH, NOT_BESIDE = 1, 2, 4
"""What `flaneur_blend` does with guesses."""


class CompileError(Exception):
    """The kernels cannot be compiled here."""


class LinkRecord(ctypes.Structure):
    """`Link` of the C source."""

    _fields_ = (
        ("smooth", ctypes.c_void_p),
        ("depth", ctypes.c_void_p),
        ("color", ctypes.c_void_p),
        ("clear", ctypes.c_void_p),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("there", ctypes.c_float * 9),
        ("offset", ctypes.c_float * 3),
        ("back", ctypes.c_float * 9),
        ("back_offset", ctypes.c_float * 3),
        ("zoom", ctypes.c_float),
    )


_RECORD = struct.Struct("@4P2i25f4x")
"""The same as bytes, which are filled many times as fast."""


class Rules(ctypes.Structure):
    """`Rules` of the C source: constants that `blend` and `warp` define."""

    _fields_ = tuple(
        (name, ctypes.c_float) for name in ("tolerance_px", "least_scale", "same_surface", "enlarged")
    )


class Kernels:
    """The compiled functions. Values of pixels have the shape of their positions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        link = ctypes.POINTER(LinkRecord), count, pointer, pointer
        links = ctypes.POINTER(LinkRecord), ctypes.c_int, count, pointer, pointer
        all_rules = ctypes.POINTER(Rules)
        self._solve = _function(library.flaneur_solve, *link, pointer, pointer)
        self._verify = _function(
            library.flaneur_verify, *link, pointer, ctypes.c_float, ctypes.c_int, pointer
        )
        self._march = _function(
            library.flaneur_march, *link, pointer, pointer, ctypes.c_int, ctypes.c_float, pointer
        )
        self._blend = _function(
            library.flaneur_blend,
            *links,
            pointer,
            ctypes.c_int,
            pointer,
            ctypes.c_int,
            all_rules,
            pointer,
            pointer,
        )
        self._splat = _function(
            library.flaneur_splat,
            *(pointer, count, pointer, ctypes.c_int, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_float),
            *(pointer, pointer, pointer, pointer),
        )
        self._look = _function(library.flaneur_look, *links, pointer, all_rules, pointer, pointer)
        size = ctypes.c_int, ctypes.c_int
        self._silhouettes = _function(library.flaneur_silhouettes, pointer, *size, pointer)
        self._clear = _function(
            library.flaneur_clear, pointer, pointer, pointer, pointer, *size, pointer, ctypes.c_int
        )

    def solve(self, link: LinkRecord, pixels: Positions, guess: Array) -> Array:
        """`Link.solve`."""
        guess = _floats(guess, pixels)
        found = np.empty_like(guess)
        self._solve(link, *_positions(pixels), address(guess), address(found))
        return found

    def verified(
        self, link: LinkRecord, pixels: Positions, guess: Array, tolerance_px: float, not_beside: bool
    ) -> Array:
        """`Link.verified`."""
        guess = _floats(guess, pixels)
        found = np.empty_like(guess)
        where = _positions(pixels)
        self._verify(link, *where, address(guess), tolerance_px, not_beside, address(found))
        return found

    def march(
        self, link: LinkRecord, pixels: Positions, near: Array, far: Array, steps: int, tolerance_px: float
    ) -> Array:
        """`Link.march`."""
        near, far = _floats(near, pixels), _floats(far, pixels)
        found = np.empty_like(near)
        where = _positions(pixels)
        self._march(link, *where, address(near), address(far), steps, tolerance_px, address(found))
        return found

    def blend(
        self,
        links: Sequence[LinkRecord],
        pixels: Positions,
        guesses: Sequence[Array],
        least: Array,
        how: int,
        rules: Rules,
    ) -> tuple[Array, Array]:
        """`blend.blend`."""
        stacked = np.concatenate([_floats(guess, pixels) for guess in guesses])
        least = _floats(least, pixels)
        image, known = np.empty((*least.shape, 4), np.float32), np.empty_like(least)
        self._blend(
            (LinkRecord * len(links))(*links),
            len(links),
            *_positions(pixels),
            address(stacked),
            len(guesses),
            address(least),
            how,
            rules,
            address(image),
            address(known),
        )
        return image, known

    def look(
        self, links: Sequence[LinkRecord], pixels: Positions, guess: Array, rules: Rules
    ) -> tuple[NDArray[np.uint8], Array]:
        """`blend.first_shown`."""
        guess = _floats(guess, pixels)
        color, depth = np.zeros((*guess.shape, 4), np.uint8), np.empty_like(guess)
        where = _positions(pixels)
        records = (LinkRecord * len(links))(*links)
        self._look(records, len(links), *where, address(guess), rules, address(color), address(depth))
        return color, depth

    def splat(
        self,
        points: Array,
        camera: Array,
        size: tuple[int, int],
        cells: Sequence[NDArray[Any]],
        reaches: NDArray[np.int32],
        sky_inverse: float,
    ) -> None:
        """A step of `selection.coarse_depth`: render points [4, P] into cells, in place.

        Args:
            camera: Rotation into cells row by row, position, focal length in cells and nearest depth, [14].
            size: Columns and rows of cells.
            cells: Nearest, farthest, sky, and the nearest of those that reach into neighbours.
            reaches: Sides of the squares that those reach into.
        """
        self._splat(
            address(points),
            points.shape[1],
            address(camera),
            *size,
            address(reaches),
            len(reaches),
            sky_inverse,
            *(address(part) for part in cells),
        )

    def silhouettes(self, inverse_depth: Array) -> NDArray[np.bool_]:
        """`sources.silhouettes`."""
        depth = np.ascontiguousarray(inverse_depth, np.float32)
        found = np.empty(depth.shape, np.bool_)
        self._silhouettes(address(depth), *depth.shape[::-1], address(found))
        return found

    def clear(
        self,
        color: NDArray[np.uint8],
        cleared: NDArray[np.uint8],
        inverse_depth: Array,
        beside: NDArray[np.bool_],
        offsets: NDArray[np.int32],
    ) -> None:
        """What `sources._clear` does to a picture and its copy [H, W, 4], in place.

        Args:
            offsets: Where clear colours are looked for, down and right, [K, 2].
        """
        depth = np.ascontiguousarray(inverse_depth, np.float32)
        pictures = address(color), address(cleared), address(depth), address(beside)
        self._clear(*pictures, *depth.shape[::-1], address(offsets), len(offsets))


def link_record(
    addresses: Sequence[int], size: tuple[int, int], matrices: Sequence[NDArray[np.float64]], zoom: float
) -> LinkRecord:
    """Return the record of a `Link`.

    Args:
        addresses: Of smooth and plain inverse depth, of colour and of clear colour; they must live as long as the record is used.
        size: Width and height of those.
        matrices: The four of the link.
    """
    values = [value for matrix in matrices for value in matrix.ravel().tolist()]
    return LinkRecord.from_buffer_copy(_RECORD.pack(*addresses, *size, *values, zoom))


def library_path() -> Path:
    """Return where the compiled kernels of this version lie, or would."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:12]
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return SOURCE.with_name(f"kernels-{platform}-{digest}.so")


def compile_kernels() -> Path:
    """Compile the kernels unless they are, and return the library.

    Raises:
        CompileError: There is no compiler, it failed, or the folder cannot be written.
    """
    path = library_path()
    if path.exists():
        return path
    compiler = _compiler()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="kernels-") as folder:
            made = Path(folder) / path.name
            shared = ["-shared"] if sys.platform == "win32" else ["-shared", "-fPIC"]
            command = [*compiler, *FLAGS, *shared, str(SOURCE), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
            if done.returncode != 0:
                raise CompileError(
                    f"{compiler[0]} failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
                )
            os.replace(made, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(str(error)) from error
    for old in path.parent.glob(f"{path.name[: path.name.rindex('-')]}-*.so"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CC", ""))
    found = next((name for name in (*named[:1], *COMPILERS) if shutil.which(name)), None)
    if found is None:
        raise CompileError("there is no C compiler")
    return [found, *named[1:]] if named[:1] == [found] else [found]


def loaded() -> Kernels | None:
    """Return the kernels, or None where they were not compiled."""
    return _load()


@cache
def _load() -> Kernels | None:
    try:
        return Kernels(ctypes.CDLL(str(library_path())))
    except OSError:
        return None


def _function(function: Any, *arguments: Any) -> Any:
    function.argtypes, function.restype = arguments, None
    return function


def _floats(values: Array, pixels: Positions) -> Array:
    assert values.size == pixels[0].size, "one value for each pixel"
    return np.ascontiguousarray(values, np.float32)


def _positions(pixels: Positions) -> tuple[int, int, int]:
    columns, rows = pixels
    return columns.size, address(columns), address(rows)


def address(array: NDArray[Any]) -> int:
    """Return where an array lies in memory."""
    assert array.flags.c_contiguous, "arrays are handed over without gaps"
    return array.__array_interface__["data"][0]


def main() -> int:
    try:
        print(f"spatial memories are rendered by {compile_kernels()}")
    except CompileError as error:
        print(f"spatial memories are rendered by numpy, at half the speed: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
