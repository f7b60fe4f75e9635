"""A student under NVFP4 learns what it says in full precision; only what is rounded learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.files.world import read_world
from engine.machine.assets import worlds_dir
from model.config import pocket, tiny
from tests.models import perturb
from training.data.batches import WalkClips
from training.data.latents import LatentWalk
from training.data.world_clips import WorldClips
from training.distillation.quantized import QuantizedDistillationStage
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.stages.config import DistillationConfig, StageConfig
from training.stages.data import WorldData
from training.stages.presets import pocket_stages
from training.stages.rollout import make_again
from training.stages.scenic_model import ScenicModel

CONFIG = replace(tiny(), hidden_size=32, num_layers=2, softmax_every_n=2)
LOW = "world.blocks.1.mlp.point_conv.conv.weight"


def walks() -> WalkClips:
    torch.manual_seed(1)
    grid = (CONFIG.latent_height, CONFIG.latent_width)
    c2w = torch.eye(4).expand(8, CONFIG.temporal_stride, 4, 4).clone()
    c2w[..., 0, 3] = torch.linspace(0, 2, 8)[:, None]
    latents = torch.randn(8, CONFIG.in_channels, *grid).half()
    return WalkClips([LatentWalk(0, latents, c2w, torch.tensor([20.0, 20.0, 12.0, 8.0]))])


def small(length: int = 4) -> StageConfig:
    adam = OptimizerConfig(adam_lr=1e-3, min_side=NO_MATRIX)
    return replace(
        pocket_stages()["qad"],
        num_latent_frames=length,
        batch_size=2,
        optimizer=adam,
        distillation=DistillationConfig(timesteps=(1000, 700)),
    )


def student() -> ScenicModel:
    torch.manual_seed(0)
    model = ScenicModel(CONFIG, 1)
    perturb(model)
    return model


def test_the_student_comes_nearer_to_what_it_says_in_full_precision() -> None:
    own = student()
    before = copy.deepcopy(own.state_dict())
    stage = QuantizedDistillationStage(small(), own, walks())
    rng, losses = np.random.default_rng(0), []
    for _ in range(24):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
        stage.optimizer.publish()
    assert 0 < np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    moved = {
        name for name, tensor in stage.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert moved == set(stage.optimizer.names)
    assert LOW in moved
    assert len(moved) == 8 * CONFIG.num_layers
    teacher = stage.teacher.state_dict()
    assert all(torch.equal(teacher[name], tensor) for name, tensor in before.items())
    # What is left behind is a network like any other.
    ScenicModel(CONFIG, 1).load_state_dict(stage.model.state_dict() | stage.optimizer.ema_state())


def test_rollouts_are_the_quantised_student_s_and_levels_do_not_fall() -> None:
    stage = QuantizedDistillationStage(small(6), student(), walks())
    batch = stage.clips.draw(2, 6, np.random.default_rng(1))
    noise = torch.randn_like(batch.latents)
    own, full = (make_again(model, batch, (1000, 700), noise) for model in (stage.model, stage.teacher))
    error = float((own - full).norm() / full.norm())
    assert 0.005 < error < 0.5
    rng = np.random.default_rng(2)
    levels = torch.cat([stage.levels(rng) for _ in range(20)])
    assert not levels[:, 0].any()
    assert (levels.diff(dim=1) >= 0).all()
    assert set(levels.flatten().tolist()) == {0.0, float(np.float32(0.7)), 1.0}
    assert (levels[:, -1] > 0).all()


def test_clips_along_worlds_show_what_their_memories_hold() -> None:
    world = read_world(worlds_dir() / "town.world")
    config = pocket()
    shown: list[np.ndarray] = []

    def encode(frames: np.ndarray) -> torch.Tensor:
        shown.append(frames)
        return torch.ones(1, config.in_channels, 1, config.latent_height, config.latent_width)

    clips = WorldClips([world], config, encode, 16.0, num_clips=1, seed=3)
    batch = clips.draw(2, 2, np.random.default_rng(0))
    # Both are the one clip, which was rendered once.
    assert len(shown) == 2
    assert shown[0].shape == (config.temporal_stride, config.frame_height, config.frame_width, 3)
    assert batch.memory is not None
    assert batch.memory.shape == (2, 97, 2, config.latent_height, config.latent_width)
    assert 0.5 < float(batch.memory[:, -1].mean()) <= 1.0
    assert torch.equal(batch.latents[0, :, 0], torch.from_numpy(world.first_latent))
    assert not batch.latents[:, :, 1].any()
    assert batch.frame_index[0, 0] == 0
    assert torch.equal(batch.c2w[0, 0], torch.eye(4))
    conditioning = batch.conditioning(text := torch.zeros(2, 4, 128), torch.ones(2, 4), slice(1, 2))
    assert conditioning.text is text
    assert conditioning.memory is not None
    assert torch.equal(conditioning.memory, batch.memory[:, :, 1:])


def test_weights_without_worlds_take_other_clips(tmp_path: Path) -> None:
    assert WorldData.find(tmp_path / "none.safetensors") is None
