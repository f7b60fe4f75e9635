"""No command writes over a file unless it is told to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import cli.app

OUTPUTS: dict[str, tuple[str, Sequence[str]]] = {
    "recording": ("o.flaneur", ["play", "town", "--headless", "--chunks", "1", "--record"]),
    "video": ("o.mp4", ["play", "town", "--headless", "--chunks", "1", "--video"]),
    "frames": ("o.npz", ["play", "town", "--headless", "--chunks", "1", "--frames"]),
    "recording of a window": ("o.flaneur", ["play", "town", "--record"]),
    "trace": ("o.jsonl", ["play", "town", "--trace"]),
    "video of a replay": ("o.mp4", ["replay", "walk.npy", "--video"]),
    "frames of a replay": ("o.npz", ["replay", "walk.npy", "--frames"]),
    "track": ("o.npy", ["track", "convert", "w-8"]),
    "world": ("o.world", ["world", "create", "photo.png", "--prompt", "a street", "-o"]),
    "sheet": ("o.png", ["data", "make", "-o", "set", "--sheet"]),
    "pictures": ("o.png", ["export", "verify", "pocket", "--pictures"]),
    "refiner": ("o.npz", ["export", "refiner", "weights", "-o"]),
    "ablation": ("o.md", ["train", "ablation", "-o"]),
}


@pytest.mark.parametrize("what", OUTPUTS)
def test_a_file_that_is_there_is_refused_and_left_alone(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, arguments = OUTPUTS[what]
    file = tmp_path / name
    file.write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert cli.app.run([*arguments, name]) == 2
    assert f"{name} exists already; name another, or give --overwrite" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file], "nothing else was begun"


def test_tables_of_an_evaluation_are_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.json").write_text("mine")
    assert cli.app.run(["eval", "-o", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_what_is_to_be_written_over_is(tmp_path: Path) -> None:
    files = {"--record": "o.flaneur", "--video": "o.mp4", "--frames": "o.npz"}
    arguments = ["play", "town", "--headless", "--chunks", "1", "--backend", "holodeck", "--overwrite"]
    for option, name in files.items():
        (tmp_path / name).write_text("mine")
        arguments += [option, str(tmp_path / name)]
    assert cli.app.run(arguments) == 0
    assert all((tmp_path / name).read_bytes() != b"mine" for name in files.values())
    assert cli.app.run(["track", "convert", "w-8", str(tmp_path / "o.npz"), "--overwrite"]) == 0
