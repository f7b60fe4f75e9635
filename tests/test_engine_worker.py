from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError, RolloutDiverged
from engine.files.world import World
from engine.session.opening import open_session
from engine.session.protocol import MAX_IN_FLIGHT, Session, Snapshot
from engine.session.worker import Worker
from engine.types import CameraTrack, ChunkTimes, FrameChunk, LatentChunk

WAIT_S = 10.0
"""Bound on every wait for another thread; reached only when a test is about to fail."""
SETTLE_S = 0.05
"""How long to watch for what must not happen."""


class GatedSession(Session):
    """Makes a chunk only when told to; frames hold the seed, so that rollouts can be told apart."""

    frames_per_chunk = 1
    fps = 16.0

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.denoise_gate = threading.Semaphore(0)
        self.decode_gate = threading.Semaphore(0)
        self.denoising = threading.Semaphore(0)
        self.decoding = threading.Semaphore(0)
        self.closed = threading.Event()
        self.threads: dict[str, set[str]] = {
            "denoise": set(),
            "decode": set(),
            "reset": set(),
            "close": set(),
        }
        self.denoise_error: Exception | None = None
        self.decode_error: Exception | None = None
        self.reset_error: Exception | None = None

    def open_gates(self, num_chunks: int = 1000) -> None:
        self.denoise_gate.release(num_chunks)
        self.decode_gate.release(num_chunks)

    def reset(self, seed: int) -> None:
        self.threads["reset"].add(threading.current_thread().name)
        if self.reset_error is not None:
            raise self.reset_error
        self._seed = seed
        self._next_denoised = self._next_decoded = 0

    def denoise(self, track: CameraTrack) -> LatentChunk:
        self.threads["denoise"].add(threading.current_thread().name)
        self.denoising.release()
        assert self.denoise_gate.acquire(timeout=WAIT_S)
        if self.denoise_error is not None:
            raise self.denoise_error
        index = self._next_denoised
        self._next_denoised += 1
        return LatentChunk(index, index, np.zeros((1, 1, 1, 1), np.float32), f"{self._seed}.{index}", track)

    def decode(self, chunk: LatentChunk) -> FrameChunk:
        self.threads["decode"].add(threading.current_thread().name)
        self._check_order(chunk)
        self.decoding.release()
        assert self.decode_gate.acquire(timeout=WAIT_S)
        if self.decode_error is not None:
            raise self.decode_error
        self._next_decoded = chunk.chunk_index + 1
        frames = np.full((1, 1, 1, 3), self._seed, np.uint8)
        times = ChunkTimes(chunk.track.latched_s, 0, 0, 0, 0, 0)
        return FrameChunk(chunk.chunk_index, frames, chunk.track, times, chunk.sha256)

    def snapshot(self) -> Snapshot:
        self._check_idle()
        return Snapshot("gated", self._seed, self._next_denoised, np.eye(4), {})

    def restore(self, snapshot: Snapshot) -> None:
        self._seed = snapshot.seed
        self._next_denoised = self._next_decoded = snapshot.chunk_index

    def close(self) -> None:
        self.threads["close"].add(threading.current_thread().name)
        self.closed.set()


class Planner:
    """Puts the intent, a number, into the pose."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, int]] = []

    def __call__(self, intent: float, chunk_index: int) -> CameraTrack:
        self.calls.append((intent, chunk_index))
        return CameraTrack(np.full((1, 4, 4), intent), np.zeros((1, 4), np.float32))


class LatestWins:
    """Keeps what was posted last, and gives it to every chunk until the next post."""

    def __init__(self, intent: float) -> None:
        self._intent = intent

    def post(self, intent: float) -> None:
        self._intent = intent

    def take(self) -> float:
        return self._intent

    def let_go(self) -> None:
        pass

    def forget(self) -> None:
        pass


class Adding(LatestWins):
    """Adds up what is posted until it is taken."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def post(self, intent: float) -> None:
        self._intent += intent

    def take(self) -> float:
        taken, self._intent = self._intent, 0.0
        return taken

    def let_go(self) -> None:
        self._intent = 0.0

    forget = let_go


@pytest.fixture
def session(toy_world: World) -> GatedSession:
    return GatedSession(toy_world)


@pytest.fixture
def planner() -> Planner:
    return Planner()


@pytest.fixture
def start(session: GatedSession, planner: Planner) -> Iterator[Callable[..., Worker[float]]]:
    """Start a worker, and check in the end that none of its threads is left."""
    workers: list[Worker[float]] = []

    def make(num_requests: int = MAX_IN_FLIGHT, **options: Any) -> Worker[float]:
        worker = Worker(session, planner, options.pop("intents", LatestWins(0.0)), **options)
        workers.append(worker)
        for _ in range(num_requests):
            worker.request()
        return worker

    yield make
    session.open_gates()
    for worker in workers:
        assert worker.close(WAIT_S)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flaneur")]


def take(worker: Worker[float]) -> FrameChunk:
    """Request one more chunk and wait for the next."""
    worker.request()
    chunk = worker.poll(WAIT_S)
    assert chunk is not None
    return chunk


def test_chunks_arrive_in_order(start: Callable[..., Worker[float]], session: GatedSession) -> None:
    worker = start(seed=5)
    session.open_gates()
    chunks = [take(worker) for _ in range(20)]
    assert [chunk.chunk_index for chunk in chunks] == list(range(20))
    assert {chunk.latents_sha256.split(".")[0] for chunk in chunks} == {"5"}


def test_polling_an_empty_worker_returns_at_once(start: Callable[..., Worker[float]]) -> None:
    assert start().poll() is None


def test_the_intent_is_latched_after_the_wait_for_room(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start()
    session.open_gates()
    for _ in range(MAX_IN_FLIGHT):
        assert session.denoising.acquire(timeout=WAIT_S)
    # Both places are taken, so the third chunk waits, and must be planned by the last thing posted meanwhile.
    for intent in (1.0, 2.0, 3.0):
        worker.post(intent)
    take(worker)
    assert session.denoising.acquire(timeout=WAIT_S)
    assert planner.calls[2] == (3.0, 2)


def test_a_held_intent_stays(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start(0)
    session.open_gates()
    worker.post(4.0)
    for _ in range(3):
        take(worker)
    assert [intent for intent, _ in planner.calls] == [4.0] * 3


def test_movement_adds_up_until_it_is_latched_and_is_used_once(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start(0, intents=Adding())
    session.open_gates()
    worker.post(1.0)
    worker.post(2.0)
    for _ in range(2):
        take(worker)
    worker.post(5.0)
    take(worker)
    assert [intent for intent, _ in planner.calls] == [3.0, 0.0, 5.0]


def test_a_touch_that_a_pause_came_before_is_of_no_later_chunk(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start(0, intents=Adding())
    session.open_gates()
    worker.post(1.0)
    worker.pause()
    worker.resume()
    take(worker)
    assert [intent for intent, _ in planner.calls] == [0.0]


def test_the_track_says_when_its_intent_was_posted(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    now_s = [10.0]
    worker = start(0, clock=lambda: now_s[0])
    session.open_gates()
    now_s[0] = 11.0
    worker.post(1.0)
    now_s[0] = 12.0
    assert take(worker).times.latched_s == 11.0


def test_no_more_chunks_are_made_than_there_is_room_for(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start()
    session.open_gates()
    for _ in range(MAX_IN_FLIGHT):
        assert session.denoising.acquire(timeout=WAIT_S)
        assert session.decoding.acquire(timeout=WAIT_S)
    worker.request()
    assert not session.denoising.acquire(timeout=SETTLE_S)
    take(worker)
    assert session.denoising.acquire(timeout=WAIT_S)


def test_nothing_is_made_without_a_request(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start(0)
    session.open_gates()
    assert not session.denoising.acquire(timeout=SETTLE_S)
    take(worker)
    assert session.denoising.acquire(timeout=WAIT_S)
    assert not session.denoising.acquire(timeout=SETTLE_S)
    assert len(planner.calls) == 1


def test_decoding_overlaps_denoising(start: Callable[..., Worker[float]], session: GatedSession) -> None:
    start()
    session.denoise_gate.release()
    assert session.decoding.acquire(timeout=WAIT_S)
    assert session.denoising.acquire(timeout=WAIT_S)
    # The first chunk still sits in the decoder, and the second one is already being denoised.
    assert session.denoising.acquire(timeout=WAIT_S)


def test_each_kind_of_work_keeps_to_its_thread(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start()
    session.open_gates()
    take(worker)
    worker.reset(1).result(WAIT_S)
    assert worker.close(WAIT_S)
    assert session.threads == {
        "denoise": {"flaneur-engine"},
        "decode": {"flaneur-decoder"},
        "reset": {"flaneur-engine"},
        "close": {"flaneur-engine"},
    }


def test_a_reset_drops_chunks_waiting_and_in_the_making(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start(seed=1)
    session.denoise_gate.release(2)
    session.decode_gate.release(1)
    for _ in range(MAX_IN_FLIGHT):
        assert session.decoding.acquire(timeout=WAIT_S)
    # Chunk 0 waits to be polled, chunk 1 is in the decoder.
    worker.reset(2)
    assert worker.poll() is None
    session.open_gates()
    chunk = take(worker)
    assert chunk.latents_sha256 == "2.0"


def test_a_reset_while_denoising_drops_that_chunk(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start(seed=1)
    assert session.denoising.acquire(timeout=WAIT_S)
    worker.reset(2)
    session.open_gates()
    assert take(worker).latents_sha256 == "2.0"


def test_a_request_made_after_a_reset_is_not_lost_to_the_old_rollout(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start(0)
    worker.request()
    assert session.denoising.acquire(timeout=WAIT_S)
    worker.reset(2)
    worker.post(8.0)
    worker.request()
    session.open_gates()
    chunk = worker.poll(WAIT_S)
    assert chunk is not None
    assert chunk.latents_sha256 == "2.0"
    assert planner.calls[-1] == (8.0, 0)


def test_then_runs_before_the_next_plan(
    start: Callable[..., Worker[float]], session: GatedSession, planner: Planner
) -> None:
    worker = start()
    session.open_gates()
    take(worker)
    worker.reset(3, then=planner.calls.clear).result(WAIT_S)
    take(worker)
    assert planner.calls[0] == (0.0, 0)


def test_restoring_continues_from_the_snapshot(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start(seed=2)
    session.open_gates()
    take(worker)
    worker.restore(Snapshot("gated", 1, 4, np.eye(4), {}))
    assert take(worker).latents_sha256 == "1.4"


def test_a_paused_worker_starts_nothing_but_takes_commands(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start(0)
    worker.pause()
    session.open_gates()
    worker.reset(1).result(WAIT_S)
    worker.request()
    assert not session.denoising.acquire(timeout=SETTLE_S)
    worker.resume()
    take(worker)


def test_a_denoising_error_reaches_the_client_until_a_reset(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    session.denoise_error = RolloutDiverged("fell apart")
    worker = start()
    session.open_gates()
    for _ in range(2):
        with pytest.raises(RolloutDiverged, match="fell apart"):
            worker.poll(WAIT_S)
    session.denoise_error = None
    worker.reset(0)
    take(worker)


def start_to_fall(start: Callable[..., Worker[float]], session: GatedSession) -> Worker[float]:
    """Start a worker whose first chunk waits to be decoded, and whose second falls apart once it may be denoised."""
    worker = start()
    session.denoise_gate.release()
    for _ in range(2):
        assert session.denoising.acquire(timeout=WAIT_S)
    session.denoise_error = RolloutDiverged("fell apart")
    return worker


def test_chunks_made_before_an_error_are_still_shown(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start_to_fall(start, session)
    session.decode_gate.release()
    take(worker)
    session.denoise_gate.release()
    with pytest.raises(RolloutDiverged):
        worker.poll(WAIT_S)


def test_an_error_waits_for_the_chunk_that_is_being_decoded(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start_to_fall(start, session)
    session.denoise_gate.release()
    assert worker.poll(0.2) is None
    session.decode_gate.release()
    take(worker)
    with pytest.raises(RolloutDiverged):
        worker.poll(WAIT_S)


def test_a_refining_error_waits_for_it_too(
    start: Callable[..., Worker[float]], session: GatedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refine(chunk: LatentChunk) -> LatentChunk:
        if chunk.chunk_index == 0:
            return chunk
        raise RolloutDiverged("fell apart")

    session.refined_block = 1, 1, 1, 1
    monkeypatch.setattr(session, "refine", refine)
    worker = start()
    session.denoise_gate.release(2)
    assert session.decoding.acquire(timeout=WAIT_S)
    assert worker.poll(0.2) is None
    session.decode_gate.release()
    take(worker)
    with pytest.raises(RolloutDiverged):
        worker.poll(WAIT_S)


def test_a_decoding_error_reaches_the_client(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    session.decode_error = EngineError("no frames")
    worker = start()
    session.open_gates()
    with pytest.raises(EngineError, match="no frames"):
        worker.poll(WAIT_S)
    session.decode_error = None
    worker.reset(0)
    take(worker)


def test_a_planning_error_reaches_the_client(session: GatedSession) -> None:
    def fail(intent: float, chunk_index: int) -> CameraTrack:
        raise ValueError("no plan")

    with (
        closing(Worker(session, fail, LatestWins(0.0))) as worker,
        pytest.raises(ValueError, match="no plan"),
    ):
        take(worker)


def test_a_failed_reset_reaches_poll_and_future(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    session.reset_error = EngineError("no start")
    worker = start()
    with pytest.raises(EngineError, match="no start"):
        worker.poll(WAIT_S)
    with pytest.raises(EngineError, match="no start"):
        worker.reset(1).result(WAIT_S)


def test_a_failed_reset_does_not_outlive_the_reset_behind_it(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    worker = start()
    assert session.denoising.acquire(timeout=WAIT_S)
    given_up = worker.reset(1, then=fail)
    worker.reset(2)
    session.open_gates()
    assert take(worker).latents_sha256 == "2.0"
    assert isinstance(given_up.exception(WAIT_S), ZeroDivisionError)


def test_closing_with_a_full_queue_does_not_hang(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start()
    session.open_gates()
    for _ in range(MAX_IN_FLIGHT):
        assert session.decoding.acquire(timeout=WAIT_S)
    assert worker.close(WAIT_S)
    assert session.closed.is_set()
    assert worker.poll() is None


def test_closing_mid_chunk_gives_up_after_its_timeout_and_ends_later(
    start: Callable[..., Worker[float]], session: GatedSession
) -> None:
    worker = start()
    assert session.denoising.acquire(timeout=WAIT_S)
    assert not worker.close(0.0)
    assert not session.closed.is_set()
    session.open_gates()
    assert worker.close(WAIT_S)
    assert session.closed.is_set()


def test_closing_cancels_what_waits(start: Callable[..., Worker[float]], session: GatedSession) -> None:
    worker = start()
    assert session.denoising.acquire(timeout=WAIT_S)
    future = worker.reset(1)
    worker.close(0.0)
    with pytest.raises(CancelledError):
        future.result(WAIT_S)
    with pytest.raises(CancelledError):
        worker.reset(1).result(WAIT_S)


def test_closing_wakes_a_waiting_poll(start: Callable[..., Worker[float]], session: GatedSession) -> None:
    worker = start()
    answers: list[FrameChunk | None] = []
    poller = threading.Thread(target=lambda: answers.append(worker.poll(WAIT_S)))
    poller.start()
    worker.close(0.0)
    poller.join(WAIT_S)
    assert answers == [None]


def test_a_model_on_a_worker_makes_the_bits_it_makes_alone(make_bundle: Any, toy_world: World) -> None:
    def plan(intent: float, chunk_index: int) -> CameraTrack:
        c2w = np.tile(toy_world.c2w, (4, 1, 1))
        c2w[:, 0, 3] += intent * chunk_index + 0.1 * np.arange(4)
        return CameraTrack(c2w, np.tile(toy_world.intrinsics, (4, 1)))

    alone = open_session(toy_world, make_bundle())
    alone.reset(6)
    expected = [alone.step(plan(0.5, index)) for index in range(1, 9)]
    session = open_session(toy_world, make_bundle())
    session.keep_snapshots = True
    with closing(Worker(session, plan, LatestWins(0.5), seed=6)) as worker:
        chunks = [take(worker) for _ in expected]
        snapshot = chunks[-1].snapshot
        assert snapshot is not None
        worker.reset(1)
        take(worker)
        worker.restore(snapshot)
        later = take(worker)
    for chunk, want in zip(chunks, expected, strict=True):
        assert chunk.latents_sha256 == want.latents_sha256
        np.testing.assert_array_equal(chunk.frames, want.frames)
    np.testing.assert_array_equal(alone.step(plan(0.5, later.chunk_index)).frames, later.frames)
