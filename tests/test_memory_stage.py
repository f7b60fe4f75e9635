"""Learning places token by token: the path is the whole network's own, and it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.conditioning import Conditioning
from model.config import tiny
from model.vae.pocket import Autoencoder, AutoencoderConfig
from training.data.holodeck.rendering import RenderJob, load_walk, render_walk
from training.data.latents import LatentWalk, encode_frames, pack_windows
from training.optimizer import Muon, OptimizerConfig, orthogonalise
from training.pocket.per_scene import EVERY, Glimpses, MemoryStage, gather_glimpses
from training.pocket.token_path import hush_branches, recall_tokens, token_intrinsics
from training.stages.scenic_model import ScenicModel
from training.throughput import training_dtype

CONFIG = tiny()
INTRINSICS = torch.tensor([15.0, 15.0, 12.0, 8.0])


def random_poses(*shape: int) -> torch.Tensor:
    """Rigid poses in packed windows, [..., 4, 4]."""
    rotation = torch.linalg.qr(torch.randn(*shape, 3, 3)).Q
    rotation = rotation * torch.linalg.det(rotation).sign()[..., None, None]
    poses = torch.eye(4).repeat(*shape, 1, 1)
    poses[..., :3, :3], poses[..., :3, 3] = rotation, torch.randn(*shape, 3)
    return poses


def test_hushed_network_recalls_of_every_token_what_the_token_path_recalls() -> None:
    torch.manual_seed(0)
    scenic = ScenicModel(CONFIG, 3)
    hush_branches(scenic.world)
    scene = torch.tensor([2, 0])
    text, mask = scenic.text(scene)
    noise = torch.randn(2, CONFIG.in_channels, 1, CONFIG.latent_height, CONFIG.latent_width)
    poses = random_poses(2, CONFIG.temporal_stride)
    tokens = torch.arange(CONFIG.tokens_per_frame).expand(2, -1)
    intrinsics = token_intrinsics(
        CONFIG,
        INTRINSICS.expand(*tokens.shape, 4),
        tokens // CONFIG.latent_width,
        tokens % CONFIG.latent_width,
    )
    with torch.no_grad():
        velocity = scenic.world(
            noise,
            torch.full((2, 1), 1000.0),
            Conditioning(
                text, mask, poses, INTRINSICS.expand(2, CONFIG.temporal_stride, 4), torch.tensor([3, 9])
            ),
            mode="streaming",
        )
        alone = recall_tokens(
            scenic.world,
            scenic.memory()[scene],
            poses[:, None].expand(-1, CONFIG.tokens_per_frame, -1, -1, -1),
            intrinsics,
        )
    torch.testing.assert_close((noise - velocity).flatten(2).transpose(1, 2), alone, atol=1e-5, rtol=1e-5)


def test_a_scenes_text_is_put_back_as_it_was_given() -> None:
    torch.manual_seed(0)
    one, other = ScenicModel(CONFIG, 3), ScenicModel(CONFIG, 3)
    for scene in range(3):
        other.set_text(scene, one.text(torch.tensor([scene]))[0][0])
    every = torch.arange(3)
    assert torch.equal(one.text(every)[0], other.text(every)[0])
    with pytest.raises(ValueError, match="shape"):
        other.set_text(0, torch.zeros(3, CONFIG.text_dim))


def walks() -> list[LatentWalk]:
    torch.manual_seed(1)
    size = (CONFIG.in_channels, CONFIG.latent_height, CONFIG.latent_width)
    return [
        LatentWalk(
            scene,
            torch.randn(4, *size).half(),
            random_poses(4, CONFIG.temporal_stride),
            INTRINSICS,
        )
        for scene in (0, 2)
    ]


def test_a_place_is_learned_by_heart_and_the_rest_of_the_network_is_left_alone() -> None:
    torch.manual_seed(0)
    scenic = ScenicModel(CONFIG, 3)
    before = {name: p.detach().clone() for name, p in scenic.named_parameters()}
    stage = MemoryStage(
        scenic, walks(), batch_size=64, optimizer=OptimizerConfig(muon_lr=0.03, adam_lr=5e-3, min_side=16)
    )
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(120):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    after = dict(scenic.named_parameters())
    assert torch.equal(before["world.blocks.0.attn.qkv.weight"], after["world.blocks.0.attn.qkv.weight"])
    assert not torch.equal(
        before["world.plucker_embedder.proj.weight"], after["world.plucker_embedder.proj.weight"]
    )


def test_the_first_frame_is_never_a_target() -> None:
    stage = MemoryStage(ScenicModel(CONFIG, 3), walks(), batch_size=8)
    assert [len(latents) for latents in stage.latents] == [3, 3]


@pytest.mark.parametrize("shape", [(48, 96), (96, 48)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), torch.float32))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_muon_in_bfloat16_steps_as_torchs_own_does() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(24, 40))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimizers = (
        Muon([ours], 0.02, 0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1),
    )
    optimizers[0].dtype = torch.bfloat16
    for _ in range(3):
        ours.grad = torch.randn(24, 40)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_the_training_precision_is_one_of_the_two_that_are_measured() -> None:
    assert training_dtype() in (torch.float32, torch.bfloat16)
    assert training_dtype() is training_dtype()


def test_glimpses_are_moments_of_a_walk_and_are_drawn_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder(AutoencoderConfig(16, 2, 8, 16, (1, 1), (1, 1)))
    jobs = [RenderJob(place, 1, 13, 48, 32, 16, (30.0, 30.0, 24.0, 16.0)) for place in ("town", "garden")]
    made = list(gather_glimpses(jobs, ["garden", "town"], autoencoder, tmp_path, 2))
    assert [moments.scene for moments in made] == [1, 0]
    walk = render_walk(jobs[0], tmp_path)
    frames, poses = load_walk(jobs[0], tmp_path)
    assert walk.exists()
    every = range(1 + 1 % EVERY, 7, EVERY)
    torch.testing.assert_close(made[0].c2w, torch.from_numpy(pack_windows(poses, 2))[list(every)])
    whole = encode_frames(autoencoder, np.asarray(frames))
    torch.testing.assert_close(made[0].latents, whole[list(every)])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.glimpses.*")}
    again = list(gather_glimpses(jobs, ["garden", "town"], autoencoder, tmp_path, 2))
    assert torch.equal(again[1].latents, made[1].latents)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.glimpses.*")}


def test_glimpses_are_learned_from_beside_walks() -> None:
    scenic, moments = ScenicModel(CONFIG, 3), torch.ones(5, CONFIG.in_channels, 2, 3).half()
    glimpses = [Glimpses(2, moments, random_poses(5, CONFIG.temporal_stride))]
    stage = MemoryStage(scenic, walks(), glimpses, batch_size=8)
    assert [len(latents) for latents in stage.latents] == [3, 8]


def test_latents_lie_as_they_would_in_a_file() -> None:
    frames = np.zeros((5, 32, 48, 3), np.uint8)
    assert encode_frames(Autoencoder(AutoencoderConfig(16, 2, 8, 16, (1, 1), (1, 1))), frames).is_contiguous()
