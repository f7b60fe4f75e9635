"""Random hands for a few seconds, and for the ten minutes that are promised where slow tests are asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def soak(*arguments: str, timeout_s: float) -> dict[str, Any]:
    command = [sys.executable, "scripts/soak.py", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_seconds_of_random_events_end_no_screen_and_leave_nothing_open(worlds: Path) -> None:
    found = soak(
        "--minutes", "0.1", "--seed", "7", "--backend", "holodeck", "--worlds", str(worlds), timeout_s=120
    )
    assert found["events"] > 900
    assert found["screens"]["WalkScreen"] >= 1
    assert found["problems"] == []
    assert found["leaks"] == []


@pytest.mark.slow
def test_ten_minutes_of_random_events_leave_nothing_behind() -> None:
    found = soak("--minutes", "10", timeout_s=1200)
    assert found["events"] > 95_000
    assert found["problems"] == []
    assert found["leaks"] == []


def test_a_minute_of_calm_play_is_recorded_whole_and_leaves_nothing_open() -> None:
    command = [sys.executable, "scripts/stroll.py", "--minutes", "0.2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == found["leaks"] == []
    assert found["recordings"] >= 2
    assert found["recorded_chunks"] > 8
    assert len(found["at_rest"]) == 2
