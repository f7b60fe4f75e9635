"""The past of a walk: bounded, thinned out toward its beginning, and never mixing branches."""

import hashlib

import numpy as np
import pytest

from client.playback.history import MAX_BRANCHES, Branch, History, WalkFrame, WalkSnapshot
from client.playback.recorder import num_shared
from engine.files.recording import RecordedChunk
from engine.types import CameraTrack, Snapshot

STATE_BYTES = 1000
FRAME_BYTES = 12


def moment(number: int) -> WalkSnapshot:
    frame = WalkFrame(4 * number, np.zeros((2, 2, 3), np.uint8), np.eye(4), number)
    arrays = {"state.memory": np.full(STATE_BYTES, number % 256, np.uint8)}
    return WalkSnapshot(number, frame, Snapshot("toy", 0, number + 1, np.eye(4), arrays), None, None)


def chunk(number: int, line: str = "a") -> RecordedChunk:
    track = CameraTrack(np.tile(np.eye(4), (4, 1, 1)), np.ones((4, 4), np.float32))
    sha256 = hashlib.sha256(f"{line}{number}".encode()).hexdigest()
    return RecordedChunk(number, track, sha256, np.empty((0, 11)))


def walk_to(past: History, last: int, first: int = 1) -> None:
    for number in range(first, last + 1):
        past.add(moment(number))


def numbers(past: History) -> list[int]:
    return [moment.number for moment in past.snapshots]


@pytest.mark.parametrize("num_moments", [5, 12, 40])
def test_the_past_keeps_to_its_budget_however_long_the_walk(num_moments: int) -> None:
    past = History(num_moments * (STATE_BYTES + FRAME_BYTES))
    for number in range(1, 2000):
        past.add(moment(number))
        assert past.num_bytes == sum(moment.num_bytes for moment in past.snapshots) <= past.budget_bytes
    assert len(past.snapshots) == num_moments
    assert numbers(past)[0] == 1
    assert numbers(past)[-1] == 1999


def test_the_last_seconds_are_kept_whole_and_gaps_grow_with_age() -> None:
    past = History(40 * (STATE_BYTES + FRAME_BYTES))
    walk_to(past, 1000)
    kept = numbers(past)
    assert kept[-5:] == [996, 997, 998, 999, 1000]
    gaps, ages = np.diff(kept), 1000 - np.array(kept[:-1])
    assert (gaps <= np.maximum(2, 0.75 * ages)).all()
    assert gaps[0] > 50


def test_a_moment_is_found_by_the_chunks_walked() -> None:
    past = History(1 << 20)
    walk_to(past, 5)
    assert (found := past.at(3)) is not None
    assert found.number == 3
    assert past.at(0) is None


def test_branching_off_forgets_what_came_after_and_keeps_it_as_a_branch() -> None:
    past, walked = History(1 << 20), [chunk(n) for n in range(6)]
    walk_to(past, 6)
    target = past.at(2)
    assert target is not None
    left = past.branch_off(target, walked, 2)
    assert left is not None
    assert (left.name, left.tip.number, len(left.chunks)) == (1, 6, 6)
    assert numbers(past) == [1, 2]
    assert past.name == 2


def test_a_branch_with_nothing_new_in_it_is_not_kept() -> None:
    past, walked = History(1 << 20), [chunk(n) for n in range(6)]
    walk_to(past, 6)
    past.branch_off(past.snapshots[3], walked, 4)
    assert past.branch_off(past.snapshots[1], walked[:4], 2) is None
    assert [branch.name for branch in past.branches] == [1]


def test_two_branches_change_places_without_mixing_their_moments() -> None:
    past, first = History(1 << 20), [chunk(n) for n in range(6)]
    walk_to(past, 6)
    past.branch_off(past.snapshots[1], first, 2)
    second = first[:2] + [chunk(n, "b") for n in range(2, 5)]
    walk_to(past, 5, first=3)

    def shared(branch: Branch) -> int:
        return num_shared(second, branch.chunks)

    back = past.return_to_last(second, shared)
    assert (back.name, past.name) == (1, 1)
    assert numbers(past) == [1, 2, 6]
    again = past.return_to_last(first, lambda branch: num_shared(first, branch.chunks))
    assert (again.name, numbers(past)) == (2, [1, 2, 5])


def test_a_loaded_walk_leaves_no_foreign_moment_to_go_back_to() -> None:
    past, walked = History(1 << 20), [chunk(n) for n in range(6)]
    walk_to(past, 6)
    loaded = moment(9)
    past.branch_off(loaded, walked, 0)
    assert list(past.snapshots) == [loaded]
    assert past.branches[-1].tip.number == 6


def test_loading_the_newest_moment_of_a_full_past_takes_its_place() -> None:
    past, walked = History(6 * (STATE_BYTES + FRAME_BYTES)), [chunk(n) for n in range(20)]
    walk_to(past, 20)
    loaded = moment(20)
    past.branch_off(loaded, walked, 20)
    assert past.newest is loaded
    assert numbers(past).count(20) == 1
    assert past.num_bytes <= past.budget_bytes


def test_branches_count_in_the_budget_and_are_few() -> None:
    past = History(6 * (STATE_BYTES + FRAME_BYTES))
    for line in range(20):
        walk_to(past, 8, first=past.snapshots[-1].number + 1 if past.snapshots else 1)
        walked = [chunk(n, str(line)) for n in range(8)]
        past.branch_off(past.snapshots[0], walked, past.snapshots[0].number)
        assert past.num_bytes <= past.budget_bytes
        assert len(past.branches) <= MAX_BRANCHES


def test_a_budget_for_no_film_is_told_apart() -> None:
    assert History(4 * 1000).has_room_for(1000)
    assert not History(4 * 1000 - 1).has_room_for(1000)
