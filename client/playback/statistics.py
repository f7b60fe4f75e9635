"""What is measured of a walk, and what follows from it: inputs on their way, chunk times, denoising steps, the trace.

The walk says what happens; the meters, the step controller and the trace make something of it. Knows no window and no
clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, replace

import numpy as np

from client.input.controls import IDLE, Axis, Intent
from client.playback.meters import DriftMeter, LatencyMeter
from client.playback.pacing import PacingConfig, PacingCounts
from client.playback.step_controller import StepController, StepControllerConfig
from client.playback.trace import (
    ChunkLine,
    CountsLine,
    InputLine,
    MarkLine,
    StartLine,
    StepsLine,
    TickLine,
    TraceWriter,
)
from engine.errors import EngineError
from engine.session.protocol import Session
from engine.types import ChunkTimes, FrameChunk

NUM_TIMED_CHUNKS = 64
DECISIVE = 0.5
"""Change of an axis that a player waits to see: less is a stick on its way."""


class Statistics:
    """The statistics of one walk; for the client thread."""

    def __init__(self, session: Session, pacing: PacingConfig) -> None:
        self.latency = LatencyMeter()
        self.drift = DriftMeter()
        self.controller = StepController(
            StepControllerConfig(session.num_steps, pacing.chunk_s, session.has_refiner)
        )
        self.chunk_times: deque[ChunkTimes] = deque(maxlen=NUM_TIMED_CHUNKS)
        """Of the last chunks, newest last."""
        self.last_steps = session.num_steps
        """Denoising steps of the last chunk."""
        self._requested_s: deque[float] = deque()
        self._before, self._minded = IDLE, IDLE
        self._decided_s: float | None = None
        self._trace: TraceWriter | None = None
        self._begun_s: float | None = None
        self._start_line = StartLine(
            world=session.world.name,
            engine=session.engine,
            backend=session.backend,
            device=session.device,
            fps=pacing.fps,
            chunk_frames=pacing.chunk_frames,
            num_steps=session.num_steps,
            max_in_flight=pacing.max_in_flight,
        )

    def start_trace(self, trace: TraceWriter) -> None:
        """Write what happens from now on; before the walk's first tick, since a trace holds whole rollouts."""
        self._trace = trace
        trace.write(self._start_line)
        if self._begun_s is not None:
            trace.write(MarkLine(kind="begin", at_s=self._begun_s))

    @property
    def num_steps(self) -> int | None:
        """Denoising steps of the next chunk, None for all of them."""
        return self.controller.num_steps if self.controller.lowered else None

    def chunk_ms(self) -> tuple[float, float]:
        """Return the median and the 95th percentile of the last chunks' times, 0 before the first."""
        if not self.chunk_times:
            return 0.0, 0.0
        p50, p95 = np.percentile([times.chunk_ms for times in self.chunk_times], (50, 95))
        return float(p50), float(p95)

    def begin(self, now_s: float, counts: PacingCounts) -> None:
        """Note that a new rollout begins; `counts` are those of the one before."""
        self._note_end(counts)
        self._begun_s = now_s
        self.latency.reset()
        self.drift.forget_recent()
        self._requested_s.clear()
        self._before = self._minded = IDLE
        self._decided_s = None
        self._write(MarkLine(kind="begin", at_s=now_s))

    def note_pause(self, paused: bool, now_s: float) -> None:
        """Note that the walk was paused or goes on."""
        self._write(MarkLine(kind="pause" if paused else "resume", at_s=now_s))

    def note_input(self, intent: Intent, posted_s: float, now_s: float) -> None:
        """Note what the player asks for; what is asked for as before is no input."""
        held, before = intent.held, self._before
        self._before = held
        turned = intent.look_dx_rad != 0.0 or intent.look_dy_rad != 0.0
        if turned or held != before:
            looks = turned or _looking(held) != _looking(before)
            self.latency.note_input(now_s, posted_s, looks, moves=_moving(held) != _moving(before))
        if _is_decisive(self._minded, held):
            self._minded, self._decided_s = held, posted_s

    def note_tick(self, now_s: float, asks: bool) -> None:
        """Note that the pacer chose a frame, and whether a chunk was asked for wherever the pacer wanted one."""
        if self._trace is not None:
            self._write(TickLine(at_s=now_s, asks=asks))

    def note_request(self, now_s: float) -> None:
        """Note that a chunk was asked for."""
        self._requested_s.append(now_s)

    def note_chunk(
        self, chunk: FrameChunk, first_frame: int, num_steps: int | None, adaptive: bool, now_s: float
    ) -> bool:
        """Note a chunk that arrived.

        Args:
            first_frame: Number of its first frame.
            num_steps: Denoising steps it was made with, None for all of them.
            adaptive: Whether the steps are the controller's choice.
            now_s: Of the tick that takes it in.

        Returns:
            Whether it is the first that knows the newest change of what the player asks for.
        """
        times, steps = chunk.times, num_steps or self.controller.config.most_steps
        self.chunk_times.append(times)
        self.drift.add(chunk.frames[-1])
        self.last_steps = steps
        self.latency.note_chunk(chunk.chunk_index, first_frame, times)
        answers = self._decided_s is not None and times.latched_s >= self._decided_s
        if answers:
            self._decided_s = None
        requested_s = self._requested_s.popleft() if self._requested_s else times.model_start_s
        self._write(
            ChunkLine(
                chunk_index=chunk.chunk_index,
                num_frames=len(chunk.frames),
                num_steps=steps,
                requested_s=requested_s,
                seen_s=now_s,
                answers=answers,
                **asdict(times),
            )
        )
        refine_s = times.refine_ms / 1e3 if chunk.track.refine else None
        controller, denoise_s, commit_s = self.controller, times.denoise_ms / 1e3, times.commit_ms / 1e3
        if adaptive and controller.note_chunk(steps, denoise_s, commit_s, refine_s):
            self._write(
                StepsLine(at_s=times.ready_s, num_steps=controller.num_steps, refines=controller.refines)
            )
        return answers

    def note_shown(self, frame_index: int, shown_s: float, turned: bool, moved: bool) -> None:
        """Note the picture that is on; the arguments are those of `LatencyMeter.note_shown`."""
        for answered in self.latency.note_shown(frame_index, shown_s, turned, moved):
            self._write(InputLine.model_validate(answered, from_attributes=True))

    def take_problem(self) -> EngineError | None:
        """Return once why the trace ended early."""
        if self._trace is None or self._trace.problem is None:
            return None
        problem, self._trace = self._trace.problem, None
        return problem

    def close(self, counts: PacingCounts) -> None:
        """End the trace."""
        self._note_end(counts)
        if self._trace is not None:
            self._trace.close()

    def _note_end(self, counts: PacingCounts) -> None:
        if self._begun_s is not None:
            self._write(CountsLine(**asdict(counts)))

    def _write(self, line: MarkLine | TickLine | ChunkLine | InputLine | StepsLine | CountsLine) -> None:
        if self._trace is not None:
            self._trace.write(line)


def _looking(intent: Intent) -> Intent:
    """Return what of an intent turns the view."""
    return replace(intent, forward=0.0, strafe=0.0, rise=0.0, run=False)


def _moving(intent: Intent) -> Intent:
    """Return what of an intent moves the player."""
    return replace(intent, yaw=0.0, pitch=0.0, roll=0.0, level=False)


def _is_decisive(before: Intent, after: Intent) -> bool:
    if (before.run, before.level) != (after.run, after.level):
        return True
    return any(abs(getattr(after, name) - getattr(before, name)) > DECISIVE for name in Axis)
