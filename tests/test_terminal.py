"""What the commands show to a person at a terminal, beyond the JSON that scripts read."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.app import run
from client.playback.captures import readable, save_photo

ROOT = Path(__file__).resolve().parent.parent


def test_a_measurement_shows_how_far_it_is_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "cli.app",
        "bench",
        "--backend",
        "holodeck",
        "--chunks",
        "3",
        "--json",
    ]
    environ = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, env=environ) as bench:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert bench.wait(60) == 0
    os.close(ours)
    assert b"measuring" in shown
    assert b"3/3" in shown


def test_a_photo_is_described_by_place_and_angles_and_in_json_by_its_matrix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c2w = np.eye(4)
    c2w[:3, 3] = (2.0, -1.6, 0.5)
    file = tmp_path / "photo.png"
    told = {"world": "town", "c2w": c2w.tolist(), "intrinsics": [104, 104, 80, 48], "frame_size": [160, 96]}
    save_photo(file, np.zeros((4, 4, 3), np.uint8), told)
    assert run(["describe", str(file)]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    said = {name: value.strip() for name, value in lines.items()}
    assert said["place"] == "2.0 m right, 1.6 m up, 0.5 m ahead"
    assert said["view"] == "yaw 0.0, pitch 0.0, roll 0.0 deg"
    assert said["intrinsics"] == "fx 104, fy 104, cx 80, cy 48 px"
    assert said["frame size"] == "160 x 96 px"
    assert run(["describe", str(file), "--json"]) == 0
    assert '"c2w": [[1.0, 0.0' in capsys.readouterr().out


def test_it_is_told_whose_key_map_a_file_means() -> None:
    assert readable({"key_map": "current"}) == {"key_map": "current, of action strings"}
    assert readable({"key_map": "1"}) == {"key_map": "1, of the window"}


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("train pocket --dry-run", "train"),
        ("train needs", "train"),
        ("train minute-camera --dry-run", "train"),
        ("eval", "eval"),
        ("data show SET", "data"),
        ("export onnx", "export"),
    ],
)
def test_what_needs_torch_says_how_to_get_it_and_its_extra(arguments: str, extra: str) -> None:
    without = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None"
    program = f"{without}; from cli.app import main; main()"
    command = [sys.executable, "-c", program, *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert "-m pip install 'torch==2.13.*' && " in done.stderr
    assert done.stderr.endswith(f"-m pip install -e '.[{extra}]'\n")


@pytest.mark.parametrize(
    "value", [None, "here", [1, 2], [[{}]], [float("nan")] * 16, 10**400, [[10**400]] * 16]
)
def test_what_is_no_pose_is_told_as_it_is(value: object) -> None:
    assert readable({"c2w": value}) == {"c2w": value}
