"""A session on threads of its own: the latest intent goes in, frames come out.

The engine thread denoises, the decoder thread decodes the chunk before; with a refiner, a thread between them refines the
chunk before, and the one before that is decoded. The client thread never waits for any: `post`, `request`, `poll`,
`pause`, `resume`, `reset`, `enter` and `restore` return at once, `close` in bounded time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from engine.files.world import World
from engine.session.protocol import Clock, Session, Snapshot
from engine.types import CameraTrack, FrameChunk, LatentChunk

IntentT = TypeVar("IntentT")


class Mailbox(Protocol[IntentT]):
    """Where intents wait for the next chunk to be latched: posted often, read once for each chunk.

    Knows no threads: the worker holds its lock around it.
    """

    def post(self, intent: IntentT) -> None:
        """Note what is wanted now."""

    def take(self) -> IntentT:
        """Return what the next chunk is to know; what was wanted once is used up by it."""
        ...

    def let_go(self) -> None:
        """Drop touches that nobody has taken: when the next chunk comes they will be of long ago."""

    def forget(self) -> None:
        """Drop everything but what is held: the next chunk is of another rollout."""


@dataclass(frozen=True)
class _Command:
    """Work for the engine thread between two chunks."""

    run: Callable[[], None]
    future: Future[None]
    epoch: int
    """Of the rollout it begins, whose polls raise its error."""


@dataclass(frozen=True)
class _Latched(Generic[IntentT]):
    """The intent a chunk is to be planned by."""

    intent: IntentT
    posted_s: float


class Worker(Generic[IntentT]):
    """Runs a session as chunks are requested, as far as there is room for them."""

    def __init__(
        self,
        session: Session,
        planner: Callable[[IntentT, int], CameraTrack],
        intents: Mailbox[IntentT],
        *,
        seed: int = 0,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Start the threads and reset the session.

        Args:
            planner: Makes the next chunk's cameras from the intent latched for it and the chunk's index. It
                runs on the engine thread, at the last moment before the model starts.
            intents: Says what becomes of intents between two latches; what it holds at first is the first intent.
        """
        self._session = session
        self._planner = planner
        self._clock = clock
        self._changed = threading.Condition()
        self._intents, self._posted_s = intents, clock()
        self._num_requested = 0
        self._commands: deque[_Command] = deque()
        self._to_refine: deque[tuple[int, LatentChunk]] = deque()
        self._to_decode: deque[tuple[int, LatentChunk]] = deque()
        self._ready: deque[FrameChunk] = deque()
        self._refining = self._decoding = False
        self._max_in_flight = session.max_in_flight
        self._epoch = 0
        """Counts the rollouts begun; a chunk of an earlier one is never returned."""
        self._paused = self._closing = False
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self.reset(seed)
        self._decoder = threading.Thread(target=self._run_decoder, name="flaneur-decoder", daemon=True)
        self._engine = threading.Thread(target=self._run_engine, name="flaneur-engine", daemon=True)
        self._refiner: threading.Thread | None = None
        if session.has_refiner:
            self._refiner = threading.Thread(target=self._run_refiner, name="flaneur-refiner", daemon=True)
            self._refiner.start()
        self._decoder.start()
        self._engine.start()

    def post(self, intent: IntentT) -> float:
        """Say what the player wants now; it holds until the next post.

        Returns:
            The clock time it bears: every chunk knows it whose `latched_s` is no earlier.
        """
        with self._changed:
            self._intents.post(intent)
            self._posted_s = self._clock()
            return self._posted_s

    def let_go(self) -> None:
        """Drop touches that no chunk has latched; what is held stays until the next post."""
        with self._changed:
            self._intents.let_go()

    def request(self) -> None:
        """Ask for one more chunk; more unanswered requests than can be in flight are not remembered."""
        with self._changed:
            self._num_requested = min(self._num_requested + 1, self._max_in_flight)
            self._changed.notify_all()

    def poll(self, timeout_s: float = 0.0) -> FrameChunk | None:
        """Return the next chunk, or None if there is none within the timeout; raise what went wrong.

        An error is raised by every poll until the next reset or restore.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._closing, timeout_s)
            if self._closing:
                return None
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error.with_traceback(self._traceback)
            return None

    def pause(self) -> None:
        """Start no further chunk; one that is being made still arrives, and a touch that it came too late for is over."""
        with self._changed:
            self._paused = True
            self._intents.let_go()

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def reset(self, seed: int, then: Callable[[], None] | None = None) -> Future[None]:
        """Begin a new rollout; chunks of the old one are never seen again.

        `then` runs on the engine thread between the reset and the next plan, to take the planner back too.
        """
        return self._begin(lambda: self._session.reset(seed), then)

    def enter(self, world: World, seed: int, then: Callable[[], None] | None = None) -> Future[None]:
        """Switch to another world of the same engine and begin a rollout there; `then` is as for `reset`."""

        def start() -> None:
            self._session.enter(world)
            self._session.reset(seed)

        return self._begin(start, then)

    def restore(self, snapshot: Snapshot, then: Callable[[], None] | None = None) -> Future[None]:
        """Continue from a snapshot; `then` is as for `reset`."""
        return self._begin(lambda: self._session.restore(snapshot), then)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Stop both threads and close the session; say whether they ended within the timeout."""
        with self._changed:
            self._closing = True
            for command in self._commands:
                command.future.cancel()
            self._commands.clear()
            self._to_refine.clear()
            self._to_decode.clear()
            self._ready.clear()
            self._changed.notify_all()
        self._engine.join(timeout_s)
        return not self._engine.is_alive()

    def _begin(self, start: Callable[[], None], then: Callable[[], None] | None) -> Future[None]:
        def run() -> None:
            start()
            if then is not None:
                then()

        with self._changed:
            self._epoch += 1
            self._to_refine.clear()
            self._to_decode.clear()
            self._ready.clear()
            self._num_requested = 0
            self._intents.forget()
            self._error = self._traceback = None
            return self._enqueue(_Command(run, Future(), self._epoch))

    def _enqueue(self, command: _Command) -> Future[None]:
        with self._changed:
            if self._closing:
                command.future.cancel()
            else:
                self._commands.append(command)
                self._changed.notify_all()
        return command.future

    def _run_engine(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._may_command() or self._may_start())
                if self._closing:
                    break
                epoch = self._epoch
                work = self._commands.popleft() if self._commands else self._latch()
            if isinstance(work, _Command):
                self._execute(work)
            else:
                self._denoise(work, epoch)
        if self._refiner is not None:
            self._refiner.join()
        self._decoder.join()
        self._session.close()

    def _may_command(self) -> bool:
        return bool(self._commands) and self._num_behind == 0

    @property
    def _num_behind(self) -> int:
        """Chunks that are denoised and not yet decoded."""
        return len(self._to_refine) + self._refining + self._num_refined

    @property
    def _num_refined(self) -> int:
        """Chunks that only decoding is left of."""
        return len(self._to_decode) + self._decoding

    def _may_start(self) -> bool:
        in_flight = self._num_behind + len(self._ready)
        return (
            not self._commands
            and not self._paused
            and self._error is None
            and in_flight < self._max_in_flight
            and self._num_requested > 0
        )

    def _execute(self, command: _Command) -> None:
        if not command.future.set_running_or_notify_cancel():
            return
        try:
            command.run()
        except Exception as error:
            self._fail(error, command.epoch)
            command.future.set_exception(error)
        else:
            command.future.set_result(None)

    def _latch(self) -> _Latched[IntentT]:
        """Take the intent for the next chunk, and the request it answers; the lock is held."""
        self._num_requested -= 1
        return _Latched(self._intents.take(), self._posted_s)

    def _denoise(self, latched: _Latched[IntentT], epoch: int) -> None:
        chunk = None
        try:
            track = self._planner(latched.intent, self._session.next_chunk_index)
            chunk = self._session.denoise(replace(track, latched_s=latched.posted_s))
        except Exception as error:
            self._fail(error, epoch, lambda: self._num_behind)
        with self._changed:
            if chunk is not None and epoch == self._epoch and self._error is None and not self._closing:
                (self._to_decode if self._refiner is None else self._to_refine).append((epoch, chunk))
            self._changed.notify_all()

    def _run_refiner(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._to_refine)
                if self._closing:
                    return
                epoch, chunk = self._to_refine.popleft()
                self._refining = True
            refined = None
            try:
                refined = self._session.refine(chunk)
            except Exception as error:
                self._fail(error, epoch, lambda: self._num_refined)
            with self._changed:
                self._refining = False
                if refined is not None and epoch == self._epoch and self._error is None and not self._closing:
                    self._to_decode.append((epoch, refined))
                self._changed.notify_all()

    def _run_decoder(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._to_decode)
                if self._closing:
                    return
                epoch, latents = self._to_decode.popleft()
                self._decoding = True
            frames = None
            try:
                frames = self._session.decode(latents)
            except Exception as error:
                self._fail(error, epoch)
            with self._changed:
                self._decoding = False
                if frames is not None and epoch == self._epoch and not self._closing:
                    self._ready.append(frames)
                self._changed.notify_all()

    def _fail(self, error: Exception, epoch: int, num_earlier: Callable[[], int] = lambda: 0) -> None:
        """Hand an error to the client thread, unless its rollout is already given up.

        Args:
            num_earlier: Counts the chunks before it that are on their way; they are shown first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closing or epoch != self._epoch or num_earlier() == 0)
            if epoch == self._epoch and self._error is None:
                self._error, self._traceback = error, error.__traceback__
                self._to_refine.clear()
                self._to_decode.clear()
            self._changed.notify_all()
