"""SANA-WM-Bench's file layout: read, checked, rolled out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cli.app import run
from engine.machine import assets
from evaluation.bench_costs import read_costs
from evaluation.bench_layout import first_of_each, read_bench
from evaluation.benchmark_tracks import simple_track
from holodeck import get_place

NUM_FRAMES = 49
INTRINSICS = np.array([[832.0, 0, 640], [0, 832.0, 360], [0, 0, 1]])


def make_bench(folder: Path, names: list[str], split: str = "benchmark_v2_smooth_60s") -> Path:
    """Lay out files as the benchmark has them: pictures of 1280x720 and tracks with intrinsics of that size."""
    pytest.importorskip("scipy")
    (folder / "images").mkdir(parents=True)
    (folder / "scene_set").mkdir()
    tracks = folder / split / "sanawm_export_v2"
    tracks.mkdir(parents=True)
    (folder / "scene_set" / "kept_scenes.txt").write_text("\n".join(names) + "\n")
    place = get_place("garden")
    frame = place.render(place.spawn, np.array([208.0, 208.0, 160.0, 90.0], np.float32), 320, 180)
    picture = cv2.resize(frame, (1280, 720))[..., ::-1]
    poses = np.linalg.inv(place.spawn) @ simple_track(place, NUM_FRAMES, 16, 0)
    for name in names:
        cv2.imwrite(str(folder / "images" / f"{name}.png"), picture)
        intrinsics = np.repeat(INTRINSICS[None], NUM_FRAMES, 0)
        np.savez(tracks / f"{name}.npz", c2w=poses, intrinsics=intrinsics, fps=16, num_frames=NUM_FRAMES)
    return folder


def test_the_layout_gives_scenes_with_their_tracks(tmp_path):
    names = ["indoor_001", "outdoor-city_001", "outdoor-city_002"]
    folder = make_bench(tmp_path / "bench", names)
    scenes, broken = read_bench(folder, "simple")
    assert [scene.name for scene in scenes] == names
    assert [scene.category for scene in scenes] == ["indoor", "outdoor-city", "outdoor-city"]
    assert broken == []
    track = scenes[0].track()
    assert (track.num_frames, track.fps) == (NUM_FRAMES, 16)
    assert track.intrinsics is not None
    assert track.intrinsics[0].tolist() == [832, 832, 640, 360]
    assert [scene.name for scene in first_of_each(scenes, 1)] == names[:2]
    (folder / "images" / "indoor_001.png").unlink()
    assert read_bench(folder, "simple")[1] == ["indoor_001"]


def test_categories_may_have_underscores(tmp_path):
    names = ["game_style_001", "game_style_002", "outdoor-city_001"]
    scenes, _ = read_bench(make_bench(tmp_path / "bench", names), "simple")
    assert [scene.category for scene in scenes] == ["game_style", "game_style", "outdoor-city"]
    assert [scene.name for scene in first_of_each(scenes, 1)] == ["game_style_001", "outdoor-city_001"]


def test_what_is_not_the_benchmark_is_refused_in_one_sentence(tmp_path):
    folder = make_bench(tmp_path / "bench", ["game_001"])
    with pytest.raises(ValueError, match="no folder benchmark_v2_hard_60s"):
        read_bench(folder, "hard")
    listed = folder / "scene_set" / "kept_scenes.txt"
    listed.write_text("../../etc/passwd_001\n")
    with pytest.raises(ValueError, match="names look like outdoor-city_001"):
        read_bench(folder, "simple")
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        read_bench(folder, "simple")
    listed.write_text("game_777\n")
    with pytest.raises(ValueError, match="no scene in"):
        read_bench(folder, "simple")
    listed.unlink()
    with pytest.raises(ValueError, match="cannot read"):
        read_bench(folder, "simple")
    tracks = folder / "benchmark_v2_smooth_60s" / "sanawm_export_v2" / "game_001.npz"
    listed.write_text("game_001\n")
    np.savez(tracks, c2w=np.tile(np.eye(4), (5, 1, 1)))
    with pytest.raises(ValueError, match="lacks intrinsics or fps"):
        read_bench(folder, "simple")[0][0].track()
    tracks.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="not a readable"):
        read_bench(folder, "simple")[0][0].track()


def without_cost(score: dict) -> dict:
    return {name: value for name, value in score.items() if name != "cost"}


@pytest.mark.skipif(not assets.checkpoints_dir().is_dir(), reason="this checkout has no assets/checkpoints")
def test_eval_rolls_the_benchmarks_pictures_out(tmp_path, capsys):
    pytest.importorskip("PIL")
    folder = make_bench(tmp_path / "bench", ["game_001", "game_002", "indoor_001"])
    (folder / "images" / "game_002.png").unlink()
    options = [
        "--tracks",
        "simple",
        "--seconds",
        "1",
        "--metrics",
        "psnr",
        "-o",
        str(tmp_path / "out"),
        "--json",
    ]
    assert run(["eval", "--bench", str(folder), *options]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert [score["scene"] for score in result["scenes"]] == ["game_001", "indoor_001"]
    assert "1 scenes lack an image or a track" in said.err
    for score in result["scenes"]:
        assert score["seconds"] == 1
        assert 0 < score["sharpness"][0] < 2
    table = (tmp_path / "out" / "bench.md").read_text()
    assert "| game | 1 |" in table
    assert "| all | 2 |" in table
    assert (tmp_path / "out" / "indoor_001.png").stat().st_size > 2000
    costs = read_costs(tmp_path / "out" / "films")
    assert costs.seconds_per_video == 1
    assert costs.videos_per_hour is not None
    # A stopped call goes on: what is there stays, what is missing is made anew, and alike.
    films = [tmp_path / "out" / "films" / f"{name}.mp4" for name in ("game_001", "indoor_001")]
    before = [path.stat().st_mtime_ns for path in films]
    films[1].unlink()
    assert run(["eval", "--bench", str(folder), *options]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [without_cost(score) for score in again["scenes"]] == [
        without_cost(score) for score in result["scenes"]
    ]
    assert again["scenes"][0] == result["scenes"][0]
    assert [path.stat().st_mtime_ns == at for path, at in zip(films, before, strict=True)] == [True, False]
    assert run(["eval", "--bench", str(folder), *options, "--seconds", "2"]) == 2
    assert "is of other videos, scenes or options" in capsys.readouterr().err
    assert run(["eval", "--bench", str(folder)]) == 2
    assert "--tracks simple or --tracks hard" in capsys.readouterr().err
    assert run(["eval", "--bench", str(folder), *options, "--unseen"]) == 2
    assert "leave --unseen and --ablate out" in capsys.readouterr().err
