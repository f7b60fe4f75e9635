"""Asks the package index whether all that `play` needs comes as a wheel, for each system; nothing is downloaded or installed.

    python scripts/check_wheels.py [--python 3.12]

It reads the dependencies from pyproject.toml and lets pip resolve them for other systems. Exit status 1 where a wheel is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = {
    "Windows, x86-64": ("win_amd64",),
    "macOS 14, Apple silicon": ("macosx_14_0_arm64", "macosx_11_0_arm64"),
    "Linux, ARM": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "Linux, x86-64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
}
"""Tags that a system's pip takes."""


def dependencies() -> list[str]:
    """Return the requirements of the base install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def command(tags: Sequence[str], python: str, target: str, requirements: Sequence[str]) -> list[str]:
    """Return the call of pip that resolves requirements to wheels of a system."""
    platforms = [word for tag in tags for word in ("--platform", tag)]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version", python]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    return [*pip, *options, *platforms, "--target", target, *requirements]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="3.12", help="version of Python, such as 3.12")
    chosen = parser.parse_args()
    status = 0
    for system, tags in SYSTEMS.items():
        with tempfile.TemporaryDirectory() as target:
            call = command(tags, chosen.python, target, dependencies())
            done = subprocess.run(call, capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        print(f"{system}: {'all wheels are there' if done.returncode == 0 else errors[-1]}")
        status |= int(done.returncode != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
