from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.protocol import Backend, State
from engine.errors import BackendUnavailable, RolloutDiverged, SpecMismatch
from engine.files.bundle import Bundle
from engine.files.world import World, read_world
from engine.machine import assets
from engine.session.model_session import ModelSession
from engine.session.opening import open_session
from engine.session.protocol import Session, Snapshot
from engine.types import CameraTrack, FrameChunk


def make_track(session: Session, step: int) -> CameraTrack:
    """A curve that is different in every frame of every step."""
    frames = session.frames_per_chunk * step + 1 + np.arange(session.frames_per_chunk)
    c2w = np.tile(session.world.c2w, (len(frames), 1, 1))
    c2w[:, 0, 3] += 0.03 * frames
    c2w[:, 2, 3] += 0.001 * frames**2
    return CameraTrack(c2w, np.tile(session.world.intrinsics, (len(frames), 1)), latched_s=float(step))


def run(session: Session, first: int, num_chunks: int) -> list[FrameChunk]:
    return [session.step(make_track(session, step)) for step in range(first, first + num_chunks)]


def assert_same(left: list[FrameChunk], right: list[FrameChunk]) -> None:
    assert [chunk.latents_sha256 for chunk in left] == [chunk.latents_sha256 for chunk in right]
    assert [chunk.chunk_index for chunk in left] == [chunk.chunk_index for chunk in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)


class RecordingBackend(Backend):
    """Answers zeros, or what it is told to, and remembers what it was asked."""

    name = "recording"
    device = "none"

    def __init__(self, bundle: Bundle) -> None:
        self.spec = bundle.spec
        self.steps: list[tuple[dict[str, NDArray[Any]], int, bool]] = []
        self.decoded: list[NDArray[Any]] = []
        self.velocity = 0.0

    def new_state(self) -> State:
        return {"commits": np.zeros(1, np.int64)}

    def new_caches(self) -> State:
        return {"decoded": np.zeros(1, np.int64)}

    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        copied = {name: value.copy() for name, value in inputs.items()}
        self.steps.append((copied, int(state["commits"][0]), keep_state))
        kept = {"commits": state["commits"] + 1} if keep_state else state
        return np.full_like(inputs["latents"], self.velocity), kept

    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError("the bundle has no encoder")

    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        self.decoded.append(inputs["latent"])
        shape = (self.spec.temporal_stride, self.spec.frame_height, self.spec.frame_width, 3)
        frames = np.full(shape, caches["decoded"][0], np.uint8)
        return {"frames": frames}, {"decoded": caches["decoded"] + 1}

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        return dict(state)

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        return dict(arrays)

    def close(self) -> None:
        pass


@pytest.fixture(params=[(1, 1), (3, 4)], ids=["pocket", "sana-wm"])
def bundle(request: pytest.FixtureRequest, make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle(*request.param)


@pytest.fixture
def session(bundle: Bundle, toy_world: World) -> Session:
    opened = open_session(toy_world, bundle, keep_latents=True)
    opened.reset(3)
    return opened


def test_a_session_states_its_facts(session: Session, bundle: Bundle) -> None:
    assert (session.engine, session.backend) == ("toy", "onnxruntime")
    assert session.frame_size == (24, 16)
    assert session.fps == 16
    assert session.frames_per_chunk == 4 * bundle.spec.chunk_size
    assert session.seed == 3


def test_a_chunk_carries_its_frames_poses_and_times(session: Session) -> None:
    first, second = run(session, 0, 2)
    assert first.frames.shape == (session.frames_per_chunk, 16, 24, 3)
    assert first.frames.dtype == np.uint8
    np.testing.assert_array_equal(second.c2w, make_track(session, 1).c2w)
    times = second.times
    assert times.latched_s == 1.0
    assert (
        times.model_start_s <= times.denoised_s <= times.committed_s <= times.decode_start_s <= times.ready_s
    )
    assert times.render_ms == 0, "a model without a spatial memory"
    assert first.latents is not None
    assert first.latents.dtype == np.float32
    assert session.next_chunk_index == second.chunk_index + 1


def test_the_same_seed_and_track_give_the_same_bits(session: Session) -> None:
    chunks = run(session, 0, 4)
    session.reset(3)
    assert_same(run(session, 0, 4), chunks)


def test_another_session_gives_the_same_bits(session: Session, bundle: Bundle, toy_world: World) -> None:
    other = open_session(toy_world, bundle)
    other.reset(3)
    assert_same(run(other, 0, 3), run(session, 0, 3))


def test_another_seed_or_track_gives_another_world(session: Session) -> None:
    first = run(session, 0, 2)
    session.reset(4)
    assert run(session, 0, 1)[0].latents_sha256 != first[0].latents_sha256
    session.reset(3)
    assert run(session, 7, 1)[0].latents_sha256 != first[0].latents_sha256


def test_a_restored_snapshot_continues_bit_for_bit(session: Session) -> None:
    run(session, 0, 2)
    snapshot = session.snapshot()
    chunks = run(session, 2, 3)
    session.restore(snapshot)
    assert session.next_chunk_index == snapshot.chunk_index
    assert_same(run(session, 2, 3), chunks)


def test_a_snapshot_outlives_branches_and_resets(session: Session) -> None:
    run(session, 0, 2)
    snapshot = session.snapshot()
    before = {name: array.copy() for name, array in snapshot.arrays.items()}
    chunks = run(session, 2, 2)
    run(session, 40, 3)
    session.reset(9)
    run(session, 0, 1)
    for name, array in snapshot.arrays.items():
        np.testing.assert_array_equal(array, before[name])
    session.restore(snapshot)
    assert session.seed == 3
    assert_same(run(session, 2, 2), chunks)


def test_a_snapshot_owns_its_memory_so_that_dropping_it_frees_it(session: Session) -> None:
    session.keep_snapshots = True
    snapshot = run(session, 1, 2)[-1].snapshot
    assert snapshot is not None
    assert all(array.flags.owndata for array in snapshot.arrays.values())


def test_a_snapshot_restores_in_another_session_of_the_same_world(
    session: Session, bundle: Bundle, toy_world: World
) -> None:
    run(session, 0, 2)
    snapshot = session.snapshot()
    other = open_session(toy_world, bundle)
    other.restore(snapshot)
    assert_same(run(other, 2, 2), run(session, 2, 2))


def test_a_snapshot_from_elsewhere_is_refused(session: Session) -> None:
    snapshot = session.snapshot()
    foreign = Snapshot("elsewhere", 0, 1, snapshot.first_c2w, snapshot.arrays)
    with pytest.raises(SpecMismatch, match="another world or engine"):
        session.restore(foreign)


def test_a_snapshot_waits_for_the_decoder(session: Session) -> None:
    chunk = session.denoise(make_track(session, 0))
    with pytest.raises(ValueError, match="not decoded yet"):
        session.snapshot()
    session.decode(chunk)
    session.snapshot()


def test_decoding_later_than_denoising_changes_nothing(session: Session) -> None:
    expected = run(session, 0, 3)
    session.reset(3)
    latents = [session.denoise(make_track(session, step)) for step in range(3)]
    assert_same([session.decode(chunk) for chunk in latents], expected)


def test_chunks_decode_in_order_only(session: Session) -> None:
    session.denoise(make_track(session, 0))
    late = session.denoise(make_track(session, 1))
    with pytest.raises(ValueError, match="cannot be decoded while"):
        session.decode(late)


def test_a_track_of_the_wrong_length_is_refused(session: Session) -> None:
    track = make_track(session, 0)
    with pytest.raises(ValueError, match="a chunk takes"):
        session.step(CameraTrack(track.c2w[:-1], track.intrinsics[:-1]))


def test_a_pose_that_is_no_number_stops_the_rollout(session: Session) -> None:
    track = make_track(session, 0)
    track.c2w[-1, 0, 3] = np.nan
    with pytest.raises(RolloutDiverged, match="reset"):
        session.step(track)
    session.reset(3)
    session.step(make_track(session, 0))


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_out_of_range_is_refused(session: Session, seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        session.reset(seed)


def test_the_state_stays_the_same_size(session: Session) -> None:
    run(session, 0, 1)
    num_bytes = session.snapshot().num_bytes
    run(session, 1, 20)
    assert session.snapshot().num_bytes == num_bytes


def test_the_pocket_commits_the_worlds_latent_with_a_still_camera(
    toy_bundle: Bundle, toy_world: World
) -> None:
    backend = RecordingBackend(toy_bundle)
    session = ModelSession(toy_bundle, toy_world, backend)
    session.reset(0)
    ((inputs, commits, kept),) = backend.steps
    assert kept
    assert commits == 0
    assert inputs["start_frame"] == 0
    np.testing.assert_array_equal(inputs["timesteps"], np.zeros((1, 1)))
    np.testing.assert_array_equal(inputs["latents"][0, :, 0], toy_world.first_latent)
    np.testing.assert_array_equal(inputs["c2w"], np.tile(np.eye(4), (1, 4, 1, 1)))
    np.testing.assert_array_equal(inputs["intrinsics"], np.tile(toy_world.intrinsics, (1, 4, 1)))
    np.testing.assert_array_equal(backend.decoded[0][0, :, 0], toy_world.first_latent)
    assert session.next_chunk_index == 1


def test_a_step_denoises_on_the_old_state_and_commits_once(toy_bundle: Bundle, toy_world: World) -> None:
    backend = RecordingBackend(toy_bundle)
    session = ModelSession(toy_bundle, toy_world, backend)
    session.reset(0)
    backend.steps.clear()
    session.step(make_track(session, 0))
    session.step(make_track(session, 1))
    levels = [float(inputs["timesteps"][0, 0]) for inputs, _, _ in backend.steps]
    assert levels == [1000, 960, 889, 727, 0] * 2
    assert [commits for _, commits, _ in backend.steps] == [1] * 5 + [2] * 5
    assert [kept for _, _, kept in backend.steps] == ([False] * 4 + [True]) * 2
    assert [int(inputs["start_frame"][0]) for inputs, _, _ in backend.steps] == [1] * 5 + [2] * 5


def test_poses_reach_the_model_relative_to_the_start(toy_bundle: Bundle, toy_world: World) -> None:
    backend = RecordingBackend(toy_bundle)
    session = ModelSession(toy_bundle, toy_world, backend)
    session.reset(0)
    backend.steps.clear()
    track = make_track(session, 0)
    session.step(track)
    seen = backend.steps[0][0]["c2w"][0]
    assert seen.dtype == np.float32
    # float32 rounding of poses within a metre.
    np.testing.assert_allclose(toy_world.c2w @ seen, track.c2w, atol=1e-6)


def test_the_first_chunk_of_the_full_model_opens_with_the_worlds_latent(
    make_bundle: Callable[..., Bundle], toy_world: World
) -> None:
    bundle = make_bundle(3, 4)
    backend = RecordingBackend(bundle)
    session = ModelSession(bundle, toy_world, backend)
    session.reset(0)
    assert backend.steps == []
    track = make_track(session, 0)
    first = session.step(track)
    assert first.chunk_index == 0
    for inputs, _, kept in backend.steps:
        np.testing.assert_array_equal(inputs["latents"][0, :, 0], toy_world.first_latent)
        assert inputs["timesteps"][0, 0] == 0
        assert (inputs["timesteps"][0, 1:] > 0).all() != kept
    seen = toy_world.c2w @ backend.steps[0][0]["c2w"][0].reshape(4, 4, 4, 4)
    frames = np.concatenate([toy_world.c2w[None], track.c2w])
    # float32 rounding of poses within a metre.
    np.testing.assert_allclose(seen[0], frames[0:4], atol=1e-6)
    np.testing.assert_allclose(seen[1], frames[1:5], atol=1e-6)
    np.testing.assert_allclose(seen[3], frames[9:13], atol=1e-6)
    # The reset decoded latent 0, so the frames begin with latent 1.
    assert first.frames[:, 0, 0, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    session.step(make_track(session, 1))
    assert int(backend.steps[-1][0]["start_frame"][0]) == 4


def test_a_world_for_other_weights_is_refused(toy_bundle: Bundle, toy_world: World) -> None:
    stranger = replace(toy_world, info=toy_world.info.model_copy(update={"model": "cd" * 32}))
    with pytest.raises(SpecMismatch, match="another model"):
        open_session(stranger, toy_bundle)
    with pytest.raises(BackendUnavailable, match="no bundle here fits"):
        open_session(stranger)


@pytest.mark.parametrize(
    ("name", "shape"), [("first_latent", (4, 2, 2)), ("first_frame", (8, 24, 3)), ("text", (5, 7))]
)
def test_a_world_of_another_size_is_refused(
    toy_bundle: Bundle, toy_world: World, name: str, shape: tuple[int, ...]
) -> None:
    dtype = getattr(toy_world, name).dtype
    with pytest.raises(SpecMismatch, match=name.replace("_", " ")):
        open_session(replace(toy_world, **{name: np.zeros(shape, dtype)}), toy_bundle)


def test_tensorrt_says_that_it_is_not_there(toy_bundle: Bundle, toy_world: World) -> None:
    with pytest.raises(BackendUnavailable, match="--backend onnxruntime"):
        open_session(toy_world, toy_bundle, "tensorrt")


def test_a_missing_onnxruntime_is_one_sentence(
    toy_bundle: Bundle, toy_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "engine.backends.onnxruntime", None)
    with pytest.raises(BackendUnavailable, match="install it"):
        open_session(toy_world, toy_bundle)


def test_the_pocket_makes_the_same_on_any_number_of_threads() -> None:
    world = read_world(assets.worlds_dir() / "town.world", checked=False)
    walks = []
    for denoise_threads, decode_threads in ((1, 1), (3, 2)):
        session = open_session(world, denoise_threads=denoise_threads, decode_threads=decode_threads)
        session.reset(0)
        walks.append(run(session, 0, 3))
        session.close()
    assert_same(*walks)
    assert all(0 < chunk.times.render_ms < chunk.times.denoise_ms for chunk in walks[0])


def open_and_step(bundle: Bundle) -> None:
    """Open a bundle and wait for its step graph, as the first step does."""
    backend, spec = OnnxRuntimeBackend(bundle, 1, 1), bundle.spec
    shape = (1, spec.latent_channels, spec.chunk_size, spec.latent_height, spec.latent_width)
    backend.run_step({"latents": np.zeros(shape, np.float32)}, {}, keep_state=False)


def test_a_graph_that_breaks_its_bundles_promise_is_refused(toy_bundle: Bundle) -> None:
    renamed = toy_bundle.spec.state[0].model_copy(update={"name": "other"})
    spec = toy_bundle.spec.model_copy(update={"state": (renamed, toy_bundle.spec.state[1])})
    with pytest.raises(SpecMismatch, match="unexpected input memory"):
        open_and_step(replace(toy_bundle, spec=spec))
    reshaped = toy_bundle.spec.state[0].model_copy(update={"shape": (1, 4, 1, 2, 9)})
    spec = toy_bundle.spec.model_copy(update={"state": (reshaped, toy_bundle.spec.state[1])})
    with pytest.raises(SpecMismatch, match="promises memory"):
        open_and_step(replace(toy_bundle, spec=spec))


def test_a_graph_that_is_no_graph_is_one_sentence(toy_bundle: Bundle, tmp_path: Any) -> None:
    for file in toy_bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(b"junk")
    with pytest.raises(SpecMismatch, match="cannot load") as caught:
        OnnxRuntimeBackend(replace(toy_bundle, path=tmp_path), 1, 1)
    assert "\n" not in str(caught.value)


def test_a_step_graph_is_refused_when_the_first_step_waits_for_it(toy_bundle: Bundle, tmp_path: Any) -> None:
    for file in toy_bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in toy_bundle.spec.step_graphs.values():
        (tmp_path / name).write_bytes(b"junk")
    broken = replace(toy_bundle, path=tmp_path)
    with pytest.raises(SpecMismatch, match="cannot load"):
        open_and_step(broken)
    OnnxRuntimeBackend(broken, 1, 1).close()


def test_a_graph_that_cannot_run_is_one_sentence(bundle: Bundle) -> None:
    backend = OnnxRuntimeBackend(bundle, 1, 1)
    with pytest.raises(SpecMismatch, match="cannot run a graph of the bundle") as caught:
        backend.run_decoder({"latent": np.zeros((1, 1, 1, 1, 1), np.float32)}, backend.new_caches())
    assert "\n" not in str(caught.value)
