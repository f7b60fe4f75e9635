"""Random hands for a few seconds, and for the ten minutes that are promised where slow tests are asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.playback.resource_usage import ResourceUsage
from scripts.stroll import Report

ROOT = Path(__file__).resolve().parent.parent


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, f"scripts/{script}.py", *arguments, "--json"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(script: subprocess.Popen[str], timeout_s: float, statuses: tuple[int, ...]) -> dict[str, Any]:
    out, err = script.communicate(timeout=timeout_s)
    assert script.returncode in statuses, out + err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def started(worlds: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Both scripts side by side: most of the time they wait for the clock."""
    random_hands = ["--minutes", "0.1", "--seed", "7", "--backend", "holodeck", "--worlds", str(worlds)]
    with start("soak", *random_hands) as soak, start("stroll", "--minutes", "0.15") as stroll:
        yield {"soak": soak, "stroll": stroll}
        soak.kill()
        stroll.kill()


def test_seconds_of_random_events_end_no_screen_and_leave_nothing_open(
    started: dict[str, subprocess.Popen[str]],
) -> None:
    found = report(started["soak"], 120, (0, 1))
    assert found["events"] > 900
    assert found["screens"]["WalkScreen"] >= 1
    assert found["problems"] == []
    assert found["leaks"] == []


@pytest.mark.slow
def test_ten_minutes_of_random_events_leave_nothing_behind() -> None:
    found = report(start("soak", "--minutes", "10"), 1200, (0, 1))
    assert found["events"] > 95_000
    assert found["problems"] == []
    assert found["leaks"] == []


def test_seconds_of_calm_play_are_recorded_whole_and_leave_nothing_open(
    started: dict[str, subprocess.Popen[str]],
) -> None:
    found = report(started["stroll"], 600, (0,))
    assert found["problems"] == found["leaks"] == []
    assert found["recordings"] >= 2
    assert found["recorded_chunks"] >= found["recordings"]
    assert len(found["at_rest"]) == 2


@pytest.mark.parametrize(
    ("memory_mb", "past_mb", "growth_mb"),
    [
        # A past that fills late, and a new world that empties it, are no growth.
        ([277, 303, 445, 493, 377, 352, 506, 509, 573], [60, 80, 190, 256, 20, 40, 256, 256, 256], 80),
        ([290, 300, 310, 320, 330, 500], [10, 20, 30, 40, 60, 230], -10),
        ([556, 558, 580, 616, 700, 977, 980, 1150, 1327], [256] * 9, 350),
        ([400, 401], [256, 256], 1),
        ([], [], 0),
    ],
)
def test_a_stroll_judges_the_most_that_was_held_but_for_the_past(
    memory_mb: list[int], past_mb: list[int], growth_mb: int
) -> None:
    judged = Report(0, 0.0, "town", "auto")
    judged.each_minute = [ResourceUsage(held << 20, 1, 10) for held in memory_mb]
    judged.past_bytes = [held << 20 for held in past_mb]
    assert judged.growth_mb == growth_mb
