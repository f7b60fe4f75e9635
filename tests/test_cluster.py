"""A training on several processes is the training on one: weights, resuming on any number, states on disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cli import app as cli
from tests.cluster_cases import (
    NUM_BATCHES,
    NUM_STAGE_BATCHES,
    break_off_saving,
    train,
    train_qad,
    train_qad_shared,
    train_shared,
    train_stages,
    train_stages_shared,
)
from tests.processes import Processes
from training.parallel.cluster import ShardingConfig
from training.parallel.single_process import Cluster
from training.stage_log import read_log
from training.stages.model_file import GENERATOR, load_models

Weights = dict[str, NDArray[Any]]

STEPS = 3
TOLERANCE = 2e-6
"""Of weights that move by up to 2e-2 in these steps. Gradients differ by their rounding, 1e-6 of the largest, and Muon makes
all directions of a matrix equally large, those with hardly a gradient too."""

ADAM_TOLERANCE = 1e-5
"""Three steps of AdamW at 1e-3, which are as long where a gradient is hardly more than its rounding; measured: 2e-6."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    return Processes(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """One process, never interrupted, with nothing shared, sharded or computed again."""
    return train(Cluster(NUM_BATCHES), tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture(scope="module")
def halfway(workers: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left that were asked to stop in their second step."""
    folder = tmp_path_factory.mktemp("halfway")
    workers.run(2, train_shared, folder, STEPS, stop_in=NUM_BATCHES // 2 + 1)
    return folder


def furthest(ours: Weights, truth: Weights) -> float:
    assert ours.keys() == truth.keys()
    return max(float(np.abs(ours[name] - truth[name]).max()) for name in truth)


def test_two_processes_stop_together_when_one_is_asked_to(halfway: Path) -> None:
    names = sorted(path.name for path in halfway.iterdir())
    assert names == ["chunk-causal.log.jsonl", "chunk-causal.state.1", "chunk-causal.state.json"]
    assert [line["step"] for line in read_log(halfway / "chunk-causal.log.jsonl")] == [1, 2]


def test_what_two_processes_began_one_ends(halfway: Path, whole: Weights, tmp_path: Path) -> None:
    folder = shutil.copytree(halfway, tmp_path / "one")
    assert furthest(train(Cluster(NUM_BATCHES), folder, STEPS), whole) < TOLERANCE
    assert [line["step"] for line in read_log(folder / "chunk-causal.log.jsonl")] == [1, 2, 3]


def test_what_two_processes_began_four_end_that_share_clips_by_twos(
    workers: Processes, halfway: Path, whole: Weights, tmp_path: Path
) -> None:
    folder = shutil.copytree(halfway, tmp_path / "four")
    for answer in workers.run(4, train_shared, folder, STEPS, context_parallel=2):
        assert furthest(answer, whole) < TOLERANCE


def test_what_one_process_began_two_end_with_kept_activations(
    workers: Processes, whole: Weights, tmp_path: Path
) -> None:
    train(Cluster(NUM_BATCHES), tmp_path, STEPS, stop_in=NUM_BATCHES + 1)
    kept = ShardingConfig(bfloat16=False, recompute=False)
    for answer in workers.run(2, train_shared, tmp_path, STEPS, sharding=kept):
        assert furthest(answer, whole) < TOLERANCE


def test_blocks_can_compute_in_bfloat16(workers: Processes, whole: Weights, tmp_path: Path) -> None:
    for answer in workers.run(
        2, train_shared, tmp_path, STEPS, context_parallel=2, sharding=ShardingConfig()
    ):
        # Muon's steps are as long whatever the gradient, and bfloat16 turns the weakest directions round.
        assert TOLERANCE < furthest(answer, whole) < 0.03


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Autoencoder, regression and both self-forcing stages, trained by one process."""
    return train_stages(Cluster(NUM_STAGE_BATCHES), tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("context_parallel", [1, 2])
def test_two_processes_train_autoencoders_and_students_as_one_does(
    workers: Processes, alone: Weights, tmp_path: Path, context_parallel: int
) -> None:
    for answer in workers.run(2, train_stages_shared, tmp_path, context_parallel=context_parallel):
        assert furthest(answer, alone) < ADAM_TOLERANCE
    assert len(list((tmp_path / "trajectories").glob("*.safetensors"))) == 5


@pytest.mark.slow
def test_two_processes_distil_a_quantised_student_as_one_does(workers: Processes, tmp_path: Path) -> None:
    alone = train_qad(Cluster(NUM_BATCHES), tmp_path / "alone")
    for answer in workers.run(2, train_qad_shared, tmp_path / "shared"):
        # Where a value lies half between two of NVFP4's, the last bit of a sum decides.
        far = np.concatenate([np.abs(answer[name] - alone[name]).ravel() for name in alone])
        assert np.quantile(far, 0.9) < ADAM_TOLERANCE
        assert far.max() < 5e-4


@pytest.mark.parametrize("moment", ["after some tensors", "before the index"])
def test_a_state_torn_in_the_writing_leaves_the_one_before(
    workers: Processes, tmp_path: Path, moment: str
) -> None:
    for answer in workers.run(2, break_off_saving, tmp_path / "torn.state.json", moment):
        rows = np.arange(10.0).reshape(5, 2)
        assert (answer["step"], answer["count"]) == (1, 1.0)
        np.testing.assert_array_equal(answer["rows"], rows)
        np.testing.assert_array_equal(answer["next"], 3 * rows)
        folders = {str(Path(name).parent) for name in answer["files"]}
        assert folders == {".", "torn.state.2"}


def test_the_pocket_s_recipe_is_refused_under_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "LOCAL_RANK": "0"}
    settings |= {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    settings |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["train", "pocket", "--preset", "miniature", "--runs", str(tmp_path)]) == 2
    assert "one process; start it without" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_sharing_clips_takes_a_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "base", "--preset", "miniature", "--runs", str(tmp_path), "--context-parallel", "2"]
    assert cli.run(command) == 2
    assert "start them with torchrun" in re.sub(r"\s+", " ", capsys.readouterr().err)


@pytest.mark.slow
def test_torchrun_trains_a_stage_with_the_command_of_one_process(tmp_path: Path) -> None:
    command = ["cli.app", "train", "{}", "--preset", "miniature", "--runs", str(tmp_path)]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for stage, before in (("base-autoencoder", []), ("base", launcher)):
        call = [sys.executable, "-m", *before, *(part.format(stage) for part in command)]
        subprocess.run(call, check=True, timeout=600, capture_output=True)
    assert [line["step"] for line in read_log(tmp_path / "stages" / "base.log.jsonl")] == [1, 2]
    model = load_models(tmp_path / "stages" / "base.model.safetensors")[GENERATOR]
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert not list(tmp_path.rglob("base.state.safetensors"))
