"""A stage of the paper's learns from the cameras of an annotated set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")

from tests.test_annotation import films as films
from tests.test_annotation import no_bar, plan_for, small_encoder
from tests.test_stages import CONFIG, model_of, stage_of
from training.data.annotation.annotate import annotate
from training.data.annotation.results import read_camera
from training.data.batches import FittingClips, StreamClips, WindowBatch
from training.data.sets import open_set
from training.data.stream import ClipStream
from training.data.texts import CaptionTable
from training.stages.builders import BUILDERS, Inputs
from training.stages.conversions import is_camera
from training.stages.flow_matching import FlowMatchingStage, velocity_loss

LATENTS = 5


def loss_of(stage: FlowMatchingStage, batch: WindowBatch) -> float:
    torch.manual_seed(1)
    sigma = torch.full(batch.frame_index.shape, 0.5)
    with torch.no_grad():
        return float(
            velocity_loss(stage.model, batch, sigma, torch.ones_like(sigma, dtype=torch.bool), stage.mode)
        )


def test_minute_camera_is_given_the_recovered_cameras_and_learns_from_them(films: Path, tmp_path: Path):
    plan = plan_for(films, tmp_path / "set")
    done = annotate(plan, small_encoder(), no_bar)
    clip = open_set(plan.folder)[0]
    assert clip.latents is not None
    _, channels, height, _ = clip.latents.shape
    model = replace(
        CONFIG,
        in_channels=channels,
        frame_height=clip.frame_size[1],
        frame_width=clip.frame_size[0],
        temporal_stride=clip.temporal_stride,
        spatial_stride=clip.frame_size[1] // height,
    )
    source = FittingClips(open_set(plan.folder), model, LATENTS)
    clips = StreamClips(ClipStream([source], seed=0), model, CaptionTable(["coloured patches"]), "front")
    batch = clips.draw(2, LATENTS, np.random.default_rng(0))
    # Every frame of the batch has the pose that annotation found for it, counted from the clip's first.
    [poses, _] = [read_camera(plan.folder, each.key)[0] for each in done.clips if each.kept]
    frames = np.maximum(np.arange(LATENTS * model.temporal_stride) - model.temporal_stride + 1, 0)
    wanted = (np.linalg.inv(poses[0]) @ poses)[frames]
    np.testing.assert_allclose(batch.c2w[0].numpy(), wanted, atol=1e-5)
    assert np.linalg.norm(wanted[-1, :3, 3]) > 0.5

    inputs = SimpleNamespace(
        clips=lambda config, **asked: clips, generator_before=lambda config, **asked: model_of(model)
    )
    stage = BUILDERS["minute-camera"](cast("Inputs", inputs), stage_of("minute-camera", LATENTS))
    assert isinstance(stage, FlowMatchingStage)
    turned = replace(batch, c2w=batch.c2w.flip(1))
    assert loss_of(stage, batch) == loss_of(stage, turned)
    stage.backward(np.random.default_rng(0))
    learned = [p for name, p in stage.model.named_parameters() if is_camera(name) and p.grad is not None]
    assert any(float(p.grad.abs().max()) > 0 for p in learned if p.grad is not None)
    stage.optimizer.step(1.0)
    assert loss_of(stage, batch) != loss_of(stage, turned)
