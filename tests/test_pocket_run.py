"""The whole way of `flaneur train pocket` in miniature: made in one go, made in spite of being killed, and played."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import export.onnx
from tests.exported_bundles import graphs_kept_in
from tests.forked_command import run_forked
from training.checkpoint import load_state, read_values
from training.pocket.build import prepare, train_pocket
from training.pocket.publish import WORLD_FILE
from training.pocket.run import PocketRun
from training.report.page import write_report
from training.run_folder import LOCK_FILE, read_record

pytestmark = [pytest.mark.slow, pytest.mark.every_change]

STAGES = ("autoencoder", "generator", "own-history", "decoder")
WEIGHTS = (".safetensors", ".world", ".onnx")


def training(runs: Path) -> list[str]:
    return ["train", "pocket", "--preset", "miniature", "--runs", str(runs), "--json"]


def printed(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported graphs: the same weights come again in several runs, and an export takes seconds."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def whole(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that was filled in one go."""
    runs = tmp_path_factory.mktemp("whole")
    made = printed(run_forked(*training(runs), graphs=graphs))
    assert made["report"] == str(runs / "report" / "index.html")
    return runs


def test_one_command_makes_worlds_that_play_and_a_report(whole: Path) -> None:
    assert all(read_values(whole / f"{stage}.state.safetensors")["finished"] for stage in STAGES)
    record = read_record(whole)
    assert record is not None
    assert {*STAGES} | {"rendering clips", "encoding clips", "publishing", "measuring"} <= set(record.seconds)
    page = (whole / "report" / "index.html").read_text()
    assert len(page) < 2_000_000
    assert page.count("data:image/jpeg") == 2
    for said in (*STAGES, "PSNR", "frames trained per second", "rollouts of clips"):
        assert said in page
    world, bundle = whole / "assets" / "worlds" / "garden.world", whole / "assets" / "bundles" / "pocket"
    asked = ["play", str(world), "--engine", str(bundle), "--headless", "--chunks", "3", "--actions", "w-6"]
    played = printed(run_forked(*asked, "--json"))
    assert (played["num_chunks"], len(played["latents_sha256"])) == (3, 3)


def test_parts_are_silenced_in_places_that_nothing_was_trained_on(whole: Path, tmp_path: Path) -> None:
    bundle = whole / "assets" / "bundles" / "pocket"
    asked = ["eval", str(bundle), "--ablate", "--unseen", "--seconds", "1.25"]
    made = printed(run_forked(*asked, "--metrics", "psnr", "-o", str(tmp_path / "parts"), "--json"))
    scores = {row["name"]: row["scores"]["psnr"] for row in made["rows"]}
    assert len(scores) == 8
    assert scores["without text"] != scores["the whole"]
    assert (tmp_path / "parts" / "text" / "garden-mirrored-hue140.png").exists()


def test_a_run_killed_at_every_turn_ends_with_the_same_weights(
    whole: Path, graphs: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "killed"
    for point in ("rendering", "save", "encoding", "rollouts", "publishing"):
        ended = run_forked(*training(runs), kill=(point, "SIGKILL"), graphs=graphs)
        assert ended.returncode == -signal.SIGKILL, f"{point}: {ended.stderr}"
        for state in runs.glob("*.state.safetensors"):
            load_state(state)
    assert not (runs / "assets" / "bundles").exists()
    printed(run_forked(*training(runs), graphs=graphs))
    for file in sorted((whole / "assets").rglob("*.*")):
        if file.suffix in WEIGHTS:
            same = runs / "assets" / file.relative_to(whole / "assets")
            assert same.read_bytes() == file.read_bytes(), file.name
    left = [path.name for path in runs.rglob(".*") if path.name != LOCK_FILE]
    assert left == []


def test_a_run_that_published_over_what_it_began_with_ends_the_same_when_it_is_called_again(
    whole: Path, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.onnx, "write_graph", graphs_kept_in(graphs))
    assets, runs = tmp_path / "assets", tmp_path / "runs"
    shutil.copytree(whole / "assets", assets)
    made = []
    for _ in range(2):
        small = prepare("miniature", runs)
        run = PocketRun(
            small.recipe, runs, small.config, assets, small.autoencoder_config, small.depth_config
        )
        train_pocket(run, assets, {}, lambda line: None)
        files = sorted(file for file in assets.rglob("*.*") if file.suffix in WEIGHTS)
        made.append({file.name: file.read_bytes() for file in files})
    assert made[0] == made[1]
    before = (whole / "assets" / "checkpoints" / WORLD_FILE).read_bytes()
    assert made[0][WORLD_FILE] != before


def test_ctrl_c_says_in_one_sentence_how_to_go_on(tmp_path: Path) -> None:
    for point in ("rendering", "save"):
        stopped = run_forked(*training(tmp_path), kill=(point, "SIGINT"))
        said = stopped.stderr.strip().splitlines()[-1]
        assert stopped.returncode == 130
        assert said == f"flaneur: stopped; the same command goes on from what {tmp_path} holds"
        assert "Traceback" not in stopped.stderr
    state = read_values(tmp_path / "autoencoder.state.safetensors")
    assert 0 < state["step"] < 6
    assert write_report(tmp_path).read_text().count("under way") == 1
