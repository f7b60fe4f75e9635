"""The benchmark with a truth: its files, its baselines, and the scores of videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from cli.app import run
from engine.camera.tracks import at_fps
from evaluation import bench_films, bench_set
from evaluation.bench_layout import read_bench
from evaluation.benchmark_tracks import RADIUS_M
from evaluation.film_reading import read_film
from holodeck import get_place
from holodeck.walks import clear_points

SECONDS = "10"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_set, "CATEGORIES", {"outdoor-city": ("street",)})
        patch.setattr(bench_set, "SIZE", (320, 180))
        patch.setattr(bench_set, "LENS", np.array([208.0, 208.0, 160.0, 90.0], np.float32))
        assert bench_set.make_bench_set(folder, 1, lambda done: None) == 1
    return folder


@pytest.mark.parametrize("split", ["simple", "hard"])
def test_scenes_have_picture_track_words_place_and_pairs(bench, split):
    [scene], broken = read_bench(bench, split)
    assert broken == []
    assert (scene.name, scene.category) == ("outdoor-city_001", "outdoor-city")
    assert scene.place is not None
    place = get_place(scene.place)
    assert scene.prompt == place.caption
    track = at_fps(scene.track(), 16.0)
    assert track.num_frames == 961
    np.testing.assert_allclose(track.c2w[0], np.eye(4), atol=1e-9)
    assert clear_points(place, (place.spawn @ track.c2w)[::8, :3, 3], RADIUS_M).all()
    assert 0 < len(scene.pairs) <= 5


def test_categories_and_places_do_not_depend_on_how_many_scenes_are_made():
    two = [(scene.name, scene.place.name) for scene in bench_set.choose_scenes(1)]
    assert [name for name, _ in two] == [f"{category}_001" for category in bench_set.CATEGORIES]
    assert all(int(place.split("-")[1]) > bench_set.FIRST_SEED for _, place in two)


def test_the_truth_follows_its_track_and_a_frozen_picture_does_not(bench, tmp_path, capsys):
    scores = {}
    for kind in ("truth", "first-frame"):
        films = tmp_path / kind
        options = ["--of", kind, "--seconds", SECONDS, "-o", str(films)]
        assert run(["bench-set", "films", str(bench), *options, "--frame-size", "160x96"]) == 0
        judged = [
            "--films",
            str(films),
            "--seconds",
            SECONDS,
            "--metrics",
            "psnr",
            "-o",
            str(tmp_path / f"{kind}-scores"),
        ]
        capsys.readouterr()
        assert run(["eval", "--bench", str(bench), "--tracks", "simple", *judged, "--json"]) == 0
        [scores[kind]] = json.loads(capsys.readouterr().out.splitlines()[-1])["films"]
        table = (tmp_path / f"{kind}-scores" / "films.md").read_text()
        assert "| SANA-WM, refined (paper) | 80 | 4.50 | 1.39 | 1.41 |" in table
        assert f"| {kind}, all | 1 |" in table
        assert "| 24.1 | 51.1 GB |" in table
        # The same call again scores nothing anew, and the same folder is not written over with other scores.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench_films, "score_film", None)
            assert run(["eval", "--bench", str(bench), "--tracks", "simple", *judged, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["films"] == [scores[kind]]
        assert run(["eval", "--bench", str(bench), "--tracks", "simple", *judged, "--metrics", "gmsd"]) == 2
        assert "is of other videos, scenes or options" in capsys.readouterr().err
    true, frozen = scores["truth"], scores["first-frame"]
    assert true["seconds"] == frozen["seconds"] == 10.0
    assert true["camera"]["as_is"]["rotation_deg"] < 0.6
    assert true["camera"]["as_is"]["translation_m"] < 0.1
    assert true["likeness"]["psnr"] > frozen["likeness"]["psnr"] + 8.0
    assert abs(true["sharpness_lost"]) < 0.1
    assert frozen["camera"]["num_located"] < true["camera"]["num_located"]


def test_videos_are_read_at_the_benchmarks_rate_whatever_their_own(tmp_path):
    from engine.files.video import open_video

    frames = np.random.default_rng(0).integers(0, 255, (61, 96, 160, 3)).astype(np.uint8)
    with open_video(tmp_path / "fast.mp4", (160, 96), 30) as writer:
        writer.write(frames)
    assert read_film(tmp_path / "fast.mp4", 60.0).shape == (33, 192, 320, 3)
    assert len(read_film(tmp_path / "fast.mp4", 1.0)) == 17
    (tmp_path / "none.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot read the video"):
        read_film(tmp_path / "none.mp4", 1.0)


def test_a_wrong_call_is_one_sentence(bench, tmp_path, capsys):
    assert run(["eval", "--films", str(tmp_path)]) == 2
    assert "--films goes with --bench" in capsys.readouterr().err
    assert run(["eval", "--bench", str(bench), "--tracks", "hard", "--films", str(tmp_path)]) == 2
    assert "holds no video of the scenes" in capsys.readouterr().err
