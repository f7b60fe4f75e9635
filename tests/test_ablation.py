"""The ablation on tiny worlds: silent branches stay silent, results are kept, divergence is seen, tables are whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import app as cli
from model.config import tiny
from training.ablation.tables import as_document
from training.ablation.variants import (
    VARIANTS,
    AblationConfig,
    AblationResult,
    Variant,
    rollout_ends,
    run_variant,
)
from training.data.latents import LatentWalk
from training.stages.conversions import disable_cameras
from training.stages.scenic_model import ScenicModel

CONFIG = AblationConfig(
    num_steps=3, num_latent_frames=3, batch_size=2, num_validation_batches=1, num_chunks=6
)
MODEL = replace(tiny(), num_layers=2, softmax_every_n=2, write_limit=0.0)


def walks(count: int = 2) -> list[LatentWalk]:
    torch.manual_seed(0)
    size = (8, MODEL.in_channels, MODEL.latent_height, MODEL.latent_width)
    c2w = torch.eye(4).repeat(8, MODEL.temporal_stride, 1, 1)
    c2w[..., 0, 3] = torch.arange(8)[:, None] * 0.2
    intrinsics = torch.tensor([20.0, 20.0, 12.0, 8.0])
    return [LatentWalk(scene, torch.randn(size).half(), c2w, intrinsics) for scene in range(count)]


def test_a_variant_is_trained_measured_and_kept(tmp_path):
    variant = Variant("UCPE alone", "camera", branches=("UCPE",))
    result = run_variant(variant, 0, CONFIG, walks(), walks(), tmp_path, MODEL)
    assert np.isfinite([result.validation_loss, result.gain_db]).all()
    assert (result.skipped_steps, result.diverged, result.num_rollouts) == (0, 0, 2)
    (path,) = tmp_path.glob("*.result.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gain_db": 99.0}))
    assert run_variant(variant, 0, CONFIG, walks(), walks(), tmp_path, MODEL).gain_db == 99.0
    longer = replace(CONFIG, num_steps=CONFIG.num_steps + 1)
    assert run_variant(variant, 0, longer, walks(), walks(), tmp_path, MODEL).gain_db != 99.0


def test_fewer_branches_learn_fewer_parameters(tmp_path):
    learned = {
        variant.name: run_variant(
            variant, 0, replace(CONFIG, num_steps=1), walks(), walks(), tmp_path, MODEL
        ).parameters
        for variant in VARIANTS
        if variant.table in ("all", "camera")
    }
    assert learned["no camera"] < learned["UCPE alone"] < learned["whole"]
    assert learned["no camera"] < learned["Pluecker alone"] < learned["whole"]


def test_a_rollout_that_leaves_the_world_is_seen_when_it_does():
    torch.manual_seed(0)
    model = ScenicModel(MODEL, 2)
    disable_cameras(model)
    assert rollout_ends(model, walks(), 6) == [None, None]
    with torch.no_grad():
        model.world.final_layer.linear.bias.fill_(1e4)
    assert rollout_ends(model, walks(), 6) == [1, 1]
    with torch.no_grad():
        model.world.final_layer.linear.bias.fill_(float("nan"))
    assert rollout_ends(model, walks(), 6) == [1, 1]


def test_tables_answer_each_question_with_the_whole_model_in_it():
    results = [
        AblationResult(variant.name, seed, 1.0 + seed, 3.0, 0, None, 0, 6, None, 10)
        for variant in VARIANTS
        for seed in (0, 1)
    ]
    broken = replace(results[4], validation_loss=float("nan"), skipped_steps=9, first_skipped=2, diverged=6)
    text = as_document([*results[:4], replace(broken, first_diverged_s=0.5), *results[5:]], AblationConfig())
    assert text.count("### ") == 3
    assert "| 1/sqrt(D S) | 1.5000 (1.0000 to 2.0000) | +3.00 (+3.00 to +3.00) dB |" in text
    assert "| no key scale | not finite |" in text
    assert "first at step 2" in text
    assert "6 of 12, first after 0.50 s" in text


@pytest.mark.slow
def test_the_command_goes_from_nothing_to_the_tables_and_a_second_call_only_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["train", "ablation", "--runs", str(tmp_path / "runs"), "--walks", "1", "--seconds", "3"]
    tables = []
    for _ in range(2):
        assert cli.run([*asked, "--steps", "2"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    for row in ("1/sqrt(D S)", "no key scale", "GDN alone", "UCPE alone", "Pluecker alone", "no camera"):
        assert f"| {row} |" in tables[0]
    assert len(list((tmp_path / "runs").glob("*.result.json"))) == len(VARIANTS)
    assert cli.run([*asked, "--steps", "3"]) == 2
    assert "holds an ablation of another size" in " ".join(capsys.readouterr().err.split())
