"""The whole pipeline in miniature, its files, its plan on the command line, and what it says when something is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli import app as cli
from model.config import tiny
from model.refiner import load_refiner
from training.data.holodeck.walk_set import WalkSet
from training.presets import miniature_preset
from training.progress import RecipeProgress
from training.stages.config import Preset
from training.stages.data import WalkData
from training.stages.model_file import CRITIC, GENERATOR, load_autoencoder_file, load_models, save_models
from training.stages.pipeline import STAGES_FOLDER, Pipeline
from training.stages.request import StageRequest, plan_of, train_one
from training.stages.scenic_model import ScenicModel
from training.stages.table import STAGES


def test_every_stage_has_a_command_in_the_order_in_which_they_follow(capsys):
    assert cli.run(["train", "--help"]) == 0
    text = capsys.readouterr().out
    places = [re.search(rf"^\W*{name} ", text, re.MULTILINE) for name in STAGES]
    places = [place.start() for place in places if place is not None]
    assert len(places) == len(STAGES)
    assert places == sorted(places)
    order = list(STAGES)
    followers = [stage for stage in STAGES.values() if stage.starts_from is not None]
    assert all(order.index(str(stage.starts_from)) < order.index(stage.name) for stage in followers)


@pytest.mark.parametrize("preset", ["pocket", "miniature"])
def test_every_stage_has_a_plan(preset):
    for name in STAGES:
        plan = plan_of(StageRequest(name, preset, Path("runs")))
        assert plan["stage"] == name
        assert all(plan.values())


def test_the_paper_s_plan_is_printed_by_the_command(capsys):
    assert cli.run(["train", "minute-camera", "--preset", "paper", "--dry-run"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "121 latent frames, 961 video frames" in text
    assert "32 clips, each shared by 2 processes" in text
    assert "31000 steps, constant rate" in text


def test_a_missing_stage_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    command = ["train", "hybrid-attention", "--preset", "pocket", "--runs", str(tmp_path)]
    assert cli.run(command) == 2
    assert "run `flaneur train framewise-gdn` first" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_what_the_paper_does_not_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="takes a released model"):
        train_one(StageRequest("base", "paper", tmp_path))


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.starts_from])
def test_a_stage_says_what_it_needs_from_the_one_before(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} needs the checkpoint of {STAGES[name].starts_from},"):
        pipeline(tmp_path, replace(miniature_preset(), trains_what_is_needed=False)).train(name)


def test_a_miniature_trains_what_a_stage_needs_and_ends_the_same(tmp_path):
    name = "framewise-gdn"
    at_once = pipeline(tmp_path / "at-once", miniature_preset()).train(name)
    one_by_one = pipeline(tmp_path / "one-by-one", replace(miniature_preset(), trains_what_is_needed=False))
    for earlier in list(STAGES)[: list(STAGES).index(name)]:
        one_by_one.train(earlier)
    ours, theirs = weights_of(at_once), weights_of(one_by_one.train(name))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_models_come_back_from_their_file_as_they_were(tmp_path):
    config = replace(tiny(), num_layers=1)
    torch.manual_seed(0)
    saved = {
        GENERATOR: ScenicModel(config, 2),
        CRITIC: ScenicModel(replace(config, linear_attention=True), 3),
    }
    save_models(tmp_path / "x.model.safetensors", "base", saved)
    loaded = load_models(tmp_path / "x.model.safetensors")
    assert set(loaded) == {GENERATOR, CRITIC}
    for role, model in saved.items():
        assert loaded[role].world.config == model.world.config
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded[role].state_dict()[name], tensor)


def test_files_that_hold_no_models_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"name the \.model\.safetensors file"):
        load_models(tmp_path / "none.model.safetensors")
    path = tmp_path / "cut.model.safetensors"
    save_models(path, "base", {GENERATOR: ScenicModel(replace(tiny(), num_layers=1), 1)})
    with pytest.raises(ValueError, match="holds no autoencoder"):
        load_autoencoder_file(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        load_models(path)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    models = load_models(path)
    return {f"{role}.{n}": t for role, model in models.items() for n, t in model.state_dict().items()}


def pipeline(runs: Path, preset: Preset) -> Pipeline:
    assert preset.walks is not None
    walks = WalkSet(preset.walks, preset.model, runs / "data")
    data = WalkData(walks, preset.best_share, RecipeProgress({}, shown=False))
    return Pipeline(preset, runs / STAGES_FOLDER, data)


def run_stages(runs: Path, preset: Preset) -> dict[str, Path]:
    """Run every stage in its order, or go on; returns the checkpoint of each."""
    stages = pipeline(runs, preset)
    return {name: stages.train(name) for name in STAGES}


@pytest.mark.slow
def test_every_stage_runs_one_after_another_and_a_second_call_goes_on(tmp_path):
    preset = miniature_preset()
    assert preset.walks is not None
    preset = replace(preset, walks=replace(preset.walks, walk_frames=33))
    checkpoints = run_stages(tmp_path, preset)
    assert list(checkpoints) == list(STAGES)
    for name, path in checkpoints.items():
        if STAGES[name].is_autoencoder:
            assert load_autoencoder_file(path).config.temporal_stride == preset.model.temporal_stride
            continue
        if STAGES[name].is_refiner:
            assert load_refiner(path).model.config.in_channels == preset.model.in_channels
            continue
        models = load_models(path)
        assert (CRITIC in models) == name.startswith("self-forcing")
        assert all(p.isfinite().all() for model in models.values() for p in model.parameters())
    base, last = load_models(checkpoints["base"]), load_models(checkpoints["self-forcing-long"])
    assert base[GENERATOR].world.config.linear_attention
    finished = last[GENERATOR].world.config
    assert (finished.sink, finished.num_cached_chunks, finished.in_channels) == (
        True,
        3,
        preset.model.in_channels,
    )
    stamps = {path: path.stat().st_mtime_ns for path in checkpoints.values()}
    assert run_stages(tmp_path, preset) == checkpoints
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    # What was made after a lost stage is kept; the lost one is made again from its state, and equal.
    before = weights_of(checkpoints["hybrid-attention"])
    checkpoints["hybrid-attention"].unlink()
    pipeline(tmp_path, preset).train("hybrid-attention")
    after = weights_of(checkpoints["hybrid-attention"])
    assert all(torch.equal(before[name], after[name]) for name in before)
