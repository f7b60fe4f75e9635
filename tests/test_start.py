"""What a run of the pocket begins with: noted by its weights, and held against what a later call asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint import weights_sha256
from model.vae.guided import AUTOENCODER_FILE, GuidedAutoencoder
from training.checkpoint import save_state
from training.pocket.build import checked_start, prepare
from training.pocket.plan import make_plan
from training.pocket.publish import CHECKPOINTS, in_half, save_autoencoder, save_start
from training.pocket.run import PocketRun
from training.run_folder import RECORD_FILE, RunFolder, RunRecord, Start
from training.stages.scenic_model import ScenicModel


def publish_weights(folder: Path, generator_seed: int, autoencoder_seed: int = 0) -> str:
    """Put random weights where a publishing would; returns the generator's hash."""
    run = prepare("miniature", folder)
    torch.manual_seed(autoencoder_seed)
    autoencoder = GuidedAutoencoder(run.autoencoder_config)
    torch.manual_seed(generator_seed)
    model = ScenicModel(run.config, 2)
    save_start(model, folder / CHECKPOINTS)
    save_autoencoder(autoencoder, folder / CHECKPOINTS / AUTOENCODER_FILE)
    return weights_sha256(in_half(model.world))


def run_from(runs: Path, start_from: Path | None) -> PocketRun:
    small = prepare("miniature", runs)
    return PocketRun(small.recipe, runs, small.config, start_from, small.autoencoder_config)


def train_generator(runs: Path, start_from: Path | None) -> RunFolder:
    """Leave what a run leaves that has trained its generator."""
    run = run_from(runs, start_from)
    record = RunRecord(recipe={}, model={}, machine="here", started_from=checked_start(run))
    save_state(runs / "generator.state.safetensors", {"step": 7, "trained_s": 60.0, "finished": True})
    folder = RunFolder(runs, record)
    folder.write()
    return folder


def test_a_run_goes_on_with_the_weights_that_it_began_with(tmp_path: Path) -> None:
    generator = publish_weights(tmp_path / "first", 1)
    folder = train_generator(tmp_path / "runs", tmp_path / "first")
    began = folder.record.started_from
    assert isinstance(began, Start)
    assert (began.folder, began.generator) == (str(tmp_path / "first"), generator)
    assert checked_start(run_from(tmp_path / "runs", tmp_path / "first")) == began
    (tmp_path / "first").rename(tmp_path / "moved")
    assert checked_start(run_from(tmp_path / "runs", tmp_path / "moved")) == began


def test_a_run_that_published_over_what_it_began_with_goes_on(tmp_path: Path) -> None:
    publish_weights(tmp_path / "assets", 1)
    folder = train_generator(tmp_path / "runs", tmp_path / "assets")
    (tmp_path / "assets").rename(tmp_path / "before")
    own = publish_weights(tmp_path / "assets", 2)
    with pytest.raises(ValueError, match="did not begin with"):
        checked_start(run_from(tmp_path / "runs", tmp_path / "assets"))
    folder.publishing(own)
    folder.publishing("of a later publishing that was killed")
    assert checked_start(run_from(tmp_path / "runs", tmp_path / "assets")) == folder.record.started_from


@pytest.mark.parametrize(("generator_seed", "autoencoder_seed"), [(2, 0), (1, 3)])
def test_other_weights_than_a_run_began_with_are_refused(
    tmp_path: Path, generator_seed: int, autoencoder_seed: int
) -> None:
    publish_weights(tmp_path / "first", 1)
    publish_weights(tmp_path / "other", generator_seed, autoencoder_seed)
    train_generator(tmp_path / "runs", tmp_path / "first")
    run = run_from(tmp_path / "runs", tmp_path / "other")
    with pytest.raises(ValueError, match=r"did not begin with the weights in .*other; name another folder"):
        make_plan(run)


def test_a_run_that_began_with_nothing_and_one_that_did_not_are_kept_apart(tmp_path: Path) -> None:
    publish_weights(tmp_path / "first", 1)
    train_generator(tmp_path / "from-nothing", None)
    train_generator(tmp_path / "runs", tmp_path / "first")
    assert checked_start(run_from(tmp_path / "from-nothing", None)) is None
    with pytest.raises(ValueError, match=r"did not begin with the weights in .*first; name another folder"):
        checked_start(run_from(tmp_path / "from-nothing", tmp_path / "first"))
    with pytest.raises(ValueError, match=r"say --start-from .*first to go on"):
        checked_start(run_from(tmp_path / "runs", None))


def test_a_folder_that_has_trained_no_generator_takes_any_start(tmp_path: Path) -> None:
    publish_weights(tmp_path / "first", 1)
    folder = train_generator(tmp_path / "runs", None)
    (tmp_path / "runs" / "generator.state.safetensors").unlink()
    assert checked_start(run_from(tmp_path / "runs", tmp_path / "first")) is not None
    # An earlier version's record did not say what its run began with.
    save_state(tmp_path / "runs" / "generator.state.safetensors", {"step": 7})
    earlier = folder.record.model_dump_json(exclude={"started_from", "made"})
    (tmp_path / "runs" / RECORD_FILE).write_text(earlier)
    assert checked_start(run_from(tmp_path / "runs", tmp_path / "first")) is not None


def test_a_start_that_is_not_there_is_refused_in_the_plan(tmp_path: Path) -> None:
    run = run_from(tmp_path / "runs", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"autoencoder\.safetensors cannot be used"):
        make_plan(run)
