"""Opening a world on a thread of its own, so that the window stays alive and says what is going on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from client.camera.planner import Planner, TrackPlanner, rig_planner, track_planner
from client.playback.replay_playback import Span
from client.playback.resource_usage import release_memory
from client.playback.trace import SUFFIX as TRACE_SUFFIX
from client.setup.options import PlayOptions
from engine.camera.formats.track_files import load_track
from engine.camera.tracks import Track
from engine.files.atomic import check_new_file
from engine.files.recording import SUFFIX as RECORDING_SUFFIX
from engine.files.recording import Recording, read_recording
from engine.files.world import World, find_made_in
from engine.machine import assets
from engine.session.generated_world import default_world, find_any_world
from engine.session.opening import check_request, open_session
from engine.session.protocol import Session, check_seed
from engine.session.replay import check_replayable


@dataclass(frozen=True)
class Opened:
    """A world that is ready to be walked through."""

    session: Session
    planner: Planner
    seed: int
    span: Span | None = None
    """Frames that a replay goes over; None for all of them."""


def open_walk(options: PlayOptions, folders: Sequence[Path], report: Callable[[str | World], None]) -> Opened:
    """Open what the options ask for.

    Args:
        options: Its world or its replay must be given.
        folders: Where worlds are looked for by name.
        report: Given the label of each step as it begins, and the world as soon as it is read.
    """
    replayed: Recording | Track | None = None
    if options.replay is not None:
        report("Reading the walk")
        replayed, options = _read_replay(options, options.replay, folders)
    report("Reading the world")
    assert options.world is not None, "a walk is in a world"
    world = find_any_world(options.world, folders)
    report(world)
    bundle = None
    if options.backend != "holodeck" and options.weights is None:
        report("Checking the engine's files")
        bundle = assets.find_bundle(options.engine) if options.engine else assets.bundle_for(world.info.model)
    report("Starting the engine")
    session = open_session(
        world,
        bundle,
        options.backend,
        weights=options.weights,
        provider=options.provider,
        keep_latents=True,
        refiner=replayed.header.refiner_mode if isinstance(replayed, Recording) else options.refiner,
    )
    try:
        report("Taking the first step")
        return Opened(session, _planner(session, replayed), _seed(options, replayed), _span(replayed))
    except BaseException:
        session.close()
        raise


def check_options(options: PlayOptions, folders: Sequence[Path]) -> None:
    """Refuse what cannot be opened or written while there is still a command line to say so on.

    Raises:
        ValueError: A path or name is wrong, in one sentence.
        EngineError: A file is damaged or foreign, in one sentence.
    """
    if options.replay is not None:
        _, options = _read_replay(options, options.replay, folders)
    if options.world is not None:
        find_any_world(options.world, folders)
    check_request(options.engine_request)
    check_seed(options.seed)
    if options.record is not None:
        check_new_file(options.record, RECORDING_SUFFIX, "recording", options.overwrite)
    if options.trace is not None:
        check_new_file(options.trace, TRACE_SUFFIX, "trace", options.overwrite)


def _read_replay(
    options: PlayOptions, file: Path, folders: Sequence[Path]
) -> tuple[Recording | Track, PlayOptions]:
    """Read a walk; a recording also says which world and backend it was made with."""
    if file.suffix != RECORDING_SUFFIX:
        world = options.world or str(default_world())
        return load_track(file), replace(options, world=world)
    recording = read_recording(file)
    header, backend = recording.header, options.backend
    if backend == "auto" and header.backend == "holodeck":
        backend = "holodeck"
    world = options.world
    if world is None:
        world = str(find_made_in(header.world, header.world_sha256, folders) or header.world)
    return recording, replace(options, world=world, backend=backend)


def _planner(session: Session, replayed: Recording | Track | None) -> Planner:
    if replayed is None:
        return rig_planner(session)
    if isinstance(replayed, Track):
        return track_planner(session, replayed)
    check_replayable(replayed, session)
    return TrackPlanner([chunk.track for chunk in replayed.chunks])


def _span(replayed: Recording | Track | None) -> Span | None:
    """Return the frames that a recording is replayed over."""
    if not isinstance(replayed, Recording) or not replayed.chunks:
        return None
    header = replayed.header
    end = sum(chunk.track.num_frames for chunk in replayed.chunks)
    last = end if header.last_frame is None else min(header.last_frame, end)
    return Span(min(header.first_frame, last), last)


def _seed(options: PlayOptions, replayed: Recording | Track | None) -> int:
    return replayed.header.seed if isinstance(replayed, Recording) else options.seed


@dataclass
class Stage:
    """One step of opening a world."""

    label: str
    began_s: float
    ended_s: float | None = None


class LoadingStages:
    """The steps of opening a world, each with its clock; one is under way at a time."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def begin(self, label: str, now_s: float) -> None:
        """End the step under way and begin the next."""
        self.end(now_s)
        self.stages.append(Stage(label, now_s))

    def end(self, now_s: float) -> None:
        """End the step under way, if there is one."""
        if self.stages and self.stages[-1].ended_s is None:
            self.stages[-1].ended_s = now_s

    def elapsed_s(self, now_s: float) -> float:
        """Return the time since the first step began."""
        return now_s - self.stages[0].began_s if self.stages else 0.0


class Opening:
    """A world being opened; owned by the client thread."""

    def __init__(
        self, run: Callable[[Callable[[str | World], None]], Opened], clock: Callable[[], float]
    ) -> None:
        """Start the thread; `run` is `open_walk` with its options."""
        self.stages = LoadingStages()
        self.world: World | None = None
        """Known as soon as it is read."""
        self._clock = clock
        self._news: queue.SimpleQueue[tuple[float, str | World | Opened | Exception]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, args=(run,), name="flaneur-opening", daemon=True)
        self._thread.start()

    def poll(self) -> Opened | None:
        """Return what was opened, None while it is not.

        Raises:
            Exception: Whatever ended the opening.
        """
        while True:
            try:
                now_s, news = self._news.get_nowait()
            except queue.Empty:
                return None
            if isinstance(news, str):
                self.stages.begin(news, now_s)
            elif isinstance(news, World):
                self.world = news
            else:
                self.stages.end(now_s)
                if isinstance(news, Exception):
                    raise news
                return news

    def abandon(self) -> None:
        """Give up: what is opened nevertheless is closed by the thread that opened it."""
        with self._lock:
            self._abandoned = True
        while True:
            try:
                _, news = self._news.get_nowait()
            except queue.Empty:
                return
            if isinstance(news, Opened):
                news.session.close()

    def _run(self, run: Callable[[Callable[[str | World], None]], Opened]) -> None:
        try:
            opened = run(self._report)
        except Exception as error:
            self._report(error)
            return
        # The walk before this one is gone by now, and what it freed would stay with this process.
        release_memory()
        with self._lock:
            if not self._abandoned:
                self._report(opened)
                return
        opened.session.close()

    def _report(self, news: str | World | Opened | Exception) -> None:
        self._news.put((self._clock(), news))
