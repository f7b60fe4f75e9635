"""PyTorch as a backend: equal to ONNX Runtime on the pocket, and released weights played as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from cli.app import run as flaneur
from client.screens.walk_screen import WalkScreen
from client.setup.options import PlayOptions
from engine.backends.providers import made_up_inputs
from engine.backends.torch import TorchBackend, TorchOptions, bundle_model, released_model
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import Bundle
from engine.files.world import read_world, write_world
from engine.machine import assets
from engine.machine.bench import curve
from engine.session.model_session import ModelSession
from engine.session.opening import EngineRequest, check_request, open_session
from engine.session.protocol import Session
from engine.types import CameraTrack, FrameChunk
from model.conditioning import Conditioning
from model.released import open_network
from model.rollout import RolloutState
from tests.releases import CONFIG, world_for, write_release

if TYPE_CHECKING:
    from tests.player import Player

TOLERANCE = 1e-4
"""On latents, state (of order 10) and inverse depth, float32 on both sides; measured: 1.2e-5, 6.7e-5 and 2.2e-7."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of a small random SANA-WM as released, and the hash of its weights."""
    folder = tmp_path_factory.mktemp("release")
    return folder, write_release(folder)


def walk(session: Session, num_chunks: int, seed: int = 3) -> list[FrameChunk]:
    session.keep_snapshots = True
    session.reset(seed)
    size = session.frames_per_chunk
    track = curve(session.world, 1 + num_chunks * size)
    starts = range(1, 1 + num_chunks * size, size)
    return [
        session.step(CameraTrack(track.c2w[i : i + size], track.intrinsics[i : i + size])) for i in starts
    ]


@pytest.mark.parametrize("num_chunks", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_the_pocket_is_the_same_as_in_onnx_runtime(num_chunks: int):
    world = read_world(assets.worlds_dir() / "town.world")
    ours, theirs = (
        walk(open_session(world, backend=backend, denoise_threads=1, keep_latents=True), num_chunks)
        for backend in ("torch", "onnxruntime")
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.latents is not None
        assert b.latents is not None
        assert a.snapshot is not None
        assert b.snapshot is not None
        assert a.inverse_depth is not None
        assert b.inverse_depth is not None
        np.testing.assert_allclose(a.latents, b.latents, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(a.inverse_depth, b.inverse_depth, rtol=0, atol=TOLERANCE)
        # A value on the edge between two bytes may fall on either side.
        assert np.abs(a.frames.astype(int) - b.frames).max() <= 1
        assert a.snapshot.arrays.keys() == b.snapshot.arrays.keys()
        for name, array in a.snapshot.arrays.items():
            # The decoder's features reach 50, where what a sum is rounded by is a hundred times that of latents.
            expected = b.snapshot.arrays[name]
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=TOLERANCE, err_msg=name)


def test_released_weights_play_as_the_model_alone_does(release: tuple[Path, str]):
    folder, weights = release
    world = world_for(weights)
    session = open_session(world, weights=folder, denoise_threads=1, keep_latents=True)
    assert session.backend == "torch"
    assert session.frame_size == (CONFIG.frame_width, CONFIG.frame_height)
    chunks = walk(session, 3)
    assert chunks[0].frames.shape == (24, 64, 96, 3)
    network = open_network(folder / "sana_dit" / "model.pt")
    assert network.config == replace(CONFIG, frame_height=704, frame_width=1280)
    first = chunks[0].latents
    assert first is not None
    np.testing.assert_array_equal(first[:, 0], world.first_latent)
    assert chunks[0].snapshot is not None
    assert not any(np.isnan(array).any() for array in chunks[-1].snapshot.arrays.values())  # type: ignore[union-attr]


def test_a_walk_of_released_weights_goes_on_from_a_snapshot(release: tuple[Path, str]):
    folder, weights = release
    session = open_session(world_for(weights), weights=folder, denoise_threads=1)
    chunks = walk(session, 3)
    assert chunks[0].snapshot is not None
    session.restore(chunks[0].snapshot)
    size = session.frames_per_chunk
    track = curve(session.world, 1 + 3 * size)
    again = session.step(
        CameraTrack(track.c2w[1 + size : 1 + 2 * size], track.intrinsics[1 + size : 1 + 2 * size])
    )
    assert again.latents_sha256 == chunks[1].latents_sha256
    np.testing.assert_array_equal(again.frames, chunks[1].frames)


def test_what_leaves_a_session_is_plain(release: tuple[Path, str]):
    """A session may come to stand on another machine, so nothing of a device crosses its wall."""
    folder, weights = release
    chunk = walk(open_session(world_for(weights), weights=folder, denoise_threads=1, keep_latents=True), 1)[0]
    assert chunk.snapshot is not None
    seen = list(parts_of(chunk))
    assert {type(part) for part in seen} <= {np.ndarray, int, float, str, bool, type(None)}
    assert sum(isinstance(part, np.ndarray) for part in seen) > len(chunk.snapshot.arrays)


def parts_of(value: object) -> Iterator[object]:
    """Yield what a value is made of, through dataclasses, mappings and sequences."""
    if is_dataclass(value):
        for field in fields(value):
            yield from parts_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from parts_of(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from parts_of(part)
    else:
        yield value


def test_captured_passes_give_the_same_walk(release: tuple[Path, str]):
    """On a CPU a pass is run again in the place of a replay: what is copied to fixed addresses is the same."""
    folder, weights = release
    world = world_for(weights)
    walks = []
    for options in (TorchOptions("cpu"), TorchOptions("cpu", graphs=True)):
        model = released_model(folder, world.first_latent.shape[1:])
        session = ModelSession(model, world, TorchBackend(model, options), keep_latents=True)
        walks.append(walk(session, 4))
        # Back to an earlier state: the captured pass must not keep the later one.
        assert walks[-1][0].snapshot is not None
        session.restore(walks[-1][0].snapshot)
        size = session.frames_per_chunk
        track = curve(session.world, 1 + 2 * size)
        again = CameraTrack(track.c2w[1 + size :], track.intrinsics[1 + size :])
        walks[-1].append(session.step(again))
    assert [chunk.latents_sha256 for chunk in walks[0]] == [chunk.latents_sha256 for chunk in walks[1]]
    assert walks[1][-1].latents_sha256 == walks[1][1].latents_sha256


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_full(release: tuple[Path, str], dtype: str):
    """As on a GPU; latents are of order 1, and four steps add up what each rounds."""
    folder, weights = release
    world = world_for(weights)
    latents = []
    for options in (TorchOptions("cpu"), TorchOptions("cpu", dtype)):
        model = released_model(folder, world.first_latent.shape[1:])
        session = ModelSession(model, world, TorchBackend(model, options), keep_latents=True)
        latents.append(walk(session, 2)[-1].latents)
    assert latents[0] is not None
    error = np.abs(latents[0] - latents[1])
    assert 0 < error.mean() < 0.05


def test_state_kept_in_half_precision_changes_nothing(release: tuple[Path, str]):
    """The network rounds caches and histories where it reads them, so a float32 state gives the same velocities."""
    model = released_model(release[0], (2, 3))
    backend = TorchBackend(model, TorchOptions("cpu", "bfloat16"))
    network = model.network
    kept, full = backend.new_state(), RolloutState.zeros(network.config)
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16, torch.float32}
    for size in (4, 3, 3, 3):
        inputs = made_up_inputs(model.spec, size)
        ours, kept = backend.run_step(inputs, kept, keep_state=True)
        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        latents, timesteps = given.pop("latents"), given.pop("timesteps")
        with torch.inference_mode():
            theirs, full = network.step(latents, timesteps, Conditioning(**given), full)
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_released_weights_play_in_the_window(
    release: tuple[Path, str], play: Callable[..., Player], tmp_path: Path
):
    folder, weights = release
    write_world(tmp_path / "harbour.world", world_for(weights))
    options = PlayOptions(
        world=str(tmp_path / "harbour.world"), engine="sana-wm", backend="torch", weights=folder
    )
    player = play(options, [tmp_path])
    player.wait_for(WalkScreen)
    player.frames_go_by(30)
    assert player.walk.walk.session.backend == "torch"


def test_released_weights_are_played_from_the_command_line(
    release: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, weights = release
    world = tmp_path / "harbour.world"
    write_world(world, world_for(weights))
    arguments = ["play", world, "--engine", "sana-wm", "--weights", folder, "--backend", "torch"]
    assert flaneur([*map(str, arguments), "--headless", "--chunks", "1", "--json"]) == 0
    assert '"backend": "torch"' in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (EngineRequest(engine="sana-wm"), "--weights"),
        (EngineRequest(weights=Path("nowhere")), "no folder"),
        (EngineRequest(weights=Path(), engine="pocket"), "--engine names pocket"),
        (EngineRequest(weights=Path(), backend="onnxruntime"), "--backend torch"),
        (EngineRequest(weights=Path(), backend="holodeck"), "takes no --weights"),
        (EngineRequest(provider="openvino", backend="torch"), "ONNX Runtime's"),
    ],
)
def test_what_does_not_go_together_is_refused(request_: EngineRequest, words: str):
    with pytest.raises(ValueError, match=words):
        check_request(request_)


def test_a_folder_without_a_network_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no network"):
        released_model(tmp_path, (2, 3))


def test_a_bundle_without_its_checkpoint_says_what_to_do(toy_bundle: Bundle):
    with pytest.raises(BackendUnavailable, match="has no checkpoint"):
        bundle_model(toy_bundle)


def test_another_models_checkpoint_is_not_played():
    bundle = assets.find_bundle("pocket")
    other = replace(bundle, spec=bundle.spec.model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(SpecMismatch, match="was not exported from"):
        bundle_model(other)


def test_a_device_that_is_not_here_is_refused(release: tuple[Path, str]):
    model = released_model(release[0], (2, 3))
    with pytest.raises(BackendUnavailable, match="no device"):
        TorchBackend(model, TorchOptions("cuda:7" if not torch.cuda.is_available() else "xpu"))
