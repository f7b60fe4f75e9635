"""What a training shows for itself: plan, folder and report page."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cli.app import run as run_cli
from training.checkpoint import read_values, save_state, without_tensors
from training.parallel.sharded_checkpoint import StateIndex
from training.parallel.single_process import index_path
from training.pocket.build import GOING_ON_LR, prepare
from training.pocket.plan import as_json, as_text, expected_s, make_plan
from training.pocket.recipe import PocketRecipe
from training.pocket.run import PocketRun
from training.report.charts import line_chart, linear_axis, logarithmic_axis
from training.report.page import write_report
from training.run_folder import RunFolder, RunRecord, holding, read_record
from training.throughput import Throughput


class Page(HTMLParser):
    """Tags of a page that were opened and closed in order, and where it points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run folder as a stage under way leaves it, beside one that is finished."""
    for name, finished in (("generator", True), ("own-history", False)):
        lines = [
            {"step": n, "trained_s": 6.0 * n, "loss": 2.0 / n, "frames_per_s": 40.0 + n, "peak_share": 0.3}
            for n in range(1, 900)
        ]
        (tmp_path / f"{name}.log.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines) + '{"st'
        )
        throughput = Throughput(
            machine="here",
            precision="float32",
            step_s={"float32": 0.5, "bfloat16": 0.75},
            notes=("not compiled: <none>",),
            operations=10,
            peak=1e9,
            frames=4.0,
        )
        (tmp_path / f"{name}.throughput.json").write_text(throughput.model_dump_json())
        save_state(
            tmp_path / f"{name}.state.safetensors", {"step": 899, "trained_s": 5394.0, "finished": finished}
        )
    record = RunRecord(
        recipe={"seed": 0, "batches": {"clips": 12}},
        model={"name": "pocket"},
        stages=("generator", "own-history"),
        machine="two cores & a fan",
        seconds={"generator": 5400.0},
    )
    RunFolder(tmp_path, record).write()
    report = tmp_path / "report"
    report.mkdir()
    scores = [
        "pocket on learned places: <town>.",
        "",
        "| PSNR, dB | model | repeated first | camera |",
        "|---|---|---|---|",
        "| 0.25 s | 18.5 | 16.0 | |",
        "| 1 s | 18.1 | 12.0 | |",
        "| **mean from 1 s on** | 18.0 | 12.0 | |",
    ]
    (report / "scores.md").write_text("\n".join(scores) + "\n")
    picture = np.random.default_rng(0).integers(0, 255, (300, 1440, 3), dtype=np.uint8)
    for n in range(6):
        cv2.imwrite(str(report / f"town{n}.png"), picture)
    return tmp_path


def test_report_is_one_small_whole_file_that_needs_nothing_else(runs: Path) -> None:
    path = write_report(runs)
    text = path.read_text()
    # Six sheets of pure noise are more than any real ones: they are shown smaller.
    assert path.stat().st_size < 1_500_000
    page = Page(text)
    assert page.open == []
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not re.search(r"https?://|<script|@import", text)
    encoded = np.frombuffer(base64.b64decode(page.addresses[0].partition(",")[2]), np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] in (600, 800, 1000)
    assert text.count("<img") == 6


def test_report_says_what_the_logs_say(runs: Path) -> None:
    text = write_report(runs).read_text()
    for said in (
        "two cores &amp; a fan",
        "float32 (float32 500 ms, bfloat16 750 ms)",
        "not compiled: &lt;none&gt;",
        "finished",
        "under way",
        "batches.clips",
        "<p>pocket on learned places: &lt;town&gt;.</p>",
        "<td>mean from 1 s on</td><td class=number>18.0</td>",
        "loss 2 to 0.002225",
        "<dt>training</dt><dd>1,798 steps in 2 h 59 min, 2 stages</dd>",
        "490 video frames trained per second",
        "30.0% of the most that this machine",
        ">490<",
        "30.0%",
    ):
        assert said in text
    assert text.index("<td>generator</td>") < text.index("<td>own-history</td>")
    # A curve each for two losses; frames a second, the share of the peak and what was measured with two lines each.
    assert text.count("<svg") == 5
    assert text.count("<polyline") == 8
    # 899 lines of 6 s in each of two stages, one after the other.
    assert ">150</text>" in text


def test_report_knows_how_far_several_processes_have_come(runs: Path) -> None:
    (runs / "own-history.state.safetensors").unlink()
    index = index_path(runs / "own-history.state.safetensors")
    for finished, told in ((False, "under way"), (True, "finished")):
        tree = without_tensors({"finished": finished, "optimizer": [torch.zeros(2)]}, "", {})
        index.write_text(StateIndex(number=1, tree=tree, shared=(), scalars=()).model_dump_json())
        row = re.search(r"<tr><td>own-history</td><td>([^<]*)</td>", write_report(runs).read_text("utf-8"))
        assert row is not None
        assert row[1] == told


def test_report_of_a_folder_without_a_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["train", "report", str(tmp_path)]) == 2
    assert "holds no training" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_report_goes_where_it_is_told(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run_cli(["train", "report", str(runs), "-o", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 17.0), (5.0, 5.0), (1e-6, 3e-6), (0.0, 0.0)])
def test_linear_axis_holds_its_range_between_round_ticks(low: float, high: float) -> None:
    axis = linear_axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert 3 <= len(axis.ticks) <= 8
    assert np.ptp(np.diff(axis.ticks)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.02, 1.4), (1.0, 1.0), (1e-7, 1e4), (2.0, 4.9)])
def test_logarithmic_axis_holds_its_range(low: float, high: float) -> None:
    axis = logarithmic_axis(low, high)
    assert axis.low <= low * 1.001
    assert high <= axis.high * 1.001
    assert axis.low < axis.high
    assert len(axis.ticks) <= 14


def test_chart_leaves_out_what_cannot_be_drawn_and_thins_long_lines() -> None:
    points = [(float(n), math.nan if n == 3 else n - 1.0) for n in range(5000)]
    chart = line_chart({"a": points}, "x", logarithmic=True)
    places = re.findall(r'points="([^"]*)"', chart)[0].split()
    assert 200 < len(places) <= 400
    assert "nan" not in chart
    assert "nothing logged" in line_chart({"a": [(0.0, math.inf)]}, "x")
    assert "<circle" in line_chart({"a": [(1.0, 2.0)]}, "x")


def test_plan_lists_every_step_with_its_numbers_and_what_is_there(tmp_path: Path) -> None:
    run = prepare("pocket", tmp_path, minutes=30.0)
    plan = make_plan(run)
    names = [step.name for step in plan]
    assert names[0] == "placing keyframes"
    assert names[-2:] == ["publishing", "measuring"]
    assert set(run.stages) < set(names)
    trained_s = sum(step.left_s or 0.0 for step in plan if step.name in run.stages)
    assert trained_s == pytest.approx(1800.0)
    values = json.loads(json.dumps(as_json(run, plan), allow_nan=False))
    assert values["left_s"] == pytest.approx(sum(expected_s(plan).values()), abs=0.1)
    save_state(tmp_path / "generator.state.safetensors", {"step": 7, "trained_s": 60.0, "finished": False})
    save_state(tmp_path / "autoencoder.state.safetensors", {"step": 9, "trained_s": 500.0, "finished": True})
    later = {step.name: step for step in make_plan(run)}
    assert later["generator"].on_disk == "7 steps in 60 s"
    assert later["generator"].left_s == pytest.approx(60.0 * run.recipe.generator_minutes - 60.0)
    assert (later["autoencoder"].on_disk, later["autoencoder"].left_s) == ("finished, 9 steps in 8 min", 0.0)


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_fits_the_terminal_and_names_every_step(tmp_path: Path, width: int) -> None:
    save_state(
        tmp_path / "generator.state.safetensors", {"step": 1702, "trained_s": 4600.0, "finished": True}
    )
    plan = make_plan(prepare("pocket", tmp_path))
    text = as_text(plan, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(step.name in text for step in plan)
    assert all(step.purpose in " ".join(text.split()) for step in plan if "skipped" not in step.on_disk)
    assert "finished, 1702 steps" in text


def test_dry_run_prints_the_plan_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    assert (
        run_cli(["train", "pocket", "--dry-run", "--preset", "miniature", "--runs", str(folder), "--json"])
        == 0
    )
    plan = json.loads(capsys.readouterr().out)
    assert [step["numbers"]["steps"] for step in plan["steps"] if step["name"] == "generator"] == [6]
    assert run_cli(["train", "pocket", "--dry-run", "--runs", str(folder)]) == 0
    assert "own-history" in capsys.readouterr().out
    assert not folder.exists()


def test_a_stage_without_time_is_said_to_be_skipped(tmp_path: Path) -> None:
    run = PocketRun(replace(PocketRecipe(), own_history_minutes=0.0), tmp_path)
    plan = {step.name: step.on_disk for step in make_plan(run)}
    assert plan["own-history"] == "skipped: the recipe gives it no time"
    assert plan["generator"] == "not begun"


def test_minutes_are_those_of_the_stages_that_will_run(tmp_path: Path) -> None:
    for start_from in (None, Path(__file__).resolve().parent.parent / "assets"):
        run = prepare("pocket", tmp_path, 30.0, start_from=start_from)
        plan = make_plan(run)
        trained_s = sum(step.left_s or 0.0 for step in plan if step.name in run.stages)
        assert trained_s == pytest.approx(1800.0)
    assert run.recipe.autoencoder_minutes == 0.0


def test_one_stage_alone_gets_all_minutes_and_goes_on_from_what_was_published(tmp_path: Path) -> None:
    assets = Path(__file__).resolve().parent.parent / "assets"
    run = prepare("pocket", tmp_path, 30.0, start_from=assets, only="decoder")
    trained = {step.name: step.left_s for step in make_plan(run) if step.name in run.stages and step.left_s}
    assert trained == {"decoder": pytest.approx(1800.0)}
    # At the rates of a training from nothing it would lose what it knows.
    anew, gentle = (recipe.stages()["decoder"].optimizer for recipe in (PocketRecipe(), run.recipe))
    assert gentle.muon_lr / anew.muon_lr == gentle.adam_lr / anew.adam_lr == GOING_ON_LR
    with pytest.raises(ValueError, match=r"name them with --start-from$"):
        prepare("pocket", tmp_path, only="decoder")
    with pytest.raises(ValueError, match=r"^autoencoder cannot be trained alone"):
        prepare("pocket", tmp_path, start_from=assets, only="autoencoder")


def test_minutes_of_a_recipe_that_counts_steps_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "train",
        "pocket",
        "--preset",
        "miniature",
        "--minutes",
        "3",
        "--runs",
        str(tmp_path),
        "--dry-run",
    ]
    assert run_cli(asked) == 2
    assert "say --steps instead" in capsys.readouterr().err


def test_a_run_folder_loses_what_a_killed_writer_left_and_nothing_of_its_owner_s(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    writer = (
        "import os, sys; from pathlib import Path; from engine.files.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as file: file.write_bytes(b'half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", writer, str(data / "town-00001.npy")], check=False)
    assert len(list(data.iterdir())) == 1
    kept = [tmp_path / ".gitignore", data / ".env", data / ".some-settings.json", data / "a.part-12345678"]
    for file in kept:
        file.touch()
    with holding(tmp_path):
        assert all(file.exists() for file in kept)
        assert {*data.iterdir()} == {*kept[1:]}


def test_a_run_folder_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from training.run_folder import holding\n"
        "with holding(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another training uses"), holding(tmp_path):
            pass
        other.kill()
    with holding(tmp_path):
        pass


def test_time_of_phases_adds_up_over_calls(tmp_path: Path) -> None:
    record = RunRecord(recipe={}, model={}, machine="here")
    for _ in range(2):
        folder = RunFolder(tmp_path, record)
        folder.record = folder.record.model_copy(
            update={"seconds": {"draw": folder.record.seconds.get("draw", 0.0) + 5.0}}
        )
        with pytest.raises(KeyboardInterrupt), folder.timing("train"):
            raise KeyboardInterrupt
    kept = read_record(tmp_path)
    assert kept is not None
    assert kept.seconds["draw"] == 10.0
    assert set(kept.seconds) == {"draw", "train"}


def test_values_of_a_state_are_read_without_its_tensors(tmp_path: Path) -> None:
    save_state(tmp_path / "s.safetensors", {"step": 3, "weights": [torch.zeros(4)]})
    assert read_values(tmp_path / "s.safetensors") == {"step": 3, "weights": [None]}
