"""Networks of other environments: asked by a program that runs there, here beside packages that stand in for them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("numba")

from cli.app import run
from engine.files.video import open_video
from evaluation.bench_costs import Costs, read_costs
from evaluation.bench_films import FilmScore
from evaluation.bench_networks import VBENCH_DIMENSIONS, NetworkScores, open_networks
from evaluation.bench_tables import films_table
from evaluation.environments.dover_scores import fused
from evaluation.environments.other_python import OtherPython

PYIQA = """
import torch

print("a package that talks on stdout")

def create_metric(name, device):
    def musiq(pictures):
        return 100 * pictures.mean((1, 2, 3))
    def lpips(first, second):
        return (first - second).abs().mean().reshape(1, 1)
    return {"musiq": musiq, "lpips": lpips}[name]
"""
VBENCH = """
import json, os

class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.output_path = output_path

    def evaluate(self, videos_path, name, dimension_list, mode):
        assert mode == "custom_input" and os.path.isfile(videos_path)
        scores = {d: [0.1 * n, [{"video_path": videos_path}]] for n, d in enumerate(dimension_list)}
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump(scores, file)
"""
HERE = Path(sys.executable)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twenty frames, each lighter than the one before."""
    frames = np.empty((20, 64, 96, 3), np.uint8)
    frames[:] = 10 * np.arange(20, dtype=np.uint8)[:, None, None, None]
    path = tmp_path / "indoor_001.mp4"
    with open_video(path, (96, 64), 16) as writer:
        writer.write(frames)
    return path


def environment(folder: Path, monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    """Let other Pythons find packages that stand in for the real ones."""
    for name, source in packages.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_frames_and_pairs_are_scored_in_the_environment_of_the_networks(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    environment(tmp_path, monkeypatch, pyiqa=PYIQA, vbench=VBENCH)
    with open_networks(HERE, HERE) as networks:
        assert networks.names == ["pyiqa", "vbench"]
        found = networks.score(film, [range(0, 8, 4), range(12, 20, 4)], [(2, 18)])
        # The process stays for the next video.
        again = networks.score(film, [range(0, 8, 4), range(12, 20, 4)], [])
    assert found.musiq == pytest.approx((100 * 20 / 255, 100 * 140 / 255), abs=1.5)
    assert found.lpips == pytest.approx(160 / 255, abs=0.02)
    assert again.lpips is None
    assert list(found.vbench) == list(VBENCH_DIMENSIONS)
    assert found.vbench["imaging_quality"] == pytest.approx(0.5)


def test_nothing_is_asked_where_no_environment_is_named(film: Path):
    with open_networks(None, None) as networks:
        assert networks.score(film, [range(2), range(2, 4)], [(0, 1)]) == NetworkScores()


def test_what_is_missing_in_an_environment_is_one_sentence(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    environment(tmp_path, monkeypatch, pyiqa="import no_such_package\n")
    with (
        open_networks(HERE, None) as networks,
        pytest.raises(ValueError, match="pyiqa cannot be used in the"),
    ):
        networks.score(film, [range(2), range(2, 4)], [])
    offline = 'def create_metric(name, device):\n    raise OSError("cannot reach the hub")\n'
    environment(tmp_path, monkeypatch, pyiqa=offline)
    with open_networks(HERE, None) as networks, pytest.raises(ValueError, match="cannot reach the hub"):
        networks.score(film, [range(2), range(2, 4)], [])
    with pytest.raises(ValueError, match="name the Python of an environment with pyiqa"):
        OtherPython(tmp_path / "no-python", "pyiqa_scores", "pyiqa").ask({})
    assert run(["eval", "--pyiqa-python", str(HERE)]) == 2


def test_a_video_that_ends_early_is_named(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment(tmp_path, monkeypatch, pyiqa=PYIQA)
    with open_networks(HERE, None) as networks, pytest.raises(ValueError, match="ends before its frame 40"):
        networks.score(film, [range(2), range(2, 4)], [(0, 40)])


def test_the_table_has_what_networks_said_and_what_videos_cost(tmp_path: Path):
    plain = FilmScore("ours", "indoor_001", "indoor", 10.0, {}, None, 0, {}, 0.25)
    networks = NetworkScores((70.0, 66.5), 0.4321, {"imaging_quality": 0.5, "dynamic_degree": 1.0})
    (tmp_path / "costs.json").write_text('{"videos_per_hour": 30.0, "peak_memory_bytes": 51100000000}')
    costs = {"asked": read_costs(tmp_path)}
    scores = [plain, replace(plain, videos="asked", networks=networks)]
    lines = films_table("simple", scores, costs).splitlines()
    [ours] = [line for line in lines if line.startswith("| ours, all")]
    [asked] = [line for line in lines if line.startswith("| asked, all")]
    assert "25% of sharpness" in ours
    assert "| 0.432 |" in asked
    assert "| 3.50 of 100 | 75.00 | 30.0 | 51.1 GB |" in asked
    (tmp_path / "costs.json").write_text('{"videos_per_hour": "many"}')
    with pytest.raises(ValueError, match="is no JSON object with videos_per_hour"):
        read_costs(tmp_path)
    assert read_costs(tmp_path / "elsewhere") == Costs()


def test_dover_s_scores_are_fused_as_its_authors_do():
    assert fused(0.1107, 0.08285) == pytest.approx(0.5)
    assert fused(0.1107 + 0.07355, 0.08285) == pytest.approx(1 / (1 + np.exp(-0.6104)))
