"""The training room on tiny sizes: stages learn, stop, resume and leave whole files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.files.world import World, WorldInfo, write_world
from model.config import tiny
from model.vae.guided import AUTOENCODER_FILE, GuidedAutoencoder, autoencoder_in, load_autoencoder_weights
from tests.models import small_autoencoder
from training.checkpoint import load_state, save_state
from training.data.batches import draw_windows
from training.data.holodeck.rendering import RenderJob, load_walk, render_walk
from training.data.latents import LatentWalk, encode_frames, pack_windows
from training.data.memory_clips import MemoryClips
from training.loop import LoopConfig, learning_rate_scale, run_stage
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.publish import (
    BUNDLES,
    CHECKPOINTS,
    WORLDS,
    in_half,
    load_start,
    mend_publishing,
    save_autoencoder,
    save_start,
)
from training.stages.autoencoder import AutoencoderStage
from training.stages.scenic_model import ScenicModel

AUTOENCODER = small_autoencoder(16, 2, 16)
CONFIG = replace(tiny(), in_channels=16)


@pytest.fixture
def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.repeat(rng.integers(0, 255, (21, 4, 4, 3)), 8, 1), 8, 2).astype(np.uint8)


def latent_walks(count: int = 2, length: int = 30) -> list[LatentWalk]:
    generator = torch.Generator().manual_seed(0)
    height, width = CONFIG.latent_height, CONFIG.latent_width
    walks = []
    for scene in range(count):
        latents = torch.randn(1, 16, height, width, generator=generator).expand(length, -1, -1, -1)
        c2w = torch.eye(4).expand(length, CONFIG.temporal_stride, 4, 4).clone()
        c2w[:, :, 0, 3] = torch.linspace(0, 1, length)[:, None]
        walks.append(LatentWalk(scene, latents.half(), c2w, torch.tensor([20.0, 20.0, 12.0, 8.0])))
    return walks


def test_autoencoder_stage_lowers_its_loss(frames):
    torch.manual_seed(0)
    fast = OptimizerConfig(muon_lr=0.05, adam_lr=5e-3, min_side=8)
    stage = AutoencoderStage(
        AUTOENCODER, [MemoryClips.of_video(frames)], batch_size=2, crop=None, optimizer=fast
    )
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(40):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_resumed_run_equals_one_that_never_stopped(tmp_path, frames):
    def stage() -> AutoencoderStage:
        torch.manual_seed(3)
        return AutoencoderStage(
            AUTOENCODER, [MemoryClips.of_video(frames)], 2, (32, 32), optimizer=OptimizerConfig(min_side=8)
        )

    whole = stage()
    run_stage(whole, LoopConfig(6, log_every=2), tmp_path / "whole", seed=1)
    cut = stage()
    steps_left = iter(range(4))
    backward = cut.backward

    def stop_after_four(rng):
        if next(steps_left, None) is None:
            raise KeyboardInterrupt
        return backward(rng)

    cut.backward = stop_after_four
    with pytest.raises(KeyboardInterrupt):
        run_stage(cut, LoopConfig(6, save_every_s=-1.0, log_every=2), tmp_path / "cut", seed=1)
    resumed = stage()
    assert run_stage(resumed, LoopConfig(6, log_every=2), tmp_path / "cut", seed=1)
    for a, b in zip(whole.optimizer.master_weights, resumed.optimizer.master_weights, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not run_stage(stage(), LoopConfig(6), tmp_path / "cut", seed=1)


def test_state_file_gives_back_what_was_saved(tmp_path):
    tree = {"a": [torch.arange(3), 1.5], 7: {"x": torch.eye(2), "flag": True, "none": None}}
    save_state(tmp_path / "s.safetensors", tree)
    back = load_state(tmp_path / "s.safetensors")
    assert back[7]["flag"] is True
    assert back["a"][1] == 1.5
    torch.testing.assert_close(back[7]["x"], torch.eye(2))


@pytest.mark.parametrize("keep", [0, 5, 100])
def test_damaged_state_is_refused_in_one_sentence(tmp_path, keep):
    path = tmp_path / "s.safetensors"
    save_state(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="start the stage again"):
        load_state(path)


def test_step_with_a_gradient_that_is_not_finite_changes_nothing():
    layer = torch.nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    optimizer = MasterOptimizer(layer, OptimizerConfig(min_side=2))
    layer(torch.full((1, 4), float("nan"))).sum().backward()
    assert np.isnan(optimizer.step(1.0))
    torch.testing.assert_close(layer.weight.detach(), before)


def test_learning_rate_rises_holds_and_falls():
    config = LoopConfig(100, warmup=0.1, decay=0.5, final_lr=0.0)
    scales = [learning_rate_scale(p, config) for p in (0.0, 0.05, 0.3, 0.75, 1.0)]
    assert scales == pytest.approx([0.02, 0.5, 1.0, 0.5, 0.0])


def test_windows_start_with_the_first_latent_and_follow_the_walk():
    walks = latent_walks()
    batch = draw_windows(walks, 16, 5, np.random.default_rng(0))
    stride = CONFIG.temporal_stride
    for n in range(16):
        walk = walks[int(batch.scene[n])]
        torch.testing.assert_close(batch.c2w[n, :stride], walk.c2w[0])
        steps = batch.c2w[n, stride:].reshape(5, stride, 4, 4)[:, 0, 0, 3].diff()
        torch.testing.assert_close(steps, torch.full((4,), 1 / 29), rtol=1e-3, atol=1e-6)
        assert batch.frame_index[n, 0] == 0
        assert (batch.frame_index[n, 1:].diff() == 1).all()


def test_packed_windows_are_relative_and_end_on_the_latent_frame():
    c2w = np.stack([np.eye(4)] * 9)
    c2w[:, 2, 3] = np.arange(9) + 5.0
    windows = pack_windows(c2w, 4)
    assert windows.shape == (3, 4, 4, 4)
    assert windows[0, :, 2, 3].tolist() == [0, 0, 0, 0]
    assert windows[2, :, 2, 3].tolist() == [5, 6, 7, 8]


def test_encoding_in_parts_equals_encoding_the_whole(frames):
    torch.manual_seed(0)
    model = GuidedAutoencoder(AUTOENCODER).eval()
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0
    with torch.no_grad():
        whole = model.encode(video)[0].transpose(0, 1)
    # Half precision storage is the only difference.
    torch.testing.assert_close(encode_frames(model, frames).float(), whole, rtol=2e-3, atol=2e-3)


def test_rendered_walk_is_reused_and_never_half_written(tmp_path):
    job = RenderJob("garden", 1, 5, 32, 16, 16, (20.0, 20.0, 16.0, 8.0))
    path = render_walk(job, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert render_walk(job, tmp_path).stat().st_mtime_ns == stamp
    frames, poses = load_walk(job, tmp_path)
    assert frames.shape == (5, 16, 32, 3)
    assert poses.shape == (5, 4, 4)
    assert replace(job, seed=2).stem != job.stem


def test_a_later_training_starts_from_what_was_published(tmp_path):
    torch.manual_seed(5)
    places = ["town", "garden"]
    model, autoencoder = in_half(ScenicModel(CONFIG, 2)), in_half(GuidedAutoencoder(AUTOENCODER))
    save_start(model, tmp_path / CHECKPOINTS)
    (tmp_path / BUNDLES / "pocket").mkdir(parents=True)
    save_autoencoder(autoencoder, tmp_path / BUNDLES / "pocket" / AUTOENCODER_FILE)
    (tmp_path / WORLDS).mkdir()
    for scene, place in enumerate(places):
        world = World(
            WorldInfo(name=place, title=place, licence="Apache-2.0", model="0" * 64),
            first_latent=np.zeros((16, 2, 3), np.float32),
            first_frame=np.zeros((16, 24, 3), np.uint8),
            text=model.text(torch.tensor([scene]))[0][0].detach().numpy(),
            text_mask=np.ones(CONFIG.text_length, np.float32),
            intrinsics=np.array([20, 20, 12, 8], np.float32),
            c2w=np.eye(4),
        )
        write_world(tmp_path / WORLDS / f"{place}.world", world)
    later = ScenicModel(CONFIG, 2)
    load_start(later, tmp_path, places)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(later.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    kept = load_autoencoder_weights(autoencoder_in(tmp_path / CHECKPOINTS))
    for name, tensor in autoencoder.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    with pytest.raises(ValueError, match="train from nothing"):
        load_start(ScenicModel(CONFIG, 3), tmp_path, [*places, "night"])


def test_a_publishing_that_was_killed_is_mended(tmp_path):
    staged, world = tmp_path / ".publish-abc", tmp_path / "worlds"
    for folder in (staged / "pocket.old", staged / "checkpoints.old", tmp_path / "checkpoints", world):
        folder.mkdir(parents=True)
        (folder / "marker").write_text(folder.name)
    (tmp_path / "bundles").mkdir()
    mend_publishing(tmp_path)
    assert not staged.exists()
    # The bundle was set aside and had no successor yet; the checkpoints had one.
    assert (tmp_path / "bundles" / "pocket" / "marker").read_text() == "pocket.old"
    assert (tmp_path / "checkpoints" / "marker").read_text() == "checkpoints"
