"""Stages of the paper learn from sets of clips of any source, and a stopped one goes on with the very next clip."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from cli import app as cli
from model.checkpoint import save_checkpoint
from model.config import tiny
from model.world_model import WorldModel
from training.data.archives.writer import write_archive
from training.data.batches import FittingClips, StreamClips
from training.data.clip import Clip
from training.data.latent_cache import LatentCache
from training.data.sets import open_set
from training.data.stream import ClipStream
from training.data.texts import CaptionTable, EncodedTexts
from training.stages import request as stage_request
from training.stages.data import SetData
from training.stages.flow_matching import FlowMatchingStage
from training.stages.model_file import GENERATOR, load_models
from training.stages.plan import MemoryBudget
from training.stages.presets import paper_stages
from training.stages.scenic_model import ScenicModel

ROOT = Path(__file__).resolve().parent.parent
MODEL = replace(tiny(), num_layers=2, softmax_every_n=2, chunk_size=3, write_limit=0.0)
LATENTS = 121
"""Of a clip, as the paper's last stages take them."""
NUM_CLIPS = 6


def clip(number: int, num_latents: int = LATENTS, size: tuple[int, int] = (24, 16)) -> Clip:
    rng = np.random.default_rng(number)
    num_frames = 1 + MODEL.temporal_stride * (num_latents - 1)
    c2w = np.tile(np.eye(4), (num_frames, 1, 1))
    c2w[:, :3, 3] = [number, 2.0, 3.0] + 0.01 * np.arange(num_frames)[:, None]
    lens = np.tile([20.0, 20.0, 12.0, 8.0], (num_frames, 1)) * (size[0] / 24)
    shape = (num_latents, MODEL.in_channels, MODEL.latent_height, MODEL.latent_width)
    latents = rng.standard_normal(shape).astype(np.float16)
    name, caption = f"clip{number}", f"A hall with {number % 2 + 1} doors."
    return Clip(name, "list", "hall", caption, c2w, lens, size, 16.0, latents=latents)


def archives(folder: Path) -> Path:
    write_archive(folder, "hall", [*map(clip, range(NUM_CLIPS)), clip(9, num_latents=40)])
    return folder


def cache(folder: Path) -> Path:
    for number in range(NUM_CLIPS):
        LatentCache(folder, "0123abcd").clip(f"video{number}", lambda number=number: clip(number))
    (folder / "film9.0123abcd.latents").write_bytes(b"cut short")
    return folder


SETS = {"SANA-WM's format": archives, "a latent cache": cache}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_checkpoint(WorldModel(MODEL, fresh=True), path)
    return path


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "model.json"
    path.write_text(json.dumps(MODEL.to_dict()))
    return path


def command(data: Path, network: Path, numbers: Path, runs: Path, steps: int = 4) -> list[str]:
    asked = ["train", "chunk-causal", "--preset", "paper", "--steps", str(steps), "--data", str(data)]
    return [*asked, "--config", str(numbers), "--from", str(network), "--runs", str(runs)]


def weights(runs: Path) -> dict[str, torch.Tensor]:
    path = runs / "stages" / "chunk-causal.model.safetensors"
    return dict(load_models(path)[GENERATOR].state_dict())


@pytest.mark.parametrize("source", SETS)
def test_a_stage_of_the_paper_that_is_stopped_goes_on_with_the_next_clip(
    source: str,
    network: Path,
    numbers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, names, batches = SETS[source](tmp_path / "set"), [], iter(range(1000))
    window, backward = StreamClips._window, FlowMatchingStage.backward

    def watched(self: StreamClips, clip: Clip, *arguments):
        names.append(clip.name)
        return window(self, clip, *arguments)

    def stopped(self: FlowMatchingStage, rng: np.random.Generator) -> dict[str, float]:
        # One batch is measured by, then one step of three is taken.
        if next(batches) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return backward(self, rng)

    monkeypatch.setattr(StreamClips, "_window", watched)
    with monkeypatch.context() as patched:
        opening = Mock(side_effect=open_set)
        patched.setattr(stage_request, "open_set", opening)
        assert cli.run(command(data, network, numbers, tmp_path / "whole", 3)) == 0
    opening.assert_called_once()
    assert len(names) == 1 + 3 * 4
    assert "left out: " in (told := capsys.readouterr()).err
    assert re.search(r"clips left out +1", told.out)
    whole, names[:] = names[1:], []
    assert set(whole[:NUM_CLIPS]) == {f"clip{number}" for number in range(NUM_CLIPS)}

    monkeypatch.setattr(FlowMatchingStage, "backward", stopped)
    assert cli.run(command(data, network, numbers, tmp_path / "cut", 3)) == 130
    assert cli.run(command(data, network, numbers, tmp_path / "cut", 3)) == 0
    assert names[1:] == whole
    resumed = weights(tmp_path / "cut")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in weights(tmp_path / "whole").items())


@pytest.mark.slow
def test_torchrun_trains_on_a_set_as_one_process_does_and_goes_on_after_a_kill(
    network: Path, numbers: Path, tmp_path: Path
) -> None:
    data = archives(tmp_path / "set")
    kill = [str(Path(__file__).parent / "kill_points.py"), "data", "SIGKILL"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cli.app"]
    calls = [
        (["-m", "cli.app"], tmp_path / "one", 0),
        (kill, tmp_path / "killed", -signal.SIGKILL),
        (["-m", "cli.app"], tmp_path / "killed", 0),
        ([*launcher], tmp_path / "two", 0),
    ]
    for how, runs, status in calls:
        asked = command(data, network, numbers, runs)
        done = subprocess.run([sys.executable, *how, *asked], timeout=600, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    one, killed, two = (weights(tmp_path / name) for name in ("one", "killed", "two"))
    assert all(torch.equal(tensor, killed[name]) for name, tensor in one.items())
    # Of weights that move by 4e-5; measured after two steps: 7e-9.
    assert max(float((two[name] - tensor).abs().max()) for name, tensor in one.items()) < 1e-6


def test_distillation_learns_from_a_set_too(network: Path, numbers: Path, tmp_path: Path) -> None:
    data, before = archives(tmp_path / "set"), ["--from", str(network)]
    for stage in ("best-clips", "chunk-causal", "ode-regression", "self-forcing-short"):
        asked = ["train", stage, "--preset", "miniature", "--data", str(data), "--config", str(numbers)]
        assert cli.run([*asked, *before, "--runs", str(tmp_path)]) == 0
        before = []
    models = load_models(tmp_path / "stages" / "self-forcing-short.model.safetensors")
    assert all(bool(p.isfinite().all()) for model in models.values() for p in model.parameters())


def test_clips_are_posed_from_their_first_frame_and_seen_through_the_model_s_own_lens(tmp_path: Path) -> None:
    write_archive(tmp_path, "hall", [clip(3, size=(48, 32))])
    source = FittingClips(open_set(tmp_path), MODEL, LATENTS)
    stream = ClipStream([source], seed=0)
    drawn = StreamClips(stream, MODEL, CaptionTable(["A hall with 2 doors."]), "front")
    batch = drawn.draw(1, 5, np.random.default_rng(0))
    assert batch.latents.shape == (1, MODEL.in_channels, 5, MODEL.latent_height, MODEL.latent_width)
    assert batch.frame_index.tolist() == [[0, 1, 2, 3, 4]]
    truth = clip(3).latents
    assert truth is not None
    np.testing.assert_array_equal(batch.latents[0].transpose(0, 1).numpy(), truth[:5].astype(np.float32))
    # The window of latent 0 is its one frame, held.
    moved = 0.01 * np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    np.testing.assert_allclose(batch.c2w[0, :, 0, 3].numpy(), moved, atol=1e-6)
    np.testing.assert_allclose(batch.intrinsics[0, 4].numpy(), [20.0, 20.0, 12.0, 8.0])


def test_data_is_named_by_its_clips_and_by_what_their_captions_become(tmp_path: Path) -> None:
    captions = CaptionTable(["A hall with 1 doors.", "A hall with 2 doors."])
    folder = archives(tmp_path / "set")

    def identity(texts: CaptionTable | EncodedTexts = captions) -> str:
        return SetData([open_set(folder)], MODEL, texts).identity()

    own = identity()
    assert identity() == own
    assert (
        identity(EncodedTexts(tmp_path / "reader-300", lambda caption: (torch.ones(1), torch.ones(1)))) != own
    )
    folder = folder.rename(tmp_path / "moved")
    assert identity() == own
    write_archive(folder, "hall", [*map(clip, range(1, NUM_CLIPS)), clip(0)])
    assert identity() != own


def test_captions_are_read_once_and_stand_in_for_the_table(tmp_path: Path) -> None:
    asked: list[str] = []

    def read(caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(caption)
        return torch.randn(MODEL.text_length, MODEL.text_dim), torch.ones(MODEL.text_length)

    texts = EncodedTexts(tmp_path / "texts", read)
    data = SetData([open_set(archives(tmp_path / "set"))], MODEL, texts)
    config = replace(paper_stages()["chunk-causal"], batch_size=2, num_latent_frames=7)
    stage = FlowMatchingStage(config, ScenicModel(MODEL, 1), data.clips(config), "chunk_causal")
    for _ in range(4):
        stage.backward(np.random.default_rng(0))
    assert sorted(asked) == ["A hall with 1 doors.", "A hall with 2 doors."]
    assert stage.model.scenes.grad is None
    assert stage.model.world.y_embedder.y_proj.fc1.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "name their folders with --data"),
        (["--data", "SET"], "name its folder with --text-encoder"),
        (
            ["--data", "SET", "--text-encoder", "GEMMA"],
            "holds at least 59 GiB of memory in each of 1 process, and there are 8",
        ),
        (["--data", "SET", "--config", "SET"], "holds no model's numbers"),
        (["--data", "NOTHING"], "holds no clips"),
    ],
)
def test_what_the_paper_s_preset_cannot_do_is_one_sentence(
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stage_request, "budget_alone", lambda: MemoryBudget(1, 8 << 30))
    write_archive(tmp_path / "SET", "hall", [clip(0)])
    named = [str(tmp_path / option) if option.isupper() else option for option in options]
    call = ["train", "minute-camera", "--preset", "paper", *named, "--runs", str(tmp_path / "runs")]
    assert cli.run(call) == 2
    assert sentence in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_clips_leaves_no_run_folder_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "base", "--preset", "pocket", "--data", str(tmp_path / "nothing")]
    assert cli.run([*call, "--runs", str(tmp_path / "runs")]) == 2
    assert "holds no clips" in re.sub(r"\s+", " ", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_model_of_other_sizes_than_those_asked_for_is_refused(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(replace(MODEL, num_layers=4).to_dict()))
    assert cli.run(command(archives(tmp_path / "set"), network, other, tmp_path / "runs")) == 2
    told = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "has num_layers 2 and tiny has 4; name its own numbers with --config" in told


def test_a_stage_that_is_done_says_that_nothing_is_trained(
    network: Path, numbers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = tmp_path / "stages" / "chunk-causal.model.safetensors"
    outcome.parent.mkdir()
    outcome.write_bytes(b"as it was")
    assert cli.run(command(archives(tmp_path / "set"), network, numbers, tmp_path)) == 0
    assert "chunk-causal is done already" in capsys.readouterr().err
    assert outcome.read_bytes() == b"as it was"


def test_a_dry_run_shows_the_data_and_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = archives(tmp_path / "set")
    assert cli.run(["train", "minute-camera", "--preset", "paper", "--data", str(data), "--dry-run"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "7 clips, 0 left out at the opening; the first: clip0, latents 121x4x2x3, 241 frames" in text
    assert (
        "it would be left out: clip0 has latents of 4x2x3 for 2 frames, but sana_wm takes 128x22x40" in text
    )
    assert re.search(r"sana_wm, 2\d{3}\.\d M parameters", text)
    assert re.search(r"about \d+\.\d GiB in each of 1 process ", text)


def test_the_manual_s_dry_runs_work_as_written_before_there_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    manual = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    calls = re.findall(r"^flaneur (train .*--data SET.*--dry-run)$", manual, re.MULTILINE)
    assert calls
    for call in calls:
        assert cli.run(call.split()) == 0
        text = re.sub(r"\s+", " ", capsys.readouterr().out)
        assert "data in SET none yet: SET holds no clips; `flaneur data make`" in text
        assert "GiB in each of 1 process" in text
    assert not list(tmp_path.iterdir())


def test_clips_of_another_size_are_left_out_and_the_reason_is_told(tmp_path: Path) -> None:
    source = FittingClips(open_set(archives(tmp_path)), replace(MODEL, in_channels=8), LATENTS)
    with pytest.raises(ValueError, match="latents of 4x2x3 for 2 frames, but tiny takes 8x2x3 for 2"):
        next(iter(ClipStream([source], seed=0)))
