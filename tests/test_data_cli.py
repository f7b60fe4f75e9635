"""`flaneur data`: sets are made, encoded and shown, and mistakes are one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cli.app import run
from engine.camera.formats.track_files import save_track
from engine.camera.tracks import Track
from engine.files.video import open_video
from engine.machine import assets

shipped = pytest.mark.skipif(
    not assets.checkpoints_dir().is_dir(), reason="this checkout has no assets/checkpoints"
)


def said(capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    captured = capsys.readouterr()
    return json.loads(captured.out.splitlines()[-1]), captured.err


@shipped
def test_a_set_is_made_once_shown_and_its_sheet_has_a_row_for_each_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make = ["data", "make", "-o", "SET", "--places", "town", "--families", "orbit,dolly", "--clips", "2"]
    make = [str(tmp_path / "set") if word == "SET" else word for word in make]
    make += [
        "--frames",
        "9",
        "--revisits",
        "1",
        "--sheet",
        str(tmp_path / "sheet.png"),
        "--overwrite",
        "--json",
    ]
    assert run(make) == 0
    made, _ = said(capsys)
    assert (made["clips"], made["frames"], made["scenes"]) == (2, 18, {"town": 2})
    assert (made["rejected"], made["broken"], made["camera_captions"]) == (0, 0, 0)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[0] == 2 * 192
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "rendered").iterdir()}
    assert run(make) == 0
    assert said(capsys)[0] == made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / "rendered").iterdir()} == stamps
    assert run(["data", "show", str(tmp_path / "set"), "--json"]) == 0
    assert said(capsys)[0] == made


@shipped
def test_films_are_encoded_once_and_what_is_left_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    videos = tmp_path / "videos"
    videos.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (17, 96, 160, 3)).astype(np.uint8)
    for name in ("street", "lonely"):
        with open_video(videos / f"{name}.mp4", (160, 96), 16.0) as writer:
            writer.write(frames)
    lens = np.tile([104.0, 104.0, 80.0, 48.0], (17, 1))
    save_track(Track(np.tile(np.eye(4), (17, 1, 1)), lens), videos / "street.npz")
    encode = ["data", "encode", str(videos), "-o", str(tmp_path / "set"), "--json"]
    for encoded_now in (1, 0):
        assert run(encode) == 0
        result, notes = said(capsys)
        assert (result["clips"], result["encoded_now"], result["broken"]) == (1, encoded_now, 1)
        assert "lonely.mp4 has no poses beside it" in notes
    assert run(["data", "show", str(tmp_path / "set")]) == 0
    assert "clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["make", "-o", "SET", "--places", "atlantis"], "no place is called 'atlantis'"),
        (["make", "-o", "SET", "--families", "orbit,swoop"], "no camera family is called 'swoop'"),
        (["make", "-o", "SET", "--places", ","], "name at least one place"),
        (["show", "SET"], "holds no clips"),
        (["encode", "SET", "-o", "OUT"], "there is no folder"),
        (["encode", ".", "-o", "OUT", "--overlap", "2000"], "cannot overlap"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
):
    monkeypatch.chdir(tmp_path)
    assert run(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
