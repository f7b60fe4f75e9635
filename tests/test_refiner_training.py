"""The refiner is trained on what a stream will show it; adapters alone are trained, and fit another refiner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.refiner import Refiner, RefinerConfig, load_refiner
from model.refiner.adapter import merge_adapter, read_adapter
from model.refiner.rotary import video_rotary
from model.refiner.streaming import SIGMAS
from tests.cluster_cases import NUM_BATCHES, train_refiner, train_refiner_shared
from tests.processes import Processes
from tests.refiner_cases import (
    CAPTION_WIDTH,
    CHANNELS,
    FPS,
    random_clip,
    random_text,
    refiner_config,
    small_refiner,
)
from training.data.refiner_pairs import PairBatch, RefinerPairs, save_pairs, without_detail
from training.loop import LoopConfig, run_stage
from training.optimizer import NO_MATRIX, OptimizerConfig
from training.parallel.cost_model import GPUS, Layout, paper_costs, refiner_parameters
from training.parallel.single_process import Cluster
from training.presets import miniature_preset
from training.stages.model_file import adapter_path, save_refiner_stage
from training.stages.presets import paper_stages
from training.stages.refining import (
    RefinerStage,
    add_adapter,
    new_refiner,
    refiner_sigmas,
    stream_mask,
)


@pytest.fixture
def pairs(tmp_path: Path) -> RefinerPairs:
    """Clips whose first stage lost all detail."""
    for number in range(2):
        target = torch.randn(2, CHANNELS, 5, 4, 4, generator=torch.Generator().manual_seed(number))
        made = torch.stack([without_detail(clip) for clip in target])
        text, mask = random_text(torch.float32)
        batch = PairBatch(made, target, text.expand(2, -1, -1), mask.expand(2, -1))
        save_pairs(tmp_path / "pairs" / f"{number}.pairs.safetensors", batch)
    return RefinerPairs.find([tmp_path / "pairs"])


def stage_of(pairs: RefinerPairs, rank: int | None, network: Refiner | None = None) -> RefinerStage:
    config = miniature_preset().stage("refiner")
    network = network or small_refiner(torch.float32, num_layers=2)
    assert config.refining is not None
    refining = replace(config.refining, network=network.config, rank=rank, rough_history=0.0)
    adam = OptimizerConfig(adam_lr=3e-3, min_side=NO_MATRIX, ema_decay=0.0)
    torch.manual_seed(0)
    return RefinerStage(replace(config, refining=refining, optimizer=adam), network, pairs)


def test_a_clip_in_training_is_what_a_stream_sees() -> None:
    network = small_refiner(torch.float64)
    clip, (text, mask) = random_clip(8, torch.float64), random_text(torch.float64)
    context = network.encode_text(text, mask)
    state = network.begin(clip[:, :, :1], context, FPS, history=6)
    for start in (1, 3, 5):
        kept: list = []
        table = video_rotary(network.config, torch.arange(start, start + 2), 3, 4, FPS)
        sink = video_rotary(network.config, torch.zeros(1), 3, 4, FPS)
        prefix = state.prefix(network.config, sink, 2)
        noisy = clip[:, :, start : start + 2]
        sigma = SIGMAS[0] if start == 5 else 0.0
        velocity = network(noisy, torch.full((1, 1), sigma), context, table, prefix, kept=kept)
        state = state.append(kept)
    sigmas = torch.tensor([[0.0] * 5 + [SIGMAS[0]] * 2])
    table = video_rotary(network.config, torch.arange(7), 3, 4, FPS)
    mask = stream_mask(5, 2, 12).to(torch.float64)
    whole = network(clip[:, :, :7], sigmas, context, table, mask=mask)
    torch.testing.assert_close(whole[:, :, 5:], velocity, rtol=1e-9, atol=1e-9)


def test_noise_levels_stay_where_sampling_is_and_follow_the_number_of_tokens() -> None:
    rng = np.random.default_rng(0)
    few, many = (refiner_sigmas(20_000, tokens, SIGMAS[0], rng) for tokens in (1024, 4096))
    for levels in (few, many):
        assert 0 < float(levels.min()) < 0.05
        assert float(levels.max()) == pytest.approx(SIGMAS[0])
    assert float(many.median()) > float(few.median()) + 0.1


def test_all_weights_learn_to_bring_detail_back(pairs: RefinerPairs) -> None:
    stage = stage_of(pairs, None)
    rng, losses = np.random.default_rng(0), []
    for _ in range(60):
        losses.append(stage.backward(rng)["loss"])
        stage.optimizer.step(1.0)
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:15])


def test_a_window_begins_with_the_first_frame_of_its_clip(tmp_path: Path) -> None:
    target = torch.arange(6.0).reshape(1, 1, 6, 1, 1).expand(1, CHANNELS, 6, 2, 2)
    text, mask = random_text(torch.float32)
    save_pairs(tmp_path / "0.pairs.safetensors", PairBatch(target, target, text, mask, 10 + target[:, :2]))
    pairs, rng = RefinerPairs.find([tmp_path]), np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        batch = pairs.draw(1, 3, 0.0, rng)
        assert batch.memory is not None
        assert torch.equal(batch.memory, 10 + batch.target[:, :2])
        seen.add(tuple(batch.target[0, 0, :, 0, 0].tolist()))
    assert seen == {(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5)}


def test_a_refiner_learns_to_read_the_memory_where_it_covers(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    text, mask = random_text(torch.float32)
    for number in range(2):
        target = torch.randn(4, CHANNELS, 4, 4, 4, generator=rng)
        coverage = (torch.rand(4, 1, 4, 4, 4, generator=rng) > 0.5).float()
        memory = torch.cat([target * coverage, coverage], 1)
        batch = PairBatch(
            torch.zeros_like(target), target, text.expand(4, -1, -1), mask.expand(4, -1), memory
        )
        save_pairs(tmp_path / f"{number}.pairs.safetensors", batch)
    pairs = RefinerPairs.find([tmp_path])
    config = miniature_preset().stage("refiner")
    assert config.refining is not None
    torch.manual_seed(0)
    sizes = RefinerConfig.from_dict(refiner_config(num_layers=1, memory_channels=CHANNELS + 1))
    refining = replace(
        config.refining, network=sizes, rank=None, rough_history=0.0, degraded_share=0.0, sigmas=(0.5, 0.0)
    )
    adam = OptimizerConfig(adam_lr=1e-2, min_side=NO_MATRIX, ema_decay=0.0)
    stage = RefinerStage(replace(config, refining=refining, optimizer=adam), new_refiner(refining), pairs)
    draws = np.random.default_rng(0)
    for _ in range(150):
        stage.backward(draws)
        stage.optimizer.step(1.0)
    refined = stage.finished()[0]
    assert refined.memory_embedder is not None
    assert refined.memory_embedder.weight.abs().max() > 0
    batch = pairs.draw(8, 4, 0.0, draws)
    assert batch.memory is not None
    errors = [
        (refined.refine(made[None], text, mask, fps=FPS, block_size=1, memory=memory[None])[0] - target)
        for made, text, mask, target, memory in (
            (batch.made[i], batch.text[i : i + 1], batch.text_mask[i : i + 1], batch.target[i], shown)
            for i, shown in enumerate(batch.memory)
        )
    ]
    error = torch.stack(errors)[:, :, 1:].square().mean(1)
    covered = batch.memory[:, -1, 1:] > 0
    # Of unit deviation, so that 1 is what stage 1 left.
    assert error[covered].mean() < 0.5
    assert error[covered].mean() < 0.6 * error[~covered].mean()
    save_pairs(tmp_path / "0.pairs.safetensors", replace(batch, memory=batch.memory[:, :3]))
    with pytest.raises(ValueError, match="shows a memory of 3 channels, the refiner reads 7"):
        RefinerStage(replace(config, refining=refining), new_refiner(refining), pairs)


def test_a_new_refiner_hands_on_what_it_is_given() -> None:
    config = miniature_preset().stage("refiner").refining
    assert config is not None
    sizes = RefinerConfig.from_dict(refiner_config(num_layers=1))
    refiner = new_refiner(replace(config, network=sizes, rank=None)).eval()
    refiner.sigmas = (1e-6, 0.0)
    clip, (text, mask) = random_clip(4, torch.float32), random_text(torch.float32)
    torch.testing.assert_close(refiner.refine(clip, text, mask, fps=FPS), clip, atol=1e-4, rtol=0)


def test_adapters_alone_are_trained_and_fit_another_refiner(pairs: RefinerPairs, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = small_refiner(torch.float32, num_layers=2)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    stage = stage_of(pairs, 2, base)
    assert all(".lora_" in name for name in stage.optimizer.names)
    # Ten products a block, two matrices each.
    assert len(stage.optimizer.names) == 2 * 10 * 2
    rng = np.random.default_rng(0)
    for _ in range(3):
        stage.backward(rng)
        stage.optimizer.step(1.0)
    merged, adapter = stage.finished()
    path = tmp_path / "refiner.model.safetensors"
    save_refiner_stage(path, merged, adapter)
    read = load_refiner(path).model
    assert (read.config, read.sigmas) == (merged.config, SIGMAS)
    name = "transformer_blocks.1.ff.net.2.weight"
    assert not torch.equal(read.state_dict()[name], before[name])
    torch.testing.assert_close(read.proj_in.weight, before["proj_in.weight"])
    other = small_refiner(torch.float32, num_layers=2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    few_steps = {n: tensor.clone() for n, tensor in other.state_dict().items()}
    merge_adapter(other, read_adapter(adapter_path(path)))
    for n, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor - few_steps[n], read.state_dict()[n] - before[n], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="take another"):
        merge_adapter(small_refiner(torch.float32, num_layers=1), read_adapter(adapter_path(path)))
    with pytest.raises(ValueError, match="other tensors"):
        read_adapter(path)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_stopped_training_goes_on_to_the_same_weights(
    pairs: RefinerPairs, tmp_path: Path, rank: int | None
) -> None:
    if rank:
        pytest.importorskip("peft")
    weights = []
    stage = stage_of(pairs, rank)
    for folder, ends in (("whole", [4]), ("stopped", [2, 4])):
        for num_steps in ends:
            stage = stage_of(pairs, rank)
            loop = LoopConfig(
                num_steps, warmup=0.0, decay=1.0, final_lr=1.0, log_every=1, precision="float32"
            )
            if num_steps == 2:
                loop = replace(loop, num_steps=4)
                stop_after(stage, 2)
                with pytest.raises(KeyboardInterrupt):
                    run_stage(stage, loop, tmp_path / folder, 1)
            else:
                assert run_stage(stage, loop, tmp_path / folder, 1)
        weights.append(stage.finished()[0].state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name])


def stop_after(stage: RefinerStage, num_steps: int) -> None:
    """Ask the training to end, as Ctrl-C does, in a step."""
    import signal

    done, backward = [0], stage.backward

    def counted(rng: np.random.Generator) -> dict[str, float]:
        done[0] += 1
        if done[0] == num_steps:
            signal.raise_signal(signal.SIGINT)
        return backward(rng)

    stage.backward = counted  # pyright: ignore[reportAttributeAccessIssue]


def test_pairs_of_another_size_are_refused(pairs: RefinerPairs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"text of {CAPTION_WIDTH} numbers"):
        stage_of(pairs, None, small_refiner(torch.float32, caption_channels=12))
    with pytest.raises(ValueError, match="no \\*"):
        RefinerPairs.find([tmp_path])


def test_the_paper_s_refiner_is_counted() -> None:
    refining = paper_stages()["refiner"].refining
    assert refining is not None
    _, every, learning = refiner_parameters(refining.network, refining.rank)
    assert every == 13_041_520_768
    network = small_refiner(torch.float32, num_layers=2)
    pytest.importorskip("peft")
    add_adapter(network, 3)
    counted = sum(p.numel() for name, p in network.named_parameters() if ".lora_" in name)
    assert refiner_parameters(small_refiner(num_layers=2).config, 3)[2] == counted
    assert learning == 48 * 384 * (6 * 2 + 2 * 2 + 2 * 5) * 4096
    cost = paper_costs(Layout(64, GPUS["h100"]))[-1]
    assert cost.stage == "refiner"
    assert cost.fits


def test_two_processes_train_adapters_as_one_does(pairs: RefinerPairs, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = pairs.files[0].parent
    alone = train_refiner(Cluster(NUM_BATCHES), tmp_path / "alone", folder)
    before = small_refiner(torch.float32, num_layers=2).state_dict()
    moved = max(float(np.abs(alone[name] - tensor.numpy()).max()) for name, tensor in before.items())
    (tmp_path / "processes").mkdir()
    workers = Processes(tmp_path / "processes")
    for answer in workers.run(2, train_refiner_shared, tmp_path / "shared", folder):
        assert answer.keys() == alone.keys()
        # Gradients differ by their rounding.
        furthest = max(float(np.abs(answer[name] - alone[name]).max()) for name in alone)
        assert furthest < 1e-3 * moved
