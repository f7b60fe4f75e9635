"""The walls between the rooms: who may import whom, and which library lives where."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FUNCTION = 60
"""Lines, docstring included."""
ROOMS = ("cli", "client", "engine", "evaluation", "export", "holodeck", "model", "training")


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands, what it names, and whether it runs with its module."""

    module: str
    line: int
    name: str
    at_import: bool


def imports_of(module: str, source: str) -> Iterator[Import]:
    """Yield every import of a module; those under TYPE_CHECKING never run and do not count."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, child.lineno, alias.name, at_import)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: relative imports hide what is imported"
                yield Import(module, child.lineno, child.module or "", at_import)
                for alias in child.names:
                    yield Import(module, child.lineno, f"{child.module}.{alias.name}", at_import)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            else:
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, at_import and not inside)

    yield from walk(ast.parse(source), True)


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "model": ("model",),
    "holodeck": ("holodeck",),
    "engine": ("engine", "holodeck"),
    "client": ("client", "engine"),
    "cli": ("cli", "client", "engine"),
    "export": ("export", "model", "engine", "evaluation"),
    # The ceiling of a picture metric is what the autoencoder alone loses, so it is opened there.
    "evaluation": ("evaluation", "engine", "holodeck", "model.vae"),
    "training": ("training", "model", "holodeck", "export", "engine", "evaluation"),
}
DEFERRED = {"cli": ("evaluation", "export", "training")}
"""What a room may import inside its functions only, so that `--help` and `play` start without it."""
TORCH_BACKEND = "engine.backends.torch"
MODULES_MAY_IMPORT: dict[str, tuple[str, ...]] = {TORCH_BACKEND: ("engine", "model")}
"""A module with more doors than its room: PyTorch runs the network itself, which is exported for everything else."""
WINDOW = (
    "client.app",
    "client.input",
    "client.screens",
    "client.ui",
)
"""The only rooms that know pygame."""


LIBRARY_HOMES = {
    "torch": ("model", "training", "export", "evaluation", TORCH_BACKEND, "engine.backends.torch_graphs"),
    "torch.distributed": ("training.parallel",),
    "onnxruntime": ("engine.backends.onnxruntime",),
    "modelopt": ("export.quantization",),
    "tensorrt": ("engine.backends.tensorrt", "export"),
    "tensorrt_rtx": ("engine.backends.tensorrt", "export"),
    "cuda": ("engine.backends.tensorrt",),
    "transformers": ("export.text", "training.data.annotation.local_vision_language"),
    "PIL": (
        "engine.files.pictures",
        "engine.memory.codec",
        "export.photo",
        "training.data.annotation.local_vision_language",
    ),
    "skimage": ("evaluation",),
    "scipy": ("evaluation",),
    "numba": ("holodeck.kernels",),
    "pycolmap": ("evaluation.poses.reconstruction",),
    "scenedetect": ("training.data.annotation.shots",),
    "ray": ("training.data.annotation.ray_runner",),
    "flip_evaluator": ("evaluation.image_metrics",),
    "lpips": ("evaluation.image_metrics",),
    "pygame": WINDOW,
    "pickle": (),
    "shelve": (),
    "marshal": (),
}
"""Where each heavy or dangerous library may be imported."""


def broken_wall(imported: Import) -> str | None:
    """Return the rule an import breaks, None if it breaks none."""
    room, name = imported.module.split(".")[0], imported.name
    for library, homes in LIBRARY_HOMES.items():
        if is_in(name, (library,)) and not is_in(imported.module, homes):
            return f"{library} is at home in {', '.join(homes) or 'no room'}"
    allowed = MODULES_MAY_IMPORT.get(imported.module, MAY_IMPORT[room])
    if not imported.at_import:
        allowed = (*allowed, *DEFERRED.get(room, ()))
    # `from engine.files import bundle` names engine first; what is taken from it is judged on its own.
    names_parent = any(package.startswith(f"{name}.") for package in allowed)
    if is_in(name, ROOMS) and not is_in(name, allowed) and not names_parent:
        return f"{room} may import {', '.join(allowed)} of ours"
    return None


@cache
def sources() -> dict[str, str]:
    """Return the source of every module of ours by its dotted name."""
    found: dict[str, str] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path.read_text(encoding="utf-8")
    return found


@cache
def all_imports() -> list[Import]:
    return [imported for module, source in sources().items() for imported in imports_of(module, source)]


@cache
def import_graph() -> dict[str, set[str]]:
    """Return the modules of ours that each module names, wherever in its source it does."""
    modules = sources().keys()
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, source in sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    graph[module].add(name if name in modules else node.module or "")
    return {module: (names & modules) - {module} for module, names in graph.items()}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return every module that `start` leads to, itself only by way of a circle."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph.get(ahead.pop(), set()) - seen
        seen |= new
        ahead.extend(new)
    return seen


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the groups of modules that lead to one another."""
    beyond = {module: reachable(graph, module) for module in graph}
    return {
        frozenset(other for other in reached if module in beyond[other])
        for module, reached in beyond.items()
        if module in reached
    }


def long_functions(sources: dict[str, str]) -> list[str]:
    """Return functions of more than LONGEST_FUNCTION lines, as `module:function (lines)`."""
    return [
        f"{module}:{node.name} ({lines})"
        for module, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]


def test_no_module_breaks_a_wall():
    broken = [
        f"{imported.module}:{imported.line} imports {imported.name}: {rule}"
        for imported in all_imports()
        if (rule := broken_wall(imported))
    ]
    assert not broken, "\n".join(broken)


def test_no_modules_import_one_another_in_a_circle():
    """An import inside a function or under TYPE_CHECKING counts: neither can be read without the other."""
    assert not circles(import_graph())


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == {frozenset({"b", "c"})}


def test_every_function_fits_a_screen():
    assert not long_functions(sources())


def test_a_long_function_is_found():
    body = "    pass\n" * LONGEST_FUNCTION
    assert long_functions({"a": f"def f():\n{body}", "b": "def g():\n    pass\n"}) == ["a:f (61)"]


@pytest.mark.parametrize("start", ["cli.play", "client.app"])
def test_nothing_that_playing_leads_to_imports_torch(start: str):
    """Lazy imports count; the PyTorch backend alone may, and what it leads to, since whoever asks for it has it."""
    graph = {**import_graph(), TORCH_BACKEND: set()}
    reached = {start, *reachable(graph, start)} - {TORCH_BACKEND}
    guilty = {
        imported.module
        for imported in all_imports()
        if imported.module in reached and is_in(imported.name, ("torch",))
    }
    assert not guilty


def test_a_walk_without_a_window_loads_no_torch_and_no_window(tmp_path: Path):
    walk = ["play", "town", "--headless", "--chunks", "1", "--frames", str(tmp_path / "walk.npz")]
    assert not loaded_libraries(walk) & {"torch", "pygame"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.block", "import engine"),
        ("model.block", "from engine.types import CameraTrack"),
        ("holodeck.place", "from model import camera"),
        ("engine.session.worker", "import torch"),
        ("engine.session.worker", "from model import world_model"),
        ("engine.backends.onnxruntime", "from model import config"),
        ("engine.session.worker", "def step():\n    from torch import nn"),
        ("engine.session.worker", "import onnxruntime as ort"),
        ("engine.session.worker", "from client import rig"),
        ("client.camera.rig", "import torch.nn"),
        ("client.camera.rig", "import pygame"),
        ("client.camera.rig", "def f():\n    import export.onnx"),
        ("client.camera.rig", "from cli import report"),
        ("cli.export", "import export.onnx"),
        ("cli.export", "from training import pocket"),
        ("export.onnx", "from training import loop"),
        ("training.loop", "from client import app"),
        ("training.loop", "import torch.distributed as dist"),
        ("model.block", "from torch.distributed import ProcessGroup"),
        ("evaluation.consistency", "from training import loop"),
        ("evaluation.consistency", "from model import world_model"),
        ("evaluation.consistency", "from export import quality"),
        ("engine.session.worker", "from evaluation import rollouts"),
        ("engine.files.recording", "import pickle"),
    ],
)
def test_a_broken_wall_is_found(module: str, source: str):
    assert any(broken_wall(imported) for imported in imports_of(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.session.worker", "from holodeck import get_place"),
        ("cli.export", "def run():\n    from export import onnx"),
        ("client.camera.rig", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        (
            "export.onnx",
            "from engine.files import bundle\nfrom model.config import ModelConfig\nimport torch",
        ),
        ("client.ui.menu", "import pygame"),
        ("engine.backends.torch", "from model import world_model"),
        ("model.config", "import modelling_tools"),
    ],
)
def test_an_open_door_is_not_a_broken_wall(module: str, source: str):
    assert not any(broken_wall(imported) for imported in imports_of(module, source))


def test_every_room_is_imported_from_this_checkout():
    for room in ROOMS:
        if (ROOT / room / "__init__.py").exists():
            origin = importlib.util.find_spec(room)
            assert origin is not None
            assert origin.origin is not None
            assert Path(origin.origin).resolve() == ROOT / room / "__init__.py"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["play", "--help"], ["train", "--help"], ["world", "list"], ["doctor", "--help"]],
)
def test_the_command_line_opens_without_heavy_libraries(arguments: list[str]):
    heavy = loaded_libraries(arguments)
    assert not heavy & {"torch", "pygame", "onnxruntime", "cv2", "av"}


def loaded_libraries(arguments: list[str]) -> set[str]:
    """Run the command line in a new process and return the top-level modules it imported."""
    program = (
        "import sys; from cli.app import run; status = run(sys.argv[1:]); "
        "print('LOADED', *{name.split('.')[0] for name in sys.modules}); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])
