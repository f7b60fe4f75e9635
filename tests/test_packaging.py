"""The wheel: it holds all that playing needs, nothing else, and plays where the checkout is out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from engine.files.world import World, list_worlds, write_world
from engine.machine.assets import worlds_dir

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"cli", "client", "engine", "evaluation", "export", "holodeck", "model", "training"}
LARGEST_WHEEL_BYTES = 45e6
"""Unpacked, nearly all of it bundle and worlds."""
LARGEST_LIBRARIES_BYTES = 500e6
"""What a fresh environment holds beside that."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the hatchling of this environment, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def unpacked_bytes(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def test_the_wheel_holds_the_rooms_and_the_assets_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert unpacked_bytes(wheel) < LARGEST_WHEEL_BYTES
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == ROOMS
    placed = sorted(name.partition(".data/data/")[2] for name in names if ".data/" in name)
    assert placed == ["share/applications/flaneur.desktop", "share/icons/hicolor/256x256/apps/flaneur.png"]
    played = [path for path in tracked_files("assets") if "checkpoints" not in path.parts]
    shipped = {f"engine/assets/{path.relative_to(ROOT / 'assets')}" for path in played}
    assert not any("checkpoints" in name for name in names)
    assert shipped
    assert shipped <= names
    modules = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert modules <= names
    assert "engine/memory/kernels.c" in names
    foreign = [
        name
        for name in names
        if "test" in Path(name).name or name.endswith((".pyc", ".so", ".flaneur", ".pt"))
    ]
    assert not foreign


def tracked_files(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*") if path.is_file()]


def test_the_base_install_asks_for_no_torch(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "flaneur = cli.app:main" in archive.read(entry_points).decode()
    requirements = metadata.get_all("Requires-Dist") or []
    base = [requirement for requirement in requirements if "extra ==" not in requirement]
    assert base
    assert not [line for line in base if line.startswith(("torch", "onnx>", "onnxscript", "diffusers"))]
    assert metadata["License-Expression"] == "Apache-2.0"


def test_an_installed_wheel_plays_out_of_reach_of_the_checkout(wheel: Path, toy_world: World, tmp_path: Path):
    # A wheel is a zip of what lands in site-packages: unpacked onto the path it is installed, without the
    # download that a fresh environment would need. The slow test below does that too.
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    place = place_world(toy_world, tmp_path)
    program = (
        "import sys, cli.app, engine, holodeck; print(cli.app.__file__, engine.__file__, file=sys.stderr); "
        "sys.exit(cli.app.run(sys.argv[1:]))"
    )
    played = subprocess.run(
        [sys.executable, "-c", program, *play_arguments(place)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert played.returncode == 0, played.stderr
    assert str(ROOT) not in played.stderr
    assert json.loads(played.stdout.splitlines()[-1])["num_chunks"] == 2


@pytest.mark.slow
def test_a_fresh_environment_installs_the_wheel_and_plays_without_torch(
    wheel: Path, toy_world: World, tmp_path: Path
):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    # Bytecode is a cache that fills with use; it is left out here as in the Makefile.
    install = [str(python), "-m", "pip", "install", "-q", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, timeout=900)
    assert subprocess.run([str(python), "-c", "import torch"], capture_output=True).returncode != 0
    size = sum(path.lstat().st_size for path in environment.rglob("*") if path.is_file())
    assert size - unpacked_bytes(wheel) < LARGEST_LIBRARIES_BYTES
    flaneur = str(environment / "bin" / "flaneur")
    for arguments in [play_arguments(place_world(toy_world, tmp_path)), *shipped_walks()]:
        played = subprocess.run(
            [flaneur, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert played.returncode == 0, played.stderr
        assert json.loads(played.stdout.splitlines()[-1])["num_chunks"] == 2


def place_world(toy_world: World, folder: Path) -> Path:
    """Write a world that the holodeck can draw."""
    from dataclasses import replace

    import holodeck

    path = folder / "place.world"
    write_world(
        path, replace(toy_world, info=toy_world.info.model_copy(update={"place": holodeck.place_names()[0]}))
    )
    return path


def play_arguments(world: Path) -> list[str]:
    return ["play", str(world), "--backend", "holodeck", "--headless", "--chunks", "2", "--json"]


def shipped_walks() -> list[list[str]]:
    return [
        ["play", entry.name, "--headless", "--chunks", "2", "--json"] for entry in list_worlds([worlds_dir()])
    ]
