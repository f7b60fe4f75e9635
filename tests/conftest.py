"""What tests share: a toy bundle and world with real recurrent state, and a player in the window.

onnx takes seconds to import and pygame a part of one, so only tests that need them pay for it.
"""

from __future__ import annotations

import os

# Tiny tensors are slower on two threads than on one, and far slower beside other work; torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import engine.files.world
from engine.files.bundle import Bundle, hash_file, open_bundle
from engine.files.world import World, WorldInfo
from engine.machine.assets import worlds_dir
from engine.memory.keyframes import Keyframe
from engine.memory.store import decode_keyframes

if TYPE_CHECKING:
    from client.setup.options import PlayOptions
    from tests.player import Player, VirtualPad

PRECISIONS = ("float32", "autocast", "bfloat16")

LONGEST_FIRST = (
    "test_pocket_run.py",
    "test_cluster.py",
    "test_export_onnx.py",
    "test_anchor.py",
    "test_export_engine.py",
    "test_refiner_export.py",
    "test_memory_plan.py",
    "test_pocket_stages.py",
    "test_stage_data.py",
    "test_eval_command.py",
    "test_recording_survives.py",
    "test_decoder_cost.py",
    "test_refiner_session.py",
    "test_soak.py",
)
"""Files that start first where processes share the tests, so that in the end none has minutes to do alone."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--precision",
        choices=PRECISIONS,
        help="what stages of training compute in wherever they would take what is fastest here; by default float32 or "
        "bfloat16, as the processor has it",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the order within each file."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def forced_precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--precision` choose in the place of a measurement."""
    name = request.config.getoption("--precision")
    if name is not None and request.node.get_closest_marker("measures_precision") is None:
        monkeypatch.setattr("training.throughput._fastest", lambda *_: (name, {}, ("forced by the test",)))


@pytest.fixture(scope="session", autouse=True)
def decoded_once() -> Iterator[None]:
    """Decompress the memory of each shipped world once a process: tests open them over a hundred times."""
    decoded: dict[str, list[Keyframe]] = {}

    def once(arrays: Mapping[str, NDArray[Any]], what: str, checked: bool = True) -> list[Keyframe]:
        if str(worlds_dir()) not in what:
            return decode_keyframes(arrays, what, checked)
        if what not in decoded:
            decoded[what] = decode_keyframes(arrays, what, checked=False)
        return list(decoded[what])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.files.world, "decode_keyframes", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def operators_parsed_once() -> Iterator[None]:
    """Let torch parse the sources of its ONNX operators once a process: it does for every graph, a third of an export."""
    if "export.onnx" not in sys.modules:
        yield
        return
    from torch.onnx._internal._lazy_import import onnxscript_apis  # pyright: ignore[reportPrivateImportUsage]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", cache(onnxscript_apis.get_torchlib_ops))
        yield


C, H, W, R, SPATIAL, TEXT_DIM = 4, 2, 3, 4, 8, 6
WEIGHTS_SHA256 = "ab" * 32
STATE = [
    {"name": "memory", "shape": [1, C, 1, H, W], "dtype": "float32"},
    {"name": "count", "shape": [1], "dtype": "int64"},
]
CACHES = [{"name": "tail", "shape": [1, C, 1, H, W], "dtype": "float32"}]


def _value(name: str, dtype: int, shape: list[int | str]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, dtype, shape)


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]
) -> None:
    import onnx
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _step_graph(path: Path, num_frames: int) -> None:
    """Every input moves the velocity, and the memory decays towards the latents and cameras it saw."""
    from onnx import TensorProto
    from onnx.helper import make_node as node

    nodes = [
        node("ReduceMean", ["c2w"], ["camera"], keepdims=0),
        node("ReduceMean", ["intrinsics"], ["lens"], keepdims=0),
        node("ReduceMean", ["timesteps"], ["level"], keepdims=0),
        node("Mul", ["level", "thousandth"], ["level_scaled"]),
        node("Unsqueeze", ["text_mask", "last_axis"], ["text_mask_column"]),
        node("Mul", ["text", "text_mask_column"], ["masked_text"]),
        node("ReduceMean", ["masked_text"], ["scene"], keepdims=0),
        node("Cast", ["start_frame"], ["position"], to=TensorProto.FLOAT),
        node("Mul", ["position", "hundredth"], ["place"]),
        node("Sum", ["camera", "lens", "level_scaled", "scene", "place"], ["sum"]),
        node("Mul", ["sum", "hundredth"], ["bias"]),
        node("MatMul", ["latents", "mix"], ["mixed"]),
        node("Add", ["mixed", "memory"], ["remembered"]),
        node("Add", ["remembered", "bias"], ["raw"]),
        node("Tanh", ["raw"], ["velocity"]),
        node("ReduceMean", ["latents", "time_axis"], ["mean_latent"], keepdims=1),
        node("Add", ["memory", "mean_latent"], ["kept"]),
        node("Add", ["kept", "bias"], ["moved"]),
        node("Mul", ["moved", "decay"], ["memory_out"]),
        node("Add", ["count", "one"], ["count_out"]),
    ]
    state = [1, C, 1, H, W]
    inputs = [
        _value("latents", TensorProto.FLOAT, [1, C, num_frames, H, W]),
        _value("timesteps", TensorProto.FLOAT, [1, num_frames]),
        _value("c2w", TensorProto.FLOAT, [1, num_frames * R, 4, 4]),
        _value("intrinsics", TensorProto.FLOAT, [1, num_frames * R, 4]),
        _value("start_frame", TensorProto.INT64, [1]),
        _value("text", TensorProto.FLOAT, [1, "L", TEXT_DIM]),
        _value("text_mask", TensorProto.FLOAT, [1, "L"]),
        _value("memory", TensorProto.FLOAT, [*state]),
        _value("count", TensorProto.INT64, [1]),
    ]
    outputs = [
        _value("velocity", TensorProto.FLOAT, [1, C, num_frames, H, W]),
        _value("memory_out", TensorProto.FLOAT, [*state]),
        _value("count_out", TensorProto.INT64, [1]),
    ]
    constants = {
        "mix": np.eye(W, dtype=np.float32) * 0.3,
        "decay": np.float32(0.7),
        "hundredth": np.float32(0.01),
        "thousandth": np.float32(0.001),
        "last_axis": np.array([2], np.int64),
        "time_axis": np.array([2], np.int64),
        "one": np.array([1], np.int64),
    }
    _save(path, nodes, inputs, outputs, constants)


def _decoder_graph(path: Path, spatial: int) -> None:
    """Three latent channels become blocks of colour that brighten; the cache adds an afterglow."""
    from onnx import TensorProto
    from onnx.helper import make_node as node

    nodes = [
        node("Mul", ["tail", "half"], ["glow"]),
        node("Add", ["latent", "glow"], ["tail_out"]),
        node("Slice", ["tail_out", "zero", "three", "one"], ["rgb"]),
        node("Transpose", ["rgb"], ["last"], perm=[2, 0, 3, 4, 1]),
        node("Reshape", ["last", "cells"], ["cell"]),
        node("Expand", ["cell", "blocks"], ["block"]),
        node("Reshape", ["block", "picture"], ["still"]),
        node("Mul", ["still", "ramp"], ["film"]),
        node("Add", ["film", "middle"], ["bright"]),
        node("Clip", ["bright", "black", "white"], ["clipped"]),
        node("Cast", ["clipped"], ["frames"], to=TensorProto.UINT8),
    ]
    state = [1, C, 1, H, W]
    inputs = [_value("latent", TensorProto.FLOAT, [*state]), _value("tail", TensorProto.FLOAT, [*state])]
    outputs = [
        _value("frames", TensorProto.UINT8, [R, H * spatial, W * spatial, 3]),
        _value("tail_out", TensorProto.FLOAT, [*state]),
    ]
    constants = {
        "half": np.float32(0.5),
        "zero": np.array([0], np.int64),
        "three": np.array([3], np.int64),
        "one": np.array([1], np.int64),
        "cells": np.array([H, 1, W, 1, 3], np.int64),
        "blocks": np.array([H, spatial, W, spatial, 3], np.int64),
        "picture": np.array([1, H * spatial, W * spatial, 3], np.int64),
        "ramp": np.linspace(20, 40, R, dtype=np.float32).reshape(R, 1, 1, 1),
        "middle": np.float32(128),
        "black": np.float32(0),
        "white": np.float32(255),
    }
    _save(path, nodes, inputs, outputs, constants)


def toy_spec(folder: Path, chunk_size: int, first_chunk_size: int, spatial: int = SPATIAL) -> dict[str, Any]:
    return {
        "format_version": 1,
        "name": "toy",
        "model": {"width": 1},
        "weights_sha256": WEIGHTS_SHA256,
        "latent_channels": C,
        "latent_height": H,
        "latent_width": W,
        "frame_height": H * spatial,
        "frame_width": W * spatial,
        "fps": 16,
        "temporal_stride": R,
        "spatial_stride": spatial,
        "chunk_size": chunk_size,
        "first_chunk_size": first_chunk_size,
        "timesteps": [1000, 960, 889, 727],
        "step_graphs": {str(size): f"step_{size}.onnx" for size in {chunk_size, first_chunk_size}},
        "decoder_graph": "decoder.onnx",
        "state": STATE,
        "decoder_caches": CACHES,
        "precision": {"step": "float32", "decoder": "float32"},
        "target": "cpu",
        "builder": "tests",
        "files": {file.name: hash_file(file) for file in folder.glob("*.onnx")},
        "text_dim": TEXT_DIM,
        "notes": "",
    }


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Build a toy bundle with the given chunk sizes and pixels per latent; one folder for each."""
    made: dict[tuple[int, int, int], Bundle] = {}

    def make(chunk_size: int = 1, first_chunk_size: int = 1, spatial: int = SPATIAL) -> Bundle:
        key = chunk_size, first_chunk_size, spatial
        if key not in made:
            folder = tmp_path_factory.mktemp("bundle")
            for size in {chunk_size, first_chunk_size}:
                _step_graph(folder / f"step_{size}.onnx", size)
            _decoder_graph(folder / "decoder.onnx", spatial)
            (folder / "bundle.json").write_text(json.dumps(toy_spec(folder, *key)))
            made[key] = open_bundle(folder)
        return made[key]

    return make


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run share, for what takes long to build."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def toy_bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle laid out like the pocket: one latent frame per chunk."""
    return make_bundle()


@pytest.fixture
def toy_world() -> World:
    """A world that fits the toy bundles; its start pose is turned and away from the origin."""
    rng = np.random.default_rng(7)
    c2w = np.array([[0, 0, 1, 2], [0, 1, 0, -1.6], [-1, 0, 0, 3], [0, 0, 0, 1]], np.float64)
    return World(
        WorldInfo(name="toy", title="A toy", licence="Apache-2.0", model=WEIGHTS_SHA256, caption="blocks"),
        rng.standard_normal((C, H, W), dtype=np.float32),
        rng.integers(0, 256, (H * SPATIAL, W * SPATIAL, 3), np.uint8),
        rng.standard_normal((5, TEXT_DIM), dtype=np.float32),
        np.array([1, 1, 1, 0, 0], np.float32),
        np.array([12, 12, 12, 8], np.float32),
        c2w,
    )


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the worlds of two holodeck places."""
    import holodeck
    from tests.player import make_world

    folder = tmp_path_factory.mktemp("worlds")
    for name in holodeck.place_names()[:2]:
        make_world(folder, name)
    return folder


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home folder, whatever this machine's user has set."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Player]]:
    """Open the window as often as is asked for; pictures go to `tmp_path / "pictures"`."""
    from tests.player import Player

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    players: list[Player] = []

    def start(options: PlayOptions, folders: list[Path]) -> Player:
        players.append(Player(options, folders, tmp_path / "pictures"))
        return players[-1]

    yield start
    for player in players:
        player.close()


@pytest.fixture
def player(play: Callable[..., Player], worlds: Path) -> Player:
    """A player whose walk is under way."""
    from client.screens.walk_screen import WalkScreen
    from client.setup.options import PlayOptions

    first = sorted(worlds.glob("*.world"))[0]
    player = play(PlayOptions(world=str(first), backend="holodeck"), [worlds])
    player.wait_for(WalkScreen)
    return player


@pytest.fixture
def pad(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualPad]:
    """A gamepad that is plugged in by its test, before or after the window opens."""
    from tests.player import VirtualPad

    # Without this SDL only lets a window hear a gamepad that a window manager gave the focus.
    monkeypatch.setenv("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
    pad = VirtualPad()
    yield pad
    pad.pull_out()
