"""What is installed: the version of this program, and how to install one of its extras."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

TORCH = "torch==2.13.*"
"""Goes before an extra that asks for it, as in the Makefile, so that pip takes a CPU build where one lies at hand."""


def install_line(extra: str) -> str:
    """Return the commands that install an extra into the environment that runs this program."""
    python = Path(sys.executable)
    # Whoever stands elsewhere goes to the clone first, where a path from here leads nowhere.
    if _is_clone(Path.cwd()) and python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    pip = f"{shlex.quote(str(python))} -m pip install"
    line = f"{pip} -e '.[{extra}]'"
    # The GPU backend is the one that needs no torch.
    lacks_torch = extra != "rtx" and importlib.util.find_spec("torch") is None
    return f"{pip} '{TORCH}' && {line}" if lacks_torch else line


def _is_clone(folder: Path) -> bool:
    """Whether a folder is the root of a clone of Flaneur."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["name"] == "flaneur"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def app_version() -> str:
    """Return the version of the program, "unknown" in a checkout that was never installed."""
    try:
        return metadata.version("flaneur")
    except metadata.PackageNotFoundError:
        return "unknown"
