"""A walk under way: worker, planner and pacer under one clock. Knows no window and no devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.camera.late_reprojection import FRAME_ALONE, WITH_MEMORY, LiveView, Reach
from client.camera.planner import ChunkPlan, Planner, RigPlanner, world_rig
from client.camera.rig import RigState
from client.input.controls import KEY_MAP_VERSION, Intent, IntentMailbox
from client.playback.history import ChunkEnd, History, RecentFrames, WalkFrame, WalkSnapshot
from client.playback.pacing import PacingConfig, Playback, RestDetector
from client.playback.recorder import WalkRecorder, num_shared
from client.playback.replay_playback import ReplayPlayback, Span
from client.playback.statistics import Statistics
from engine.files.recording import RecordedChunk, RecordingHeader
from engine.files.world import World
from engine.memory.rendering import Surroundings
from engine.memory.sources import View
from engine.session.protocol import Session
from engine.session.replay import header_for
from engine.session.worker import Worker
from engine.types import FrameChunk

HISTORY_BYTES = 256 << 20
LEAST_KNOWN = 0.75
"""Share of the surroundings that the memory must show for a frame to be shown from further off."""


class Walk:
    """One rollout as the client thread sees it; every method returns at once, but for `close`."""

    def __init__(
        self,
        session: Session,
        planner: Planner,
        seed: int,
        clock: Callable[[], float],
        *,
        history_bytes: int = HISTORY_BYTES,
        record_latents: bool = False,
        refiner: bool = True,
        keep_refiner: bool = False,
        span: Span | None = None,
    ) -> None:
        """Begin a walk.

        Args:
            history_bytes: Memory for the snapshots it can be rewound to.
            record_latents: Whether recordings hold their latents, where the session keeps them.
            refiner: Whether chunks are refined, where the session has a refiner and there is time.
            keep_refiner: Refine them whether there is time or not.
            span: Frames that a replay goes over; all of them by default.
        """
        self.session = session
        self.planner = planner
        self.seed = seed
        self.recorder = WalkRecorder(record_latents)
        self.history = History(history_bytes)
        self.recent = RecentFrames(session.fps, session.world.first_frame.nbytes)
        self._entering: Future[None] | None = None
        self._arrived: Callable[[], None] | None = None
        self.closed = False
        """Whether the walk was left: nothing can be asked of it any more."""
        self.resting = False
        """Whether no chunk is made because nothing moves and nobody asks for anything."""
        session.keep_snapshots = self.history.has_room_for(session.snapshot_bytes)
        self._clock = clock
        self._live = LiveView(planner.rig) if planner.rig is not None else None
        self._asked_for_depth: Surroundings | None = None
        config = PacingConfig(session.fps, session.frames_per_chunk, max_in_flight=session.max_in_flight)
        self.playback = self._playback(config, span)
        """Which frame is on, and the pacing that chose it."""
        self._pacer = self.playback.pacer
        self.statistics = Statistics(session, config)
        self._keep_refiner = keep_refiner
        self.refiner_wanted = refiner
        self._worker: Worker[Intent] = Worker(
            session,
            lambda intent, chunk_index: self.planner.plan(intent, chunk_index),
            IntentMailbox(),
            seed=seed,
            clock=clock,
        )
        self._begin_anew()

    def _playback(self, config: PacingConfig, span: Span | None) -> Playback:
        frame, now_s = self._first_frame(), self._clock()
        if self.planner.num_chunks is None:
            return Playback(config, frame, now_s)
        whole = Span(0, self.planner.num_chunks * config.chunk_frames)
        if span is not None:
            whole = Span(min(span.first, whole.last), min(span.last, whole.last))
        return ReplayPlayback(config, frame, now_s, whole)

    def _first_frame(self) -> WalkFrame:
        world = self.session.world
        return WalkFrame(0, world.first_frame, world.c2w, 0)

    def _begin_anew(self) -> None:
        self.history.clear()
        self.statistics.drift.begin()
        self._rest = RestDetector(self.session.world.info.animated)
        self._begin(self._first_frame())

    def _begin(self, frame: WalkFrame, snapshot: WalkSnapshot | None = None) -> None:
        """Show a frame and go on behind it: the world's first, or that of a snapshot."""
        self.recent.resume_at(frame, snapshot.latent if snapshot is not None else None)
        self._rest.begin()
        self._num_chunks = self._num_requested = snapshot.number if snapshot is not None else 0
        self._paused = self.resting = False
        self._updated_s = self._clock()
        self.statistics.begin(self._updated_s, self._pacer.counts)
        if self._live is not None:
            rig = snapshot.rig if snapshot is not None else None
            self._live.begin(rig.view() if rig is not None else None)
        self.playback.begin(frame, self._updated_s)
        if self.playback.frame is frame:
            self.recent.see([frame], jumped=True)

    @property
    def replay(self) -> ReplayPlayback | None:
        """What plays a replay; None in a free walk."""
        return self.playback if isinstance(self.playback, ReplayPlayback) else None

    @property
    def frame(self) -> WalkFrame:
        """The frame that is on."""
        return self.playback.frame

    @property
    def chunk_end(self) -> ChunkEnd | None:
        """The last frame of the chunk that is on, and the latent behind it; None before the first, or without latents."""
        return self.recent.chunk_end(self.frame.index)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def refiner_wanted(self) -> bool:
        """Whether the player wants chunks refined; a replay's are as they were recorded."""
        return self._refiner_wanted

    @refiner_wanted.setter
    def refiner_wanted(self, wanted: bool) -> None:
        self._refiner_wanted = wanted and self.session.has_refiner
        self.statistics.controller.allow_refiner(self._refiner_wanted)
        self._choose_effort()

    def _choose_effort(self) -> None:
        """Tell the planner how the next chunks are made."""
        controller = self.statistics.controller
        self.planner.num_steps = self.statistics.num_steps
        self.planner.refine = self._refiner_wanted and (self._keep_refiner or controller.refines)

    @property
    def live_turn_rad(self) -> NDArray[np.float64]:
        """How far the player's view is turned beyond the frame that is on: yaw, pitch and roll, [3]."""
        if self._live is None:
            return np.zeros(3)
        return self._live.turn_from(self.frame.angles_rad, self._reach(self._live))

    @property
    def live_move_m(self) -> NDArray[np.float64]:
        """How far the player's view is moved beyond the frame that is on, [3], world frame; nowhere without depth."""
        if self._live is None or self.frame.inverse_depth is None:
            return np.zeros(3)
        return self._live.move_from(self.frame.c2w[:3, 3], self._reach(self._live))

    @property
    def live_poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Poses [4, 4] of the frame that is on and of the player's view; None where they are the same."""
        turn_rad, move_m = self.live_turn_rad, self.live_move_m
        if self._live is None or not (turn_rad.any() or move_m.any()):
            return None
        frame, live = self.frame, self.frame.c2w.copy()
        if turn_rad.any():
            live[:3, :3] = self._live.rotation(frame.angles_rad + turn_rad)
        live[:3, 3] += move_m
        return frame.c2w, live

    @property
    def surroundings(self) -> Surroundings | None:
        """What the memory shows around the chunk in the making; None where none is rendered."""
        return None if self.entering else self.session.surroundings

    def _reach(self, live: LiveView) -> Reach:
        """Return how far the frame that is on can be shown from its own camera."""
        if live.is_reached_from(self.frame.angles_rad, self.frame.c2w[:3, 3]):
            return FRAME_ALONE
        surroundings = self.surroundings
        known = surroundings is not None and surroundings.share_known >= LEAST_KNOWN
        return WITH_MEMORY if known else FRAME_ALONE

    @property
    def progress(self) -> float | None:
        """How much of a replay was shown, 0 to 1; None in a free walk."""
        if self.replay is None:
            return None
        span = self.replay.span
        return (max(0, self.frame.index - span.first) + 1) / (span.last - span.first + 1)

    @property
    def walked_s(self) -> float:
        """Length of the walk that was made so far, seconds of video."""
        return self.recorder.num_chunks * self.session.frames_per_chunk / self.session.fps

    @property
    def entering(self) -> bool:
        """Whether the engine is on its way to another world; until it is there, nothing can be asked of the walk."""
        return self._entering is not None

    def update(self, intent: Intent, now_s: float) -> bool:
        """Take in what was made, choose the frame and ask for more; say whether the frame changed.

        Raises:
            EngineError: The engine stopped; a reset may bring it back.
            RecordingStopped: The recording is over for want of space; the walk goes on.
        """
        if self._entering is not None:
            return self._arrive(self._entering)
        if not self.paused:
            self._post(intent, now_s)
        self._updated_s = now_s
        before = self.frame.index
        try:
            self._collect(now_s)
        finally:
            self.playback.tick(now_s)
            self.recent.see(*self.playback.take_passed())
            asks = not self._rest_or_wake(now_s) and not self._at_end
            if asks:
                self._request(now_s)
            self.statistics.note_tick(now_s, asks)
        self._look_for_depth()
        return self.frame.index != before

    def _look_for_depth(self) -> None:
        """Take the depth of a frame that was made without, as a world's first is, from what the memory shows there."""
        surroundings, frame = self.surroundings, self.frame
        if (
            self._live is None
            or frame.inverse_depth is not None
            or surroundings in (None, self._asked_for_depth)
        ):
            return
        self._asked_for_depth = surroundings
        view = View(frame.c2w, self.session.world.intrinsics, *self.session.frame_size)
        inverse_depth = surroundings.depth_of(view)
        if inverse_depth is not None:
            self.playback.give_depth(inverse_depth)

    def _rest_or_wake(self, now_s: float) -> bool:
        """Stop the clock once nothing moves and all was shown, start it when that ends; say whether none is needed."""
        rig = self.planner.rig
        quiet = rig is not None and self._rest.may_rest(rig.flying)
        if quiet and self.playback.is_over and not self.resting and not self.paused:
            self._hold_clock(True, now_s)
            self.resting = True
        elif not quiet and self.resting and not self.paused:
            self._hold_clock(False, now_s)
            self.resting = False
        return quiet

    def _hold_clock(self, held: bool, now_s: float) -> None:
        (self._pacer.pause if held else self._pacer.resume)(now_s)
        self.statistics.note_pause(held, now_s)

    def _post(self, intent: Intent, now_s: float) -> None:
        posted_s = self._worker.post(intent)
        if not intent.is_idle:
            self._rest.ask(posted_s)
        if self._live is not None:
            elapsed_s = min(max(0.0, now_s - self._updated_s), self._pacer.config.longest_tick_s)
            self.statistics.note_input(intent, posted_s, now_s)
            self._live.turn(intent, posted_s, elapsed_s, self._pacer.pace)

    def _collect(self, now_s: float) -> None:
        while (chunk := self._worker.poll()) is not None:
            plan: ChunkPlan = chunk.track.plan
            self._num_chunks += 1
            adaptive, first, steps = self._live is not None, self.playback.num_frames, chunk.track.num_steps
            answers = self.statistics.note_chunk(chunk, first, steps, adaptive, now_s)
            self._choose_effort()
            frames = self._frames_of(chunk, plan)
            self.playback.add(frames, chunk.times, answers)
            self._remember(chunk, plan, frames)
            # What the camera needs again is in the snapshots: a recording of hours must not hold it too.
            track = replace(chunk.track, plan=None)
            if (
                self._num_chunks > self.recorder.num_chunks
            ):  # A replay that was wound back makes chunks again.
                self.recorder.add(
                    RecordedChunk(
                        self._num_chunks - 1, track, chunk.latents_sha256, plan.intents, chunk.latents
                    )
                )

    def _frames_of(self, chunk: FrameChunk, plan: ChunkPlan) -> list[WalkFrame]:
        """Return the frames of the next chunk, and compare the live view with its plan."""
        angles_rad = np.zeros((len(chunk.frames), 3))
        if self._live is not None and plan.motion is not None:
            angles_rad = plan.motion.angles_rad[1:]
            self._live.take_plan(plan.motion, chunk.times.latched_s)
        # A snapshot may keep the last frame for long, and must not keep the whole chunk with it.
        images = [*chunk.frames[:-1], chunk.frames[-1].copy()]
        depths = [None] * len(images) if chunk.inverse_depth is None else list(chunk.inverse_depth)
        first, index = self.playback.num_frames, chunk.chunk_index
        parts = zip(images, chunk.c2w, angles_rad, depths, strict=True)
        return [
            WalkFrame(first + i, image, c2w, index, angles, depth)
            for i, (image, c2w, angles, depth) in enumerate(parts)
        ]

    def _remember(self, chunk: FrameChunk, plan: ChunkPlan, frames: Sequence[WalkFrame]) -> None:
        flying = None if plan.rig is None else plan.rig.flying
        self._rest.note(chunk.c2w, len(frames) / self.session.fps, chunk.times.latched_s, flying)
        latent = None if chunk.latents is None else chunk.latents[:, -1].copy()
        last = replace(frames[-1], inverse_depth=None)
        if latent is not None:
            self.recent.add_chunk_end(last, latent)
        if chunk.snapshot is not None:
            self.history.add(WalkSnapshot(self._num_chunks, last, chunk.snapshot, latent, plan.rig))

    @property
    def _at_end(self) -> bool:
        """Whether every chunk of a replay was asked for."""
        return self.planner.num_chunks is not None and self._num_requested >= self.planner.num_chunks

    def _request(self, now_s: float) -> None:
        if self.playback.should_request(now_s):
            self._worker.request()
            self._pacer.note_request(now_s)
            self.statistics.note_request(now_s)
            self._num_requested += 1

    def note_shown(self, shown_s: float, reprojecting: bool) -> None:
        """Note that the picture of the last update is on the display, turned to the player's view or not."""
        frame, live = self.frame, self._live if reprojecting else None
        turned = moved = False
        if live is not None:
            reach = self._reach(live)
            turned = live.is_turned_from(frame.angles_rad, reach)
            if frame.inverse_depth is not None:
                moved = live.is_reached_from(frame.angles_rad, frame.c2w[:3, 3], reach)
        self.statistics.note_shown(frame.index, shown_s, turned, moved)

    def drop_taps(self) -> None:
        """Drop taps that the model has not seen: whoever made them is gone."""
        self._worker.let_go()

    def pause(self) -> None:
        """Hold the frame and start nothing new."""
        if not self.paused:
            self._paused = True
            self._hold_clock(True, self._clock())
            self._worker.pause()

    def resume(self) -> None:
        if self.paused:
            self._paused = self.resting = False
            self._hold_clock(False, self._clock())
            self._worker.resume()

    def reset(self) -> None:
        """Go back to the world's first frame with the same seed; a recording must be stopped before."""
        self.resume()
        self._worker.reset(self.seed, then=self.planner.reset)
        self._begin_anew()
        self.recorder.forget()

    def enter(self, world: World, arrived: Callable[[], None] | None = None) -> None:
        """Go over to another world of the same engine; a recording must be stopped before.

        `arrived` is called once the walk is there, before its first chunk; never if it does not come there.
        """
        assert isinstance(self.planner, RigPlanner), "only a free walk goes elsewhere"
        self.resume()
        planner, rig, self._arrived = self.planner, world_rig(world, self.session.fps), arrived
        self._entering = self._worker.enter(world, self.seed, then=lambda: planner.enter(rig))

    def _arrive(self, entering: Future[None]) -> bool:
        """Begin in the other world once the engine is there; say whether it is."""
        if not entering.done():
            return False
        self._entering = None
        # An error is raised by every poll from now on, as that of a reset is.
        if entering.exception() is None:
            if self.planner.rig is not None:
                self._live = LiveView(self.planner.rig)
            self.recorder.forget()
            # What was seen before belongs to another world, which no recording of this one leads to.
            self.recent.clear()
            held = self.paused
            self._begin_anew()
            if self._arrived is not None:
                self._arrived()
            if held:
                self.pause()
        return True

    def branch_off(
        self, snapshot: WalkSnapshot, chunks: Sequence[RecordedChunk] | None = None
    ) -> Path | None:
        """Go on from a snapshot another way; the branch that is left can be returned to.

        Args:
            snapshot: Of this walk or, with `chunks`, one that was saved.
            chunks: The walk from its first step to the snapshot.

        Returns:
            The recording that ended with the branch that is left, where one was on.

        Raises:
            ValueError, RecordingStopped: The walk goes on, its recording is over.
        """
        walked = self.recorder.walked(self._num_chunks)
        chunks = walked[: snapshot.number] if chunks is None else chunks
        self.history.branch_off(snapshot, walked, num_shared(walked, chunks))
        return self._resume_at(snapshot, chunks)

    def return_to_branch(self) -> Path | None:
        """Go on where the branch that was left last ended; there must be one. Returns and raises as `branch_off`."""
        walked = self.recorder.walked(self._num_chunks)
        branch = self.history.return_to_last(walked, lambda branch: num_shared(walked, branch.chunks))
        return self._resume_at(branch.tip, branch.chunks)

    def take_over(self, snapshot: WalkSnapshot) -> Path | None:
        """Leave a replay at a snapshot of it, and go on with the player's own camera, at rest where the replay's was.

        Returns and raises as `branch_off`.
        """
        assert self.planner.rig is None, "a free walk needs no leaving"
        rig = world_rig(self.session.world, self.session.fps)
        self.playback = Playback(self._pacer.config, snapshot.frame, self._clock(), self._pacer)
        self.planner, self._live = RigPlanner(rig, self.session.frames_per_chunk), LiveView(rig)
        steered = replace(snapshot, rig=RigState.standing_at(snapshot.frame.c2w))
        return self._resume_at(steered, self.recorder.walked(self._num_chunks)[: snapshot.number])

    def seek(self, index: int, anew: bool = False) -> None:
        """Go to a frame of a replay; what is not kept of it is made again, from the nearest snapshot before it.

        Args:
            index: Counted from the world's first frame; beyond the replay's ends it is the nearest.
            anew: Whether to make it again though it is kept, so that the walk can go on from there another way.
        """
        replay = self.replay
        assert replay is not None, "a free walk has no other frames to go to"
        self.resume()
        index = replay.target = replay.clamped(index)
        if replay.holds(index) and not anew:
            return
        snapshot = self.history.at(index // self.session.frames_per_chunk)
        begins_at = 0 if snapshot is None else snapshot.number
        if index <= replay.newest or begins_at > self._num_chunks:
            self._wind_to(snapshot)

    def _wind_to(self, snapshot: WalkSnapshot | None) -> None:
        """Make a replay's chunks from a snapshot on, or from the first."""
        if snapshot is None:
            self._worker.reset(self.seed, then=self.planner.reset)
            self._begin(self._first_frame())
        else:
            number = snapshot.number
            self._worker.restore(snapshot.state, then=lambda: self.planner.resume_at(number, None))
            self._begin(snapshot.frame, snapshot)

    def _resume_at(self, snapshot: WalkSnapshot, chunks: Sequence[RecordedChunk]) -> Path | None:
        self.resume()
        self.seed = snapshot.state.seed
        self._worker.restore(
            snapshot.state, then=lambda: self.planner.resume_at(snapshot.number, snapshot.rig)
        )
        self._begin(snapshot.frame, snapshot)
        return self.recorder.resume_at(chunks, self.header())

    def start_recording(self, path: Path, overwrite: bool = False) -> None:
        """Record to a file, from the walk's first chunk on."""
        self.recorder.start(path, self.header(), overwrite)

    def header(self) -> RecordingHeader:
        """Return what a recording of this walk begins with."""
        return header_for(self.session, str(KEY_MAP_VERSION), self.seed)

    def close(self) -> bool:
        """End the walk and let go of what it kept; say whether the engine's threads ended in time."""
        self.closed = True
        self.statistics.close(self._pacer.counts)
        # Whoever holds frames belongs to cycles of objects that may outlive the walk by minutes.
        self.history.clear()
        self.recent.clear()
        return self._worker.close()
