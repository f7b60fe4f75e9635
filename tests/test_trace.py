"""A trace holds a walk's timing line by line, survives a crash, and can be paced again with the same counts."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from cli.app import run
from client.input.controls import IDLE, Intent
from client.playback.pacing import FramePacer, PacingConfig
from client.playback.pacing_replay import replay_pacing
from client.playback.statistics import Statistics
from client.playback.trace import (
    ChunkLine,
    CountsLine,
    InputLine,
    MarkLine,
    StartLine,
    TickLine,
    TraceWriter,
    read_trace,
)
from engine.errors import SpecMismatch
from engine.files.world import World
from engine.session.holodeck_session import HolodeckSession
from engine.types import CameraTrack, ChunkTimes, FrameChunk

TICK_S = 1.0 / 60.0
CONFIG = PacingConfig(fps=16.0, chunk_frames=4)


@pytest.fixture
def session(toy_world: World) -> HolodeckSession:
    info = toy_world.info.model_copy(update={"place": "town"})
    return HolodeckSession(World(info, *(getattr(toy_world, name) for name in _ARRAYS)))


_ARRAYS = ("first_latent", "first_frame", "text", "text_mask", "intrinsics", "c2w")


def trace_walk(path: Path, session: HolodeckSession, seed: int, seconds: float = 20.0) -> None:
    """Write the trace of a walk on a fake clock: an engine with jitter and a stall, keys, a pause, a new beginning."""
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    pacer, instruments = FramePacer(CONFIG), Statistics(session, CONFIG)
    instruments.begin(0.0, pacer.counts)
    pacer.add_first_frame()
    instruments.start_trace(TraceWriter(path))
    under_way: list[tuple[float, ChunkTimes]] = []
    free_s, index, now_s, posted_s = 0.0, 1, 0.0, 0.0
    while now_s < seconds:
        if not pacer.paused:
            posted_s = now_s
            instruments.note_input(Intent(forward=1.0) if int(now_s) % 2 else IDLE, posted_s, now_s)
        while under_way and under_way[0][1].ready_s <= now_s:
            _, times = under_way.pop(0)
            chunk = FrameChunk(
                index,
                np.zeros((4, 2, 2, 3), np.uint8),
                CameraTrack(np.zeros((4, 4, 4)), np.zeros((4, 4), np.float32)),
                times,
                "",
            )
            answers = instruments.note_chunk(chunk, pacer.num_frames, None, True, now_s)
            pacer.add_chunk(4, times.model_start_s, times.committed_s, times.ready_s, answers)
            index += 1
        frame = pacer.tick(now_s)
        instruments.note_tick(now_s, True)
        if pacer.should_request(now_s):
            pacer.note_request(now_s)
            instruments.note_request(now_s)
            took_s = 3.0 if index == 20 else float(random.uniform(0.05, 0.35))
            start_s = max(now_s + 0.001, free_s)
            free_s = start_s + 0.8 * took_s
            ready_s = start_s + took_s
            under_way.append((now_s, ChunkTimes(posted_s, start_s, free_s, free_s, free_s, ready_s)))
        instruments.note_shown(frame or 0, now_s + 0.004, turned=False, moved=False)
        now_s += TICK_S * float(random.uniform(0.9, 1.3))
        if 4.0 < now_s < 5.0 and not pacer.paused:
            pacer.pause(now_s)
            instruments.note_pause(True, now_s)
        if now_s > 5.0 and pacer.paused:
            pacer.resume(now_s)
            instruments.note_pause(False, now_s)
        if now_s > 14.0 and pacer.num_frames > 100 and index < 1000:
            index, free_s = 1000, now_s
            under_way.clear()
            instruments.begin(now_s, pacer.counts)
            pacer.reset(now_s)
            pacer.add_first_frame()
    instruments.close(pacer.counts)


@pytest.mark.parametrize("seed", range(5))
def test_a_trace_paced_again_gives_the_counts_of_the_walk_itself_each_time(
    session: HolodeckSession, tmp_path: Path, seed: int
) -> None:
    trace_walk(tmp_path / "walk.jsonl", session, seed)
    first, second = replay_pacing(read_trace(tmp_path / "walk.jsonl"))
    assert replay_pacing(read_trace(tmp_path / "walk.jsonl")) == [first, second]
    for rollout in (first, second):
        assert rollout.traced is not None
        assert rollout.counts.shown == rollout.traced.shown
        assert rollout.counts == rollout.traced
    assert first.counts.holds > 0
    assert first.counts.overlaps > 0
    assert first.num_chunks > 25
    usual_ms, late_ms = first.early_ms
    assert late_ms < 0.0, "the stall was late"
    assert -1e3 * TICK_S < usual_ms < 1e3 * CONFIG.chunk_s


def test_another_pacer_gives_other_counts(
    session: HolodeckSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_walk(tmp_path / "walk.jsonl", session, 0)
    before = replay_pacing(read_trace(tmp_path / "walk.jsonl"))
    hasty = PacingConfig(16.0, 4, margin_s=0.2)
    monkeypatch.setattr("client.playback.pacing_replay.PacingConfig", lambda *_, **__: hasty)
    after = replay_pacing(read_trace(tmp_path / "walk.jsonl"))
    # Most of the time held is the stall's, which no margin is for.
    assert after[0].counts.holds < before[0].counts.holds
    assert after[0].traced == before[0].traced


def test_every_input_has_its_line_with_both_answers_apart(session: HolodeckSession, tmp_path: Path) -> None:
    trace_walk(tmp_path / "walk.jsonl", session, 2)
    lines = list(read_trace(tmp_path / "walk.jsonl"))
    assert isinstance(lines[0], StartLine)
    assert [line.kind for line in lines if isinstance(line, MarkLine)] == [
        "begin",
        "pause",
        "resume",
        "begin",
    ]
    inputs = [line for line in lines if isinstance(line, InputLine)]
    chunks = [line for line in lines if isinstance(line, ChunkLine)]
    assert len(inputs) >= 15
    for line in inputs:
        assert line.at_s <= line.latched_s <= line.model_start_s < line.ready_s <= line.shown_s
        assert line.model_ms == pytest.approx(1e3 * (line.shown_s - line.at_s))
        assert line.warped_ms is None
        made = next(chunk for chunk in chunks if chunk.chunk_index == line.chunk_index)
        assert made.latched_s == line.latched_s
    assert sum(chunk.answers for chunk in chunks) > 10
    assert sum(isinstance(line, CountsLine) for line in lines) == 2


def test_a_crash_loses_no_line_but_the_one_being_written(session: HolodeckSession, tmp_path: Path) -> None:
    path = tmp_path / "walk.jsonl"
    writer = TraceWriter(path)
    instruments = Statistics(session, CONFIG)
    instruments.begin(1.0, FramePacer(CONFIG).counts)
    instruments.start_trace(writer)
    for i in range(10):
        instruments.note_tick(float(i), True)
        assert len(path.read_bytes().splitlines()) == 3 + i, "handed over at once"
    writer.close()
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    assert [line.at_s for line in read_trace(path) if isinstance(line, TickLine)] == [
        float(i) for i in range(9)
    ]
    (rollout,) = replay_pacing(read_trace(path))
    assert rollout.traced is None
    assert rollout.counts.shown == 1


def test_a_full_disk_ends_the_trace_and_not_the_walk(session: HolodeckSession, tmp_path: Path) -> None:
    path = tmp_path / "walk.jsonl"
    instruments = Statistics(session, CONFIG)
    instruments.start_trace(TraceWriter(path))
    instruments.note_tick(0.0, True)
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
    try:
        instruments.note_tick(1.0, True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    problem = instruments.take_problem()
    assert problem is not None
    assert "ends here" in str(problem)
    assert instruments.take_problem() is None
    instruments.note_tick(2.0, True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "was cut before its walk began"),
        (b'{"kind":"tick","at_s":1.0,"asks":true}\n', "does not belong there"),
        (b"\xff\xfe\n", "line 1 of"),
        (b'{"kind":"tick","at_s":NaN,"asks":true}\n', "line 1 of"),
        (b'{"kind":"tick","at_s":1e999,"asks":true}\n', "line 1 of"),
        (b'{"kind":"sandwich"}\n', "line 1 of"),
        (b"[" * 4000 + b"\n", "line 1 of"),
        (b"x" * 5000 + b"\n", "too long"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, complaint: str
) -> None:
    path = tmp_path / "walk.jsonl"
    path.write_bytes(content)
    assert run(["bench", "--pacing", str(path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error


def test_a_trace_is_paced_again_from_the_command_line(
    session: HolodeckSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "walk.jsonl"
    trace_walk(path, session, 1)
    assert run(["bench", "--pacing", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [rollout["counts"] == rollout["traced"] for rollout in result["rollouts"]] == [True, True]
    assert run(["bench", "--pacing", str(path)]) == 0
    assert "before they are shown" in capsys.readouterr().out
    assert run(["bench", "--pacing", str(tmp_path / "none.jsonl")]) == 2
    assert "check the path" in capsys.readouterr().err


def test_a_trace_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "walk.jsonl").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        TraceWriter(tmp_path / "walk.jsonl")
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        TraceWriter(tmp_path / "walk.txt")


def test_writing_a_tick_takes_no_time_to_speak_of(session: HolodeckSession, tmp_path: Path) -> None:
    instruments = Statistics(session, CONFIG)
    instruments.start_trace(TraceWriter(tmp_path / "walk.jsonl"))
    began_s = time.thread_time()
    for i in range(1000):
        instruments.note_tick(float(i), True)
    # A display frame is 16.7 ms; a hundredth of it leaves room for a slow disk and a busy machine.
    assert time.thread_time() - began_s < 1000 * 0.000167
    instruments.close(FramePacer(CONFIG).counts)


def test_something_else_than_a_trace_is_not_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "walk.jsonl"
    path.write_text('{"kind":"start","format_version":2}\n')
    with pytest.raises(SpecMismatch, match="line 1"):
        list(read_trace(path))
