"""The loop: what it measures before a stage, what it logs, and that a stopped stage goes on as if it had not been."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import training.throughput as throughput_module
from model.config import tiny
from training.checkpoint import load_state
from training.data.batches import WalkClips
from training.data.latents import LatentWalk
from training.loop import LoopConfig, run_stage
from training.optimizer import MasterOptimizer, Muon, OptimizerConfig
from training.precision import PRECISIONS, computing_in
from training.progress import Itinerary, RecipeProgress, as_duration
from training.stage_log import StageLog, read_log
from training.stages.flow_matching import FlowMatchingStage
from training.stages.presets import pocket_stages
from training.stages.scenic_model import ScenicModel
from training.throughput import (
    Remaining,
    Throughput,
    count_operations,
    matrix_peak,
    measure_throughput,
    stage_throughput,
)

WIDTH, BATCH = 32, 8


class LineStage:
    """Learns one matrix from noise; remembers the last batch, which enters the next loss."""

    def __init__(self) -> None:
        self.name = "line"
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False))
        self.optimizer = MasterOptimizer(self.model, OptimizerConfig(min_side=16))
        self.last = torch.zeros(BATCH, WIDTH)
        self.calls = 0

    @property
    def frames_per_step(self) -> float:
        return 16.0

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last}

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        self.last = memory["last"].clone()

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        self.calls += 1
        x = torch.randn(BATCH, WIDTH) + float(rng.normal())
        weight = next(self.model.parameters())
        loss = (self.model(x.to(weight.dtype)).float() - x - 0.1 * self.last).square().mean()
        loss.backward()
        self.last = x
        return {"loss": float(loss.detach())}


def masters(stage: LineStage) -> list[torch.Tensor]:
    return [master.clone() for master in stage.optimizer.master_weights]


def muon_dtype(stage: LineStage) -> torch.dtype:
    (muon,) = (optimizer for optimizer in stage.optimizer.optimizers if isinstance(optimizer, Muon))
    return muon.dtype


def stopped_after(steps: int, stage: Any, config: LoopConfig, folder: Path, seed: int = 1) -> None:
    """Press Ctrl-C in the middle of a step."""
    backward, taken = stage.backward, 0

    def counted(rng: np.random.Generator) -> dict[str, float]:
        nonlocal taken
        metrics = backward(rng)
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return metrics

    stage.backward = counted
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, config, folder, seed)


def test_a_stage_stopped_by_ctrl_c_ends_its_step_saves_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = LoopConfig(9, log_every=2, precision="float32")
    whole = LineStage()
    run_stage(whole, config, tmp_path / "whole", seed=1)
    # One more call than steps: the first one counts operations.
    stopped_after(1 + 4, LineStage(), config, tmp_path / "cut")
    state = load_state(tmp_path / "cut" / "line.state.safetensors")
    assert (state["step"], state["finished"]) == (4, False)
    resumed = LineStage()
    assert run_stage(resumed, config, tmp_path / "cut", seed=1)
    assert resumed.calls == 5
    for a, b in zip(masters(whole), masters(resumed), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.last, resumed.last)


def test_noise_of_a_stage_does_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    results = []
    for name in "ab":
        stage = LineStage()
        torch.manual_seed(ord(name))
        run_stage(stage, LoopConfig(3, precision="float32"), tmp_path / name, seed=1)
        results.append(masters(stage)[0])
    assert torch.equal(*results)


def test_log_forgets_what_was_trained_after_the_last_save_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "line.log.jsonl"
    log = StageLog(path, 2)
    for step in range(1, 7):
        log.add(step, step * 0.5, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 8, "trai')
    assert [line["step"] for line in read_log(path)] == [2, 4, 6]
    again = StageLog(path, 2, step=4, trained_s=2.0, rates=lambda rate: {"steps_per_s": rate})
    for step in (5, 6):
        again.add(step, step * 0.5, {"loss": 1.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(2, 1.5), (4, 3.5), (6, 1.0)]
    assert lines[-1]["steps_per_s"] == 2.0


def test_a_figure_that_some_steps_tell_is_logged_as_their_mean(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "s.log.jsonl", 5)
    for step in range(1, 11):
        log.add(step, float(step), {"loss": 1.0 * step} | ({"student_loss": 4.0} if step == 6 else {}))
    first, second = read_log(tmp_path / "s.log.jsonl")
    assert (first["loss"], second["loss"], second["student_loss"]) == (3.0, 8.0, 4.0)
    assert "student_loss" not in first


def test_log_of_a_stage_tells_frames_per_second_and_the_share_of_the_peak(tmp_path: Path) -> None:
    run_stage(LineStage(), LoopConfig(4, log_every=2), tmp_path, seed=1)
    throughput = Throughput.model_validate_json((tmp_path / "line.throughput.json").read_text())
    lines = read_log(tmp_path / "line.log.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        ratio = line["peak_share"] / line["frames_per_s"]
        # The log rounds to six places, and a share of the peak this small keeps few of them.
        assert ratio == pytest.approx(throughput.operations / throughput.peak / 16.0, rel=0.2, abs=1e-6)


def test_operations_of_a_product_are_counted_forward_and_backward() -> None:
    stage = LineStage()
    # Two for each multiplication: forward and the weight's gradient; nobody asks for that of the input.
    assert count_operations(lambda: stage.backward(np.random.default_rng(0))) == 2 * 2 * BATCH * WIDTH**2


def test_matrix_peak_is_more_than_one_product_reaches() -> None:
    matrix = torch.ones(16, 16)
    assert matrix_peak(torch.float32) > 1e8
    assert count_operations(lambda: matrix @ matrix) == 2 * 16**3


@pytest.mark.measures_precision
def test_measuring_a_stage_leaves_no_trace(tmp_path: Path) -> None:
    stage = LineStage()
    stage.last = torch.ones(BATCH, WIDTH)
    before, random = masters(stage), torch.get_rng_state()
    throughput = stage_throughput(stage, tmp_path / "throughput.json", Remaining(10**6, 600.0), None)
    assert set(throughput.step_s) >= {"float32"}
    assert throughput.precision == min(
        throughput.step_s, key=lambda name: throughput.step_s[name]
    ) or "compiled" in str(throughput.notes)
    assert torch.equal(stage.last, torch.ones(BATCH, WIDTH))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in stage.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, masters(stage), strict=True))
    calls = stage.calls
    assert stage_throughput(stage, tmp_path / "throughput.json", Remaining(10**6, 600.0), None) == throughput
    assert stage.calls == calls


def test_pace_of_another_machine_is_measured_again(tmp_path: Path) -> None:
    stage, path = LineStage(), tmp_path / "throughput.json"
    throughput = stage_throughput(stage, path, Remaining(10, 60.0), "float32")
    path.write_text(throughput.model_copy(update={"machine": "elsewhere", "operations": 1}).model_dump_json())
    assert stage_throughput(stage, path, Remaining(10, 60.0), "float32").operations == throughput.operations
    path.write_text("{")
    assert stage_throughput(stage, path, Remaining(10, 60.0), "float32").operations == throughput.operations


def test_a_resumed_stage_computes_in_what_it_was_begun_in_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput_module, "_fastest", lambda *args: ("bfloat16", {}, ()))
    stopped_after(1 + 2, LineStage(), LoopConfig(4), tmp_path)
    assert load_state(tmp_path / "line.state.safetensors")["precision"] == "bfloat16"
    # As on a machine that has not seen the stage and would choose otherwise.
    (tmp_path / "line.throughput.json").unlink()
    monkeypatch.setattr(throughput_module, "_fastest", lambda *args: pytest.fail("measured again"))
    resumed = LineStage()
    run_stage(resumed, LoopConfig(4), tmp_path, seed=1)
    assert load_state(tmp_path / "line.state.safetensors")["precision"] == "bfloat16"
    assert muon_dtype(resumed) is torch.bfloat16


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("autocast", torch.bfloat16), ("bfloat16", torch.bfloat16)],
)
def test_muon_computes_in_the_precision_that_is_set(tmp_path: Path, name: Any, dtype: torch.dtype) -> None:
    stage = LineStage()
    assert muon_dtype(stage) is torch.float32
    run_stage(stage, LoopConfig(1, precision=name), tmp_path, seed=1)
    assert muon_dtype(stage) is dtype


def test_a_compiled_stage_is_refused_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=r"install g\+\+"):
        run_stage(LineStage(), LoopConfig(1, precision="float32 compiled"), tmp_path, seed=1)


@pytest.mark.measures_precision
def test_a_short_stage_compares_nothing() -> None:
    throughput = measure_throughput(LineStage(), Remaining(10**6, 1e-6))
    assert throughput.step_s == {}
    assert "too short" in throughput.notes[-1]


@pytest.mark.measures_precision
def test_compiling_is_tried_where_a_stage_is_long_and_a_compiler_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    asked = []

    def fail(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        asked.append(type(self).__name__)
        raise RuntimeError("no header Python.h\nmore")

    monkeypatch.setattr(nn.Module, "compile", fail)
    throughput = measure_throughput(LineStage(), Remaining(10**9, math.inf))
    assert asked == ["Linear"]
    assert throughput.notes[-1] == "not compiled: no header Python.h"
    assert "compiled" not in throughput.precision


@pytest.mark.parametrize("name", ["float32", "autocast", "bfloat16"])
def test_every_precision_computes_the_same_up_to_its_rounding_and_leaves_float32(name: Any) -> None:
    stage = LineStage()
    x = torch.randn(4, WIDTH)
    exact = stage.model(x)
    with computing_in(name, stage.model):
        weight = next(stage.model.parameters())
        assert weight.dtype == PRECISIONS[name].weights
        rounded = stage.model(x.to(weight.dtype)).float()
    stage.optimizer.publish()
    # bfloat16 keeps eight bits of each of 32 factors.
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert torch.equal(stage.model(x), exact)


def scenic_stage(trained: Callable[[str], bool] = lambda name: True) -> FlowMatchingStage:
    config = tiny()
    torch.manual_seed(0)
    latents = torch.randn(30, config.in_channels, config.latent_height, config.latent_width).half()
    poses = torch.eye(4).expand(30, config.temporal_stride, 4, 4).clone()
    walks = [LatentWalk(scene, latents, poses, torch.tensor([20.0, 20.0, 12.0, 8.0])) for scene in (0, 1)]
    preset = replace(pocket_stages()["chunk-causal"], num_latent_frames=4, batch_size=2)
    return FlowMatchingStage(preset, ScenicModel(config, 2), WalkClips(walks), "chunk_causal", trained)


@pytest.mark.parametrize("name", ["float32", "autocast", "bfloat16"])
def test_a_step_computes_with_what_the_step_before_learned(name: Any) -> None:
    model = nn.Linear(8, 8)
    x = torch.randn(4, 8)
    with computing_in(name, model):
        x = x.to(model.weight.dtype)
        before = model(x).float()
        with torch.no_grad():
            model.weight.mul_(2)
            model.bias.mul_(2)
        torch.testing.assert_close(model(x).float(), 2 * before, rtol=0.02, atol=0.02)


def test_weights_that_a_stage_leaves_alone_keep_every_bit_in_bfloat16(tmp_path: Path) -> None:
    stage = scenic_stage(lambda name: "final_layer" in name)
    before = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
    run_stage(stage, LoopConfig(2, precision="bfloat16"), tmp_path, seed=1)
    after = stage.model.state_dict()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= set(stage.optimizer.names)
    for name, master in zip(stage.optimizer.names, stage.optimizer.master_weights, strict=True):
        assert torch.equal(after[name].flatten(), master.flatten())


def test_time_left_is_that_of_all_phases_ahead() -> None:
    plan = Itinerary({"draw": 60.0, "train": 600.0, "publish": 30.0})
    assert plan.left_s == 690.0
    plan.begin("train")
    plan.update("train", 450.0)
    assert plan.left_s == 480.0
    for _ in range(2):
        plan.begin("encode once more")
        plan.update("encode once more", 5.0)
        assert plan.left_s == 485.0
        plan.update("encode once more", 0.0)
    plan.begin("publish")
    assert plan.left_s == 0.0
    assert [as_duration(s) for s in (5.0, 600.0, 7260.0, math.inf)] == [
        "5 s",
        "10 min",
        "2 h 01 min",
        "an unknown time",
    ]


def test_items_of_a_phase_tell_how_long_the_others_take() -> None:
    progress = RecipeProgress({"draw": 100.0, "train": 50.0}, shown=False)
    clock = iter([0.0, 2.0, 4.0, 6.0, 8.0])
    lefts = [progress.itinerary.left_s for _ in progress.over("draw", range(4), 4, lambda: next(clock))]
    assert lefts == [56.0, 54.0, 52.0, 50.0]
