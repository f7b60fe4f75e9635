"""The pocket's recipe on tiny sizes: keyframes cover, memories are hidden, every stage learns."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.machine.assets import checkpoints_dir, find_bundle
from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from holodeck import Place, get_place
from model.block import Block
from model.config import ModelConfig, tiny
from model.vae.depth import DepthConfig, DepthGraph, DepthNetwork
from model.vae.guided import GuidedAutoencoder
from tests.models import random_model, small_autoencoder
from training.data.memory_clips import MemoryClips
from training.optimizer import OptimizerConfig
from training.pocket.ablation import PARTS, silenced_model
from training.pocket.clip_jobs import ClipJob, KeyframeJob, make_all
from training.pocket.clips import SHARES, ClipSettings, make_clip, make_clips, shown_keyframes, stacked
from training.pocket.decoder import DECIBEL_WEIGHT, DecoderStage
from training.pocket.depth import DepthStage, textured
from training.pocket.generator import GeneratorStage, LatentClips, balanced, encode_clips
from training.pocket.keyframes import (
    Placement,
    choose,
    faces,
    place_keyframes,
    rendered_keyframe,
    sample_views,
    view_errors,
)
from training.pocket.own_history import OwnHistoryStage, roll_out
from training.pocket.views import RgbdViews, ViewJob
from training.stages.autoencoder import AutoencoderStage, reconstruction_loss
from training.stages.scenic_model import NO_SCENE, ScenicModel

LENS = (41.6, 41.6, 32.0, 32.0)
SETTINGS = ClipSettings(num_chunks=3, width=64, height=64, intrinsics=LENS, stride=2)
AUTOENCODER = small_autoencoder(8, 2, 16)
CONFIG = replace(tiny(), in_channels=8, memory_channels=9, spatial_stride=32, frame_height=64, frame_width=64)
FAST = OptimizerConfig(muon_lr=0.02, adam_lr=5e-3, min_side=16)


@pytest.fixture(scope="module")
def place() -> Place:
    return get_place("garden")


@pytest.fixture(scope="module")
def keyframes(place: Place) -> list[Keyframe]:
    """Everything around where the place begins."""
    return [rendered_keyframe(place, pose, side=64) for pose in faces(place.spawn[:3, 3])]


@pytest.fixture(scope="module")
def clips(place: Place, keyframes: list[Keyframe]) -> MemoryClips:
    return make_clips(place, keyframes, {"whole": 1.0}, 2, SETTINGS, seed=1)


def coverage(quality: np.ndarray, chosen: list[int]) -> float:
    """How well a choice shows all points: the best keyframe of each, and half of the second best."""
    best = np.sort(np.concatenate([quality[chosen], np.zeros((2, quality.shape[1]))]), 0)[::-1]
    return float((best[0] + 0.5 * best[1]).sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12))
def test_no_keyframe_that_is_added_lowers_what_is_covered(seed: int, count: int, points: int) -> None:
    quality = np.random.default_rng(seed).random((count, points)).astype(np.float32)
    chosen = choose(quality, count)
    assert len(set(chosen)) == len(chosen)
    reached = [coverage(quality, chosen[:number]) for number in range(len(chosen) + 1)]
    assert (np.diff(reached) > 0).all()
    # The first is the one that shows most on its own.
    assert chosen[0] == quality.sum(1).argmax()


def test_keyframes_that_show_nothing_are_not_placed() -> None:
    quality = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.5]], np.float32)
    # A second look at what is seen already counts half, a third one nothing.
    assert choose(quality, 5) == [1, 4, 2]
    assert choose(quality, 1) == [1]


def test_keyframes_go_where_the_memory_was_rendered_wrong(place: Place) -> None:
    few = Placement(most=6, num_positions=3, num_views=12, side=64, rounds=1, mending=0.0)
    settings = replace(few, most=12, mending=0.5, num_mended_views=24)
    placed, before = place_keyframes(place, settings), place_keyframes(place, few)
    assert [keyframe.c2w.tolist() for keyframe in placed[:6]] == [k.c2w.tolist() for k in before]
    assert len(placed) == 12
    views = sample_views(place, np.random.default_rng(5), 16)
    errors = [
        sum(float(view_errors(place, MemoryRenderer(memory), c2w)[2].sum()) for c2w in views)
        for memory in (placed, before)
    ]
    assert errors[0] < 0.9 * errors[1]


def test_what_a_memory_shows_depends_on_what_is_hidden(place: Place, keyframes: list[Keyframe]) -> None:
    covered = {}
    for kind in SHARES:
        rng = np.random.default_rng(3)
        clip = stacked([make_clip(place, keyframes, {kind: 1.0}, SETTINGS, rng)])
        assert clip.color.shape == (1, 7, 64, 64, 3)
        covered[kind] = clip.memory[0, ..., 3].mean((1, 2)) / 255
    assert covered["whole"].min() > 0.2
    assert covered["none"].max() == 0.0
    # A memory that grows knows the first frame at once, and nothing before.
    assert covered["grown"][0] > 0.9
    assert covered["sector"].mean() <= covered["whole"].mean()


def test_half_and_sector_hide_some_keyframes_and_never_add_any(keyframes: list[Keyframe]) -> None:
    rng = np.random.default_rng(0)
    for kind in ("half", "sector"):
        counts = [len(shown_keyframes(kind, keyframes, rng)) for _ in range(40)]
        assert max(counts) < len(keyframes)
        assert min(counts) < max(counts)
    assert shown_keyframes("whole", keyframes, rng) == keyframes
    assert shown_keyframes("grown", keyframes, rng) == shown_keyframes("none", keyframes, rng) == []


def test_clips_are_the_same_for_the_same_seed_and_are_mapped_back(
    place: Place, keyframes: list[Keyframe], clips: MemoryClips, tmp_path
) -> None:
    again = make_clips(place, keyframes, {"whole": 1.0}, 2, SETTINGS, seed=1)
    clips.save(tmp_path, "garden")
    assert MemoryClips.are_at(tmp_path, "garden")
    kept = MemoryClips.open(tmp_path, "garden")
    for name in ("color", "inverse_depth", "memory", "memory_depth", "c2w"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name), err_msg=name)
    other = make_clips(place, keyframes, {"whole": 1.0}, 1, SETTINGS, seed=2)
    assert not np.array_equal(other.c2w[0], clips.c2w[0])


@pytest.mark.slow
def test_data_is_made_once_and_known_again_by_its_settings(tmp_path) -> None:
    placement = Placement(most=3, num_positions=1, num_views=2, side=64)
    placed = KeyframeJob("garden", placement)
    jobs = [
        ClipJob("garden", 0, 1, SETTINGS, placed),
        ClipJob("generated", 1000, 1, SETTINGS, num_places=2),
    ]
    assert len(list(make_all([placed], tmp_path, 1))) == 1
    assert len(list(make_all(jobs, tmp_path, 1))) == 2
    assert list(make_all([placed, *jobs], tmp_path, 1)) == []
    assert len(placed.read(tmp_path)) == 3
    assert len(MemoryClips.open(tmp_path, jobs[1].stem).color) == 2
    assert not replace(jobs[0], num_clips=2).is_made(tmp_path)


def losses(stage, count: int) -> list[float]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        found.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    return found


def test_the_autoencoder_learns_colour_and_depth(clips: MemoryClips) -> None:
    torch.manual_seed(0)
    stage = AutoencoderStage(AUTOENCODER, [clips], 2, (32, 32), optimizer=FAST)
    found = losses(stage, 30)
    assert np.mean(found[-5:]) < 0.8 * np.mean(found[:5])
    metrics = stage.backward(np.random.default_rng(1))
    assert {"loss", "depth", "psnr"} <= metrics.keys()
    assert metrics["depth"] > 0
    finished = stage.finished_model(2)
    assert float(finished.latents_std.min()) > 0


def test_depth_that_nobody_knows_costs_nothing() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    stage = AutoencoderStage(AUTOENCODER, [MemoryClips.of_video(frames)], 1, None, optimizer=FAST)
    metrics = stage.backward(np.random.default_rng(0))
    assert metrics["depth"] == 0.0
    assert np.isfinite(metrics["loss"])


@pytest.fixture(scope="module")
def latents(clips: MemoryClips) -> LatentClips:
    torch.manual_seed(1)
    return encode_clips(GuidedAutoencoder(AUTOENCODER).eval(), clips, 0)


def test_encoded_clips_carry_coverage_as_the_last_channel(clips: MemoryClips, latents: LatentClips) -> None:
    assert latents.latents.shape == (2, 8, 4, 2, 2)
    assert latents.memory.shape == (2, 9, 4, 2, 2)
    cells = clips.memory[1, 1:3, :32, 32:, 3].mean() / 255
    assert float(latents.memory[1, 8, 1, 0, 1]) == pytest.approx(cells, abs=1e-5)
    # As in a session, the first latent frame knows no pose but its own.
    torch.testing.assert_close(latents.c2w[:, :2], torch.eye(4).expand(2, 2, 4, 4))


def test_the_generator_learns_and_the_memory_is_read(latents: LatentClips) -> None:
    torch.manual_seed(0)
    stage = GeneratorStage(ScenicModel(CONFIG, 1), [latents], LENS, 4, optimizer=FAST)
    before = stage.model.world.memory_embedder
    assert before is not None
    assert not before.proj.weight.detach().any()
    found = losses(stage, 40)
    assert np.mean(found[-8:]) < 0.85 * np.mean(found[:8])
    assert before.proj.weight.detach().any()


def test_own_history_is_generated_and_only_in_front_of_what_is_trained(latents: LatentClips) -> None:
    torch.manual_seed(0)
    stage = OwnHistoryStage(ScenicModel(CONFIG, 1), [latents], LENS, (1000.0, 700.0), 3, optimizer=FAST)
    rng = np.random.default_rng(2)
    batch = stage.batch(rng)
    trained = torch.tensor([[False, True, True, True], [False, False, False, True], [False] * 3 + [True]])
    seen = stage.history(batch, trained, rng)
    assert not seen.requires_grad
    changed = (seen != batch.latents).any(1).any(-1).any(-1)
    assert changed.tolist() == [[False] * 4, [False, True, True, False], [False, True, True, False]]
    found = losses(stage, 30)
    assert np.mean(found[-6:]) < 0.95 * np.mean(found[:6])


def test_a_rollout_of_latents_goes_on_from_its_own_past(latents: LatentClips) -> None:
    torch.manual_seed(0)
    world = random_model(CONFIG)
    stage = GeneratorStage(ScenicModel(CONFIG, 1), [latents], LENS, 1)
    conditioning = stage.batch(np.random.default_rng(0)).conditioning
    first, noise = latents.latents[:1, :, :1], torch.randn(1, 8, 4, 2, 2)
    with torch.no_grad():
        whole = roll_out(world, first, noise, conditioning, (1000.0,))
        torch.testing.assert_close(whole[:, :, :1], first)
        # At full noise and one step a chunk is what the whole clip's pass says, once its past stands in front of it.
        clean = torch.cat([whole[:, :, :3], noise[:, :, 3:]], 2)
        level = torch.tensor([[0.0, 0.0, 0.0, 1000.0]])
        velocity = world(clean, level, conditioning, mode="streaming")
    torch.testing.assert_close(whole[:, :, 3], noise[:, :, 3] - velocity[:, :, 3], atol=1e-4, rtol=1e-3)


def test_the_decoder_learns_generated_latents_and_the_encoder_stays(
    clips: MemoryClips, latents: LatentClips
) -> None:
    torch.manual_seed(0)
    start = GuidedAutoencoder(AUTOENCODER).eval()
    generated = [latents.latents + 0.3 * torch.randn_like(latents.latents)]
    stage = DecoderStage(start, [clips], [latents], generated, 2, (32, 32), optimizer=FAST)
    found = losses(stage, 25)
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    finished = stage.finished_model()
    for name, tensor in start.state_dict().items():
        same = torch.equal(finished.state_dict()[name], tensor)
        assert same == (not name.startswith("decoder.")), name
    clean, poor = torch.zeros(2, 3, 8, 8), torch.full((3, 8, 8), 0.3)
    losses_of = [
        float(
            stage.color_loss(torch.stack([poor, good]), clean)
            - reconstruction_loss(torch.stack([poor, good]), clean)
        )
        for good in (poor, poor / 10)
    ]
    # 20 dB of one frame of two, as if the other were not there.
    assert losses_of[0] - losses_of[1] == pytest.approx(DECIBEL_WEIGHT * math.log(100) / 2, rel=0.1)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_is_silenced_changes_what_is_generated(part: str, latents: LatentClips) -> None:
    torch.manual_seed(1)
    whole = random_model(CONFIG).eval()
    silent = copy.deepcopy(whole)
    with torch.no_grad():
        PARTS[part](silent)
    stage = GeneratorStage(ScenicModel(CONFIG, 1), [latents], LENS, batch_size=1)
    asked = stage.batch(np.random.default_rng(0)).conditioning
    asked = replace(asked, text=asked.text.detach())
    noise = torch.randn(1, *latents.latents.shape[1:])
    made = [roll_out(world, latents.latents[:1, :, :1], noise, asked, (1000,)) for world in (whole, silent)]
    assert not torch.allclose(made[0][:, :, 2:], made[1][:, :, 2:])
    assert all(tensor.isfinite().all() for tensor in made)


def test_a_model_without_a_memory_is_one_whose_memory_holds_nothing() -> None:
    torch.manual_seed(0)
    config: ModelConfig = CONFIG
    model = random_model(config)
    stage_input = torch.randn(1, 8, 3, 2, 2)
    conditioning = _conditioning(config, 3)
    zeros = replace(conditioning, memory=torch.zeros(1, 9, 3, 2, 2))
    shown = replace(conditioning, memory=torch.randn(1, 9, 3, 2, 2))
    level = torch.full((1, 3), 500.0)
    with torch.no_grad():
        without, nothing, something = (
            model(stage_input, level, given, mode="streaming") for given in (conditioning, zeros, shown)
        )
    torch.testing.assert_close(without, nothing)
    assert not torch.allclose(without, something, atol=1e-3)


def _conditioning(config: ModelConfig, num_frames: int):
    from model.conditioning import Conditioning

    count = 1 + config.temporal_stride * (num_frames - 1)
    return Conditioning(
        torch.randn(1, config.text_length, config.text_dim),
        torch.ones(1, config.text_length),
        torch.eye(4).expand(1, count, 4, 4),
        torch.tensor(LENS).expand(1, count, 4),
    )


def test_depth_of_pictures_is_learned(tmp_path: Path) -> None:
    job = ViewJob(6000, 1, 2, SETTINGS)
    job.make(tmp_path)
    assert job.is_made(tmp_path)
    views = RgbdViews.open(tmp_path, job.stem)
    assert views.color.shape[1:] == (64, 64, 3)
    assert (views.inverse_depth >= 0).all()
    stage = DepthStage(DepthNetwork(DepthConfig((16, 16, 16))), [views], 4, FAST)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(30):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    told = DepthGraph(stage.finished_model())(torch.from_numpy(np.array(views.color[0])))
    assert told.shape == (64, 64)


def test_pictures_are_textured_and_stay_as_bright() -> None:
    rng = np.random.default_rng(0)
    plain = np.full((48, 80, 3), (90, 120, 150), np.uint8)
    made = np.stack([textured(plain, rng) for _ in range(40)]).astype(float)
    assert made.shape == (40, 48, 80, 3)
    np.testing.assert_allclose(made.mean((0, 1, 2)), plain[0, 0], rtol=0.08)
    assert (made.std((1, 2)).mean(1) > 2).all(), "each has its texture"
    assert np.abs(made.mean(0) - plain).mean() < 0.3 * made.std(0).mean(), "and another one than the others"


def test_half_of_the_samples_are_of_places_with_a_scene() -> None:
    def clips(scene: int, count: int) -> LatentClips:
        return LatentClips(scene, *(torch.zeros(count, 1) for _ in range(3)))

    shares = balanced([clips(0, 4), clips(1, 12), clips(NO_SCENE, 100)])
    np.testing.assert_allclose(shares, [0.55 / 4, 0.55 * 3 / 4, 0.45])
    np.testing.assert_allclose(balanced([clips(0, 4), clips(1, 12)]), [0.25, 0.75])


def test_places_without_a_scene_have_no_text() -> None:
    model = ScenicModel(CONFIG, 1)
    text, mask = model.text(torch.tensor([NO_SCENE, 0]))
    assert not text[0].any()
    assert torch.equal(text[1], model.scenes[0])
    assert mask.all()


def test_parts_are_silenced_in_the_weights_that_a_bundle_was_exported_from() -> None:
    bundle = find_bundle("pocket")
    silenced = silenced_model(bundle, checkpoints_dir(), "softmax attention").network
    attentions = [block.attn for block in silenced.blocks if isinstance(block, Block)]
    weights = [attention.proj.weight for attention in attentions if attention.is_softmax]
    assert weights
    assert not any(weight.any() for weight in weights)
    other = replace(bundle, spec=bundle.spec.model_copy(update={"weights_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="was not exported from"):
        silenced_model(other, checkpoints_dir(), "text")
