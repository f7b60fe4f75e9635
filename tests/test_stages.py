"""The paper's stages at tiny size: conversions keep what they should, and every stage lowers its own loss."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import ModelConfig, tiny
from training.data.batches import WalkClips, WindowBatch
from training.data.clip_quality import ClipFilters, best_clips, clip_scores
from training.data.latents import LatentWalk
from training.distillation.ode_regression import (
    OdeRegressionStage,
    follow_teacher,
    store_trajectories,
    trajectories_tag,
)
from training.loop import LoopConfig
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.presets import paper_preset
from training.stages.builders import BUILDERS, Inputs
from training.stages.config import DistillationConfig, NoiseConfig, StageConfig
from training.stages.conversions import (
    add_cameras,
    base_config,
    disable_cameras,
    is_camera,
    is_renewed,
    rebuilt,
    swap_autoencoder,
    to_framewise_gdn,
    to_hybrid,
)
from training.stages.flow_matching import FlowMatchingStage, predict_velocity
from training.stages.noise import ONE_LEVEL, ChunkMixture
from training.stages.presets import paper_stages, pocket_stages
from training.stages.scenic_model import ScenicModel
from training.stages.table import STAGES

CONFIG = replace(tiny(), in_channels=8, num_layers=2, softmax_every_n=2)
BASE = base_config(CONFIG, in_channels=6)


def walks(channels: int, count: int = 2, length: int = 12) -> list[LatentWalk]:
    """Walks whose every latent is their place's first one: all there is to learn is the place."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for scene in range(count):
        first = torch.randn(1, channels, CONFIG.latent_height, CONFIG.latent_width, generator=generator)
        c2w = torch.eye(4).expand(length, CONFIG.temporal_stride, 4, 4).clone()
        c2w[:, :, 0, 3] = torch.linspace(0, 2, length)[:, None]
        latents = first.expand(length, -1, -1, -1).half()
        made.append(LatentWalk(scene, latents, c2w, torch.tensor([20.0, 20.0, 12.0, 8.0])))
    return made


def stage_of(name: str, length: int = 4, **fields: object) -> StageConfig:
    """A preset's stage, small and quick."""
    quick = OptimizerConfig(adam_lr=1e-2, min_side=NO_MATRIX)
    noise = replace(pocket_stages()[name].noise, image_conditioning=1.0, caption_dropout=0.0)
    config = replace(
        pocket_stages()[name], num_latent_frames=length, batch_size=4, optimizer=quick, noise=noise
    )
    return replace(config, **fields)  # pyright: ignore[reportArgumentType]


def model_of(config: ModelConfig, seed: int = 0) -> ScenicModel:
    torch.manual_seed(seed)
    return ScenicModel(config, 2)


def before_stage(name: str) -> ScenicModel:
    """The model that a stage starts from, with random weights."""
    alone = CONFIG.num_layers + 1
    configs = {
        "autoencoder-swap": BASE,
        "framewise-gdn": replace(CONFIG, linear_attention=True, softmax_every_n=alone),
        "hybrid-attention": replace(CONFIG, softmax_every_n=alone),
    }
    model = model_of(configs.get(name, CONFIG))
    if name in configs:
        disable_cameras(model)
    return model


def clips(channels: int = CONFIG.in_channels) -> WalkClips:
    return WalkClips(walks(channels))


def flow_stage(name: str, config: StageConfig | None = None) -> FlowMatchingStage:
    """Build a stage as a pipeline does, on a model with random weights and walks in memory."""
    channels = 6 if name == "base" else CONFIG.in_channels
    inputs = SimpleNamespace(
        preset=SimpleNamespace(model=CONFIG),
        base_channels=6,
        num_scenes=2,
        clips=lambda config, **wanted: clips(channels),
        generator_before=lambda config, **wanted: before_stage(name),
    )
    torch.manual_seed(0)
    stage = BUILDERS[name](cast("Inputs", inputs), config or stage_of(name))
    assert isinstance(stage, FlowMatchingStage)
    return stage


def held_loss(stage: FlowMatchingStage) -> float:
    """The stage's loss without a step, on the same noise every time."""
    torch.manual_seed(5)
    rng = np.random.default_rng(5)
    loss = float(np.mean([stage.backward(rng)["loss"] for _ in range(4)]))
    for parameter in stage.optimizer.parameters:
        parameter.grad = None
    return loss


@pytest.mark.parametrize(
    "name",
    [
        "base",
        "autoencoder-swap",
        "framewise-gdn",
        "hybrid-attention",
        "minute-camera",
        "best-clips",
        "chunk-causal",
    ],
)
def test_flow_matching_stage_lowers_its_loss(name):
    stage = flow_stage(name)
    before = held_loss(stage)
    rng = np.random.default_rng(0)
    for _ in range(20):
        stage.backward(rng)
        stage.optimizer.step(1.0)
    assert held_loss(stage) < 0.8 * before


def batch_of(length: int = 4) -> WindowBatch:
    return clips().draw(2, length, np.random.default_rng(1))


def say(model: ScenicModel, batch: WindowBatch) -> Tensor:
    """The velocity of half-noisy clips whose frames all see one another."""
    sigma = torch.full(batch.frame_index.shape, 0.5)
    noisy = 0.5 * batch.latents
    with torch.no_grad():
        return predict_velocity(model, noisy, sigma, batch, "bidirectional")


def moved(batch: WindowBatch) -> WindowBatch:
    """The same clips with the cameras elsewhere."""
    c2w = batch.c2w.clone()
    c2w[..., 2, 3] += torch.arange(c2w.shape[1]) * 0.3
    return replace(batch, c2w=c2w)


def test_autoencoder_swap_renews_patchify_and_output_projection_and_nothing_else():
    model = before_stage("autoencoder-swap")
    torch.manual_seed(9)
    swapped = swap_autoencoder(model, replace(BASE, in_channels=8))
    renewed = {
        name
        for name, tensor in swapped.state_dict().items()
        if tensor.shape != model.state_dict()[name].shape or not torch.equal(tensor, model.state_dict()[name])
    }
    # Biases begin at zero, as they did before, so that the named ones show by their weights.
    assert renewed == {"world.x_embedder.proj.weight", "world.final_layer.linear.weight"} | {
        "world.final_layer.linear.bias"
    }
    assert {name for name in swapped.state_dict() if is_renewed(name)} == renewed | {
        "world.x_embedder.proj.bias"
    }


def test_framewise_gdn_keeps_every_weight_and_begins_with_gates_almost_open():
    model = before_stage("framewise-gdn")
    converted = to_framewise_gdn(model)
    assert not converted.world.config.linear_attention
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, converted.state_dict()[name]), name
    beta, decay = converted.world.blocks[0].attn._gates(torch.randn(1, 2, 3, CONFIG.hidden_size))  # pyright: ignore
    torch.testing.assert_close(beta, torch.full_like(beta, 0.9933), atol=1e-4, rtol=0)
    torch.testing.assert_close(decay, torch.full_like(decay, 0.9933), atol=1e-4, rtol=0)
    # It is another network now, though a close one.
    assert not torch.equal(say(model, batch_of()), say(converted, batch_of()))


def test_linear_attention_has_no_use_for_gates():
    model = before_stage("framewise-gdn")
    batch = batch_of()
    said = say(model, batch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("beta_proj", "gate_proj", "A_log", "dt_bias")):
                parameter.add_(1.0)
    assert torch.equal(say(model, batch), said)


def test_hybrid_attention_keeps_projections_and_leaves_key_convolutions_behind():
    model = before_stage("hybrid-attention")
    converted = to_hybrid(model, 2)
    assert [block.attn.is_softmax for block in converted.world.blocks] == [False, True]  # pyright: ignore
    old, new = model.state_dict(), converted.state_dict()
    assert all(torch.equal(old[name], tensor) for name, tensor in new.items())
    assert set(old) - set(new) == {
        "world.blocks.1.attn.conv_k.weight",
        "world.blocks.1.attn.conv_k_cam.weight",
    }


def test_cameras_are_copied_from_the_base_and_change_nothing_at_first():
    model = before_stage("hybrid-attention")
    with torch.no_grad():
        # A base that was trained: norms and convolutions are not what they began as.
        for block in model.world.blocks:
            block.attn.k_norm.weight.mul_(1.3)  # pyright: ignore
            block.attn.conv_k.weight.add_(0.1)  # pyright: ignore
    silent = say(model, batch_of())
    add_cameras(model)
    assert torch.equal(say(model, batch_of()), silent)
    assert torch.equal(say(model, moved(batch_of())), silent)
    for block in model.world.blocks:
        attn = block.attn
        query, key, value = attn.qkv.weight.chunk(3)  # pyright: ignore
        for linear, row in ((attn.q_proj_cam, query), (attn.k_proj_cam, key), (attn.v_proj_cam, value)):  # pyright: ignore
            assert torch.equal(linear.weight, row)  # pyright: ignore
        assert torch.equal(attn.k_norm_cam.weight, attn.k_norm.weight)  # pyright: ignore
        assert torch.equal(attn.conv_k_cam.weight, attn.conv_k.weight)  # pyright: ignore


def test_cameras_are_heard_after_a_few_steps():
    stage = flow_stage("minute-camera")
    rng = np.random.default_rng(0)
    for _ in range(3):
        stage.backward(rng)
        stage.optimizer.step(1.0)
    assert not torch.equal(say(stage.model, batch_of()), say(stage.model, moved(batch_of())))


@pytest.mark.parametrize("name", ["base", "framewise-gdn", "hybrid-attention"])
def test_stages_before_the_cameras_neither_hear_nor_train_them(name):
    stage = flow_stage(name)
    before = {n: p.detach().clone() for n, p in stage.model.named_parameters() if is_camera(n)}
    rng = np.random.default_rng(0)
    for _ in range(3):
        stage.backward(rng)
        stage.optimizer.step(1.0)
    after = dict(stage.model.named_parameters())
    assert before
    assert all(torch.equal(tensor, after[n]) for n, tensor in before.items())


def test_chunk_causal_model_does_not_see_later_chunks():
    model = model_of(CONFIG)
    batch = batch_of(6)
    sigma = torch.full(batch.frame_index.shape, 0.5)
    later = batch.latents.clone()
    later[:, :, 4:] += 1.0
    with torch.no_grad():
        said = [predict_velocity(model, x, sigma, batch, "chunk_causal") for x in (batch.latents, later)]
        seen = [predict_velocity(model, x, sigma, batch, "bidirectional") for x in (batch.latents, later)]
    assert torch.equal(said[0][:, :, :4], said[1][:, :, :4])
    assert not torch.equal(seen[0][:, :, :4], seen[1][:, :, :4])


def test_a_given_first_frame_is_clean_and_not_counted():
    config = stage_of("chunk-causal", noise=NoiseConfig(ChunkMixture(), image_conditioning=0.5))
    stage = flow_stage("chunk-causal", replace(config, batch_size=200))
    sigma, counted = stage.levels(np.random.default_rng(0))
    given = ~counted[:, 0]
    assert float(given.float().mean()) == pytest.approx(0.5, abs=0.12)
    assert (sigma[given, 0] == 0).all()
    assert counted[:, 1:].all()


def test_a_model_cannot_take_over_weights_of_another_shape():
    with pytest.raises(ValueError, match="start from the stage before"):
        rebuilt(model_of(CONFIG), replace(CONFIG, in_channels=5))


def test_best_clips_pass_the_filters_and_are_the_sharpest():
    rng = np.random.default_rng(0)
    detail = np.repeat(np.repeat(rng.integers(0, 160, (12, 12, 3)), 4, 0), 4, 1).astype(np.uint8)

    def video(picture: np.ndarray, step: int) -> np.ndarray:
        return np.stack([np.roll(picture, n * step, 1) for n in range(10)])

    soft = np.full_like(detail, 90) + (detail // 8)
    still, plain, sharp = video(detail, 0), video(soft, 2), video(detail, 2)
    cut = sharp.copy()
    cut[3:5], cut[6:8] = 255, 0
    scores = [clip_scores(frames) for frames in (still, plain, sharp, cut)]
    assert scores[0].motion == 0.0
    assert scores[2].quality > scores[1].quality
    assert scores[3].cuts > 1 >= scores[2].cuts
    assert best_clips(scores, share=1.0) == [2, 1]
    assert best_clips(scores, share=0.25) == [2]
    with pytest.raises(ValueError, match="widen them"):
        best_clips(scores, ClipFilters(motion=(99.0, 100.0)))


def ode_config(length: int = 4) -> StageConfig:
    few = DistillationConfig((1000, 700), 2, guidance=0.5, num_trajectories=8)
    return stage_of("ode-regression", length, distillation=few)


def test_stored_trajectories_start_in_noise_end_clean_and_are_made_once(tmp_path):
    teacher = model_of(CONFIG)
    stored = store_trajectories(tmp_path, teacher, clips(), ode_config())
    files = sorted(stored.folder.iterdir())
    assert [path.name for path in files] == [f"{n:05d}.safetensors" for n in range(8)]
    states = stored[0].states.float()
    assert states.shape[:2] == (3, 1)
    first = stored[0].clips.latents[:, :, 0]
    for state in states:
        # Stored in half precision.
        torch.testing.assert_close(state[:, :, 0], first, atol=2e-3, rtol=2e-3)
    assert float(states[0][:, :, 1:].std()) == pytest.approx(1.0, abs=0.15)
    stamps = [path.stat().st_mtime_ns for path in files]
    again = store_trajectories(tmp_path, teacher, clips(), ode_config())
    assert torch.equal(again[1].states, stored[1].states)
    assert [path.stat().st_mtime_ns for path in files] == stamps


def test_trajectories_go_by_what_decides_them_and_by_nothing_else():
    config, teacher = ode_config(), model_of(CONFIG)
    assert config.distillation is not None
    own = trajectories_tag(teacher, config, "walks")

    def told(**fields: object) -> str:
        changed = replace(config.distillation, **fields)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return trajectories_tag(teacher, replace(config, distillation=changed), "walks")

    assert trajectories_tag(model_of(CONFIG, 3), config, "walks") != own
    assert trajectories_tag(model_of(replace(CONFIG, chunk_size=2)), config, "walks") != own
    assert trajectories_tag(teacher, config, "other walks") != own
    assert trajectories_tag(teacher, replace(config, seed=1), "walks") != own
    assert trajectories_tag(teacher, replace(config, num_latent_frames=5), "walks") != own
    assert trajectories_tag(teacher, replace(config, cut="front"), "walks") != own
    assert told(teacher_steps_between=3) != own
    assert told(guidance=0.75) != own
    assert told(timesteps=(1000, 800)) != own
    assert told(num_trajectories=96, critic=OptimizerConfig(adam_lr=0.5), generator_every=2) == own


def test_a_teacher_that_knows_the_end_is_followed_there_exactly(monkeypatch: pytest.MonkeyPatch):
    """With v = (x - x0) / sigma the path is a straight line, and every state on it is known."""
    batch = batch_of()
    target = torch.randn_like(batch.latents)

    def straight(model, latents, sigma, batch, guidance):
        level = sigma[:, None, :, None, None]
        return torch.where(level > 0, (latents - target) / level.clamp_min(1e-6), 0.0)

    monkeypatch.setattr("training.distillation.ode_regression.guided_velocity", straight)
    config = DistillationConfig((1000, 600, 200), 4)
    states = follow_teacher(model_of(CONFIG), batch, config).states.float()
    for state, level in zip(states, (1.0, 0.6, 0.2, 0.0), strict=True):
        expected = level * states[0] + (1 - level) * target
        torch.testing.assert_close(state[:, :, 1:], expected[:, :, 1:], atol=4e-3, rtol=4e-3)


def test_ode_regression_lowers_its_loss(tmp_path):
    config = ode_config()
    torch.manual_seed(0)
    stage = OdeRegressionStage(
        config, model_of(CONFIG, 1), store_trajectories(tmp_path, model_of(CONFIG), clips(), config)
    )
    rng, losses = np.random.default_rng(0), []
    for _ in range(25):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])


def test_ode_regression_sees_each_chunk_at_one_step_and_counts_only_what_is_not_clean(tmp_path):
    config = ode_config(6)
    model = ScenicModel(replace(CONFIG, chunk_size=2), 2)
    stored = store_trajectories(tmp_path, model, clips(), config)
    stage = OdeRegressionStage(config, model, stored)
    rng = np.random.default_rng(0)
    drawn = torch.cat([stage.draw_snapshots(stored[0], rng) for _ in range(30)])
    assert (drawn[:, 0] == 2).all()
    assert torch.equal(drawn[:, 1], drawn[:, 2])
    assert torch.equal(drawn[:, 3], drawn[:, 4])
    assert set(drawn[:, 1].tolist()) == {0, 1, 2}
    assert float(stage.loss(stored[0], torch.full((1, 6), 2)).detach()) == 0.0


def test_presets_hold_the_published_figures():
    paper = paper_stages()
    assert set(pocket_stages()) == set(STAGES) == set(BUILDERS)
    steps = {name: config.loop.num_steps for name, config in paper.items()}
    assert steps == {
        "autoencoder-swap": 50_000,
        "framewise-gdn": 30_000,
        "hybrid-attention": 30_000,
        "minute-camera": 31_000,
        "best-clips": 10_000,
        "chunk-causal": 10_000,
        "ode-regression": 3000,
        "self-forcing-short": 700,
        "self-forcing-long": 3000,
        "qad": 1000,
        "refiner": 31_000,
    }
    assert paper["framewise-gdn"].optimizer.adam_lr == 5e-5
    assert paper["minute-camera"].optimizer.clip_norm == 0.5
    # 961 frames at 16 a second, eight to a latent after the first.
    assert paper["minute-camera"].num_latent_frames == 1 + 960 // 8
    assert paper["chunk-causal"].noise.mixture == ChunkMixture(0.1, 0.4, 0.4, 0.1)
    assert paper["minute-camera"].noise.mixture == ONE_LEVEL
    long = paper["self-forcing-long"].distillation
    assert long is not None
    assert (long.num_cached_chunks, long.sink, long.guidance, long.generator_every) == (2, True, 3.0, 5)
    assert (long.critic.adam_lr, long.critic.betas, long.score_range) == (2e-6, (0.0, 0.999), (20.0, 980.0))
    assert paper["ode-regression"].loop == LoopConfig(3000, warmup=0.0, decay=1.0, final_lr=1.0)


def test_what_the_paper_does_not_train_is_said_in_one_sentence():
    with pytest.raises(ValueError, match="use --preset pocket"):
        paper_preset().stage("base")
    with pytest.raises(ValueError, match="choose one of"):
        paper_preset().stage("alchemy")


def test_walks_that_are_too_short_for_a_stage_are_refused():
    with pytest.raises(ValueError, match="do not fit walks of 12"):
        clips().draw(2, 13, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no walks"):
        WalkClips([])
