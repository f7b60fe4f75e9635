"""Whole clips, windows and streaming agree; nothing leaks from the future; state never grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.attention import naive, self_attention
from model.attention.mask import chunk_ranges, clip_reaches
from model.camera import window_frames
from model.config import ModelConfig, sana_wm, tiny
from model.rollout import RolloutState, state_shapes
from model.sampler import ChunkConditions, commit_chunk, denoise_chunk
from model.world_model import WorldModel
from tests.models import random_model

VARIANTS = {
    "single frames": tiny(),
    "no sink": replace(tiny(), sink=False),
    "longer chunks": replace(tiny(), chunk_size=2, first_chunk_size=3, num_cached_chunks=2),
    "longer chunks, no sink": replace(
        tiny(), chunk_size=2, first_chunk_size=3, num_cached_chunks=2, sink=False
    ),
}
RELEASED = replace(tiny(), chunk_size=3, first_chunk_size=4, num_cached_chunks=2, write_limit=0.0)
"""The released model's chunks, window and sink at a small size."""
TOLERANCE = 2e-5
"""Float32 rounding of the same sums in another order, through three blocks."""


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def silence_rays(model: WorldModel) -> None:
    for name, parameter in model.named_parameters():
        if ".out_proj_cam." in name:
            parameter.zero_()


def silence_plucker(model: WorldModel) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("plucker_proj.weight"):
            parameter.zero_()


def clip(config: ModelConfig, frames: int, batch: int = 2) -> dict[str, Tensor]:
    stride = config.temporal_stride
    poses = torch.eye(4).expand(batch, frames * stride, 4, 4).clone()
    poses[..., :3, 3] = torch.randn(batch, frames * stride, 3)
    size = config.frame_width * 0.6
    centre = [size, size, config.frame_width / 2, config.frame_height / 2]
    return {
        "latents": torch.randn(batch, config.in_channels, frames, config.latent_height, config.latent_width),
        "timesteps": torch.rand(batch, frames) * 1000,
        "text": torch.randn(batch, config.text_rows, config.text_dim),
        "text_mask": (torch.arange(config.text_rows) < config.memory_rows + 4).float().expand(batch, -1),
        "c2w_windows": poses,
        "intrinsics": torch.tensor(centre).expand(batch, frames * stride, 4),
        "frame_index": torch.arange(frames).expand(batch, frames),
    }


def part(inputs: dict[str, Tensor], start: int, stop: int, stride: int) -> dict[str, Tensor]:
    return {
        **inputs,
        "latents": inputs["latents"][:, :, start:stop],
        "timesteps": inputs["timesteps"][:, start:stop],
        "frame_index": inputs["frame_index"][:, start:stop],
        "c2w_windows": inputs["c2w_windows"][:, start * stride : stop * stride],
        "intrinsics": inputs["intrinsics"][:, start * stride : stop * stride],
    }


CONDITIONS = ("text", "text_mask", "c2w_windows", "intrinsics")


def run_window(
    model: WorldModel, inputs: dict[str, Tensor], state: RolloutState | None = None
) -> tuple[Tensor, RolloutState]:
    text, mask, poses, intrinsics = (inputs[name] for name in CONDITIONS)
    noisy = inputs["latents"], inputs["timesteps"]
    velocity, after = model.window(*noisy, text, mask, poses, intrinsics, inputs["frame_index"], state)
    assert after is not None
    return velocity, after


def run_step(
    model: WorldModel, inputs: dict[str, Tensor], state: RolloutState | None
) -> tuple[Tensor, RolloutState]:
    start = inputs["frame_index"][:, 0]
    cameras = inputs["c2w_windows"], inputs["intrinsics"], start
    conditions = (*cameras, inputs["text"], inputs["text_mask"])
    return model.step(inputs["latents"], inputs["timesteps"], *conditions, state)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_window_equals_repeated_steps(config: ModelConfig) -> None:
    model = random_model(config)
    frames = config.first_chunk_size + 5 * config.chunk_size
    inputs = clip(config, frames)
    whole, last = run_window(model, inputs)
    state: RolloutState | None = None
    outputs = []
    for start, stop in chunk_ranges(config, frames, starts=True):
        output, state = run_step(model, part(inputs, start, stop, config.temporal_stride), state)
        outputs.append(output)
        assert {name: tuple(t.shape[1:]) for name, t in state.tensors.items()} == state_shapes(config)
    assert state is not None
    torch.testing.assert_close(torch.cat(outputs, 2), whole, atol=TOLERANCE, rtol=TOLERANCE)
    for name, tensor in last.tensors.items():
        torch.testing.assert_close(state.tensors[name], tensor, atol=TOLERANCE, rtol=TOLERANCE)


def in_float64(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()
    }


def stream(model: WorldModel, inputs: dict[str, Tensor]) -> tuple[list[Tensor], list[RolloutState]]:
    """Velocity and state of every chunk."""
    state: RolloutState | None = None
    outputs, states = [], []
    for start, stop in chunk_ranges(model.config, inputs["latents"].shape[2], starts=True):
        output, state = run_step(model, part(inputs, start, stop, model.config.temporal_stride), state)
        outputs.append(output)
        states.append(state)
    return outputs, states


def test_every_state_tensor_of_six_chunks_is_that_of_one_pass_in_float64() -> None:
    model = random_model(RELEASED).double()
    inputs = in_float64(clip(RELEASED, 19))
    whole, _ = run_window(model, inputs)
    outputs, states = stream(model, inputs)
    assert len(states) == 6
    torch.testing.assert_close(torch.cat(outputs, 2), whole, atol=1e-11, rtol=1e-11)
    for number, state in enumerate(states):
        _, expected = run_window(model, part(inputs, 0, 4 + 3 * number, RELEASED.temporal_stride))
        assert state.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            torch.testing.assert_close(state.tensors[name], tensor, atol=1e-11, rtol=1e-11, msg=name)


def test_six_streamed_chunks_equal_the_whole_chunk_causal_pass_in_float64() -> None:
    config = replace(RELEASED, num_cached_chunks=9)
    model = random_model(config).double()
    # By specification the camera key convolution of delta-net blocks has no memory across chunks in streaming.
    for layer in range(config.num_layers):
        if not config.is_softmax(layer):
            for parameter in model.get_submodule(f"blocks.{layer}.attn.out_proj_cam").parameters():
                parameter.zero_()
    inputs = in_float64(clip(config, 19))
    stride = config.temporal_stride
    video = 1 + stride * 18
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, video, 1, 1)
    c2w[:, 1:, :3, 3] = torch.randn(2, video - 1, 3, dtype=torch.float64)
    inputs["c2w_windows"] = c2w[:, window_frames(19, stride, video)]
    outputs, _ = stream(model, inputs)
    names = ("latents", "timesteps", "text", "text_mask")
    whole = model(
        *(inputs[name] for name in names), c2w, inputs["intrinsics"][:, :video], mode="chunk_causal"
    )
    torch.testing.assert_close(torch.cat(outputs, 2), whole, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("sink", "seen"), [(True, {0, 3}), (False, {2, 3})])
def test_chunk_4_sees_the_sink_and_the_newest_chunks_only(sink: bool, seen: set[int]) -> None:
    config = replace(RELEASED, num_layers=1, softmax_every_n=1, sink=sink)
    model = random_model(config)
    # What attention sees is in question, not what the feed-forward remembers of the frame before.
    model.get_parameter("blocks.0.mlp.t_conv.weight").zero_()
    inputs = clip(config, 16)
    chunks = chunk_ranges(config, 16, starts=True)
    before, _ = stream(model, inputs)
    for number, (start, stop) in enumerate(chunks[:4]):
        changed = {**inputs, "latents": inputs["latents"].clone()}
        changed["latents"][:, :, start:stop] += 1.0
        after, _ = stream(model, changed)
        assert torch.equal(after[4], before[4]) == (number not in seen), number


def test_six_chunks_equal_the_double_loop_over_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(RELEASED).double()
    inputs = in_float64(clip(RELEASED, 19, batch=1))
    fast, fast_states = stream(model, inputs)
    # The twins know neither a write limit nor what follows it.
    monkeypatch.setattr(self_attention, "frame_attention", lambda *given: naive.frame_attention(*given[:9]))
    monkeypatch.setattr(self_attention, "delta_rule", lambda *given: naive.delta_rule(*given[:6]))
    slow, slow_states = stream(model, inputs)
    for ours, twin in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, twin, atol=1e-10, rtol=1e-10)
    for ours, twin in zip(fast_states, slow_states, strict=True):
        for name, tensor in twin.tensors.items():
            torch.testing.assert_close(ours.tensors[name], tensor, atol=1e-10, rtol=1e-10, msg=name)


def test_window_continues_from_the_state_of_the_one_before() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 9)
    inputs["frame_index"] = inputs["frame_index"] + (inputs["frame_index"] > 0) * 136
    whole, _ = run_window(model, inputs)
    first, state = run_window(model, part(inputs, 0, 4, config.temporal_stride))
    second, _ = run_window(model, part(inputs, 4, 9, config.temporal_stride), state.detach())
    torch.testing.assert_close(torch.cat([first, second], 2), whole, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_streaming_equals_the_whole_clip_where_the_window_is_wide(chunk_size: int) -> None:
    config = replace(tiny(), chunk_size=chunk_size, num_cached_chunks=9)
    model = random_model(config)
    # The camera key convolution has no memory across chunks in streaming, by specification.
    silence_rays(model)
    inputs = clip(config, 1 + 4 * chunk_size)
    stride, frames = config.temporal_stride, 1 + 4 * chunk_size
    video = 1 + stride * (frames - 1)
    c2w = torch.eye(4).expand(2, video, 4, 4).clone()
    c2w[..., 0, 3] = torch.linspace(0, 2, video)
    order = [max(0, stride * k - (stride - 1)) + j for k in range(frames) for j in range(stride)]
    inputs["c2w_windows"] = c2w[:, order]
    streamed, _ = run_window(model, inputs)
    names = ("latents", "timesteps", "text", "text_mask")
    whole = model(*(inputs[n] for n in names), c2w, inputs["intrinsics"][:, :video])
    torch.testing.assert_close(streamed, whole, atol=TOLERANCE, rtol=TOLERANCE)


def test_whole_clips_are_seen_chunk_by_chunk_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def look(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        assert mask is None
        seen.append((q.shape[2], k.shape[2]))
        return v[:, :, : q.shape[2]]

    monkeypatch.setattr(self_attention, "softmax_attention", look)
    config = replace(RELEASED, softmax_every_n=1, num_layers=1)
    inputs = clip(config, 10)
    args = [inputs[n] for n in ("latents", "timesteps", "text", "text_mask")]
    stride = config.temporal_stride
    cameras = [inputs[n][:, : 1 + 9 * stride] for n in ("c2w_windows", "intrinsics")]
    model = WorldModel(config)
    model(*args, *cameras)
    tokens = config.tokens_per_frame
    # Both paths of the block, chunks of 4, 3 and 3 frames.
    assert seen == 2 * [(4 * tokens, 4 * tokens), (3 * tokens, 7 * tokens), (3 * tokens, 10 * tokens)]
    # A process that holds frames 6 to 10 of a clip of 10, the last one repeated.
    assert clip_reaches([(0, 4), (4, 7), (7, 10)], [6, 7, 8, 9, 9]) == [(0, 1, 7), (1, 5, 10)]


def test_one_chunk_is_the_bidirectional_pass() -> None:
    config = replace(tiny(), first_chunk_size=4, chunk_size=3)
    model = random_model(config)
    inputs = clip(config, 4)
    args = [inputs[n] for n in ("latents", "timesteps", "text", "text_mask")]
    args += [inputs["c2w_windows"][:, :7], inputs["intrinsics"][:, :7]]
    torch.testing.assert_close(model(*args), model(*args, mode="bidirectional"))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_later_chunks_leave_earlier_outputs_unchanged(config: ModelConfig) -> None:
    model = random_model(config)
    frames = config.first_chunk_size + 2 * config.chunk_size
    inputs = clip(config, frames)
    video = 1 + config.temporal_stride * (frames - 1)
    args = [inputs["timesteps"], inputs["text"], inputs["text_mask"]]
    args += [inputs["c2w_windows"][:, :video], inputs["intrinsics"][:, :video]]
    before = model(inputs["latents"], *args)
    changed = inputs["latents"].clone()
    changed[:, :, -config.chunk_size :] += 1
    after = model(changed, *args)
    kept = frames - config.chunk_size
    torch.testing.assert_close(after[:, :, :kept], before[:, :, :kept])
    assert not torch.allclose(after[:, :, kept:], before[:, :, kept:])


def test_memory_lasts_longer_than_the_window() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 8)
    before, _ = run_window(model, inputs)
    inputs["latents"][:, :, 2] += 1
    after, _ = run_window(model, inputs)
    assert not torch.allclose(after[:, :, -1], before[:, :, -1])


def test_silent_camera_branches_ignore_the_camera() -> None:
    config = tiny()
    model = random_model(config)
    silence_rays(model)
    silence_plucker(model)
    inputs = clip(config, 4)
    before, _ = run_window(model, inputs)
    inputs["c2w_windows"] = inputs["c2w_windows"].roll(1, dims=1)
    after, _ = run_window(model, inputs)
    torch.testing.assert_close(after, before)


def test_softmax_camera_path_ignores_the_world_frame() -> None:
    config = replace(tiny(), softmax_every_n=1, translation_scale=1.0)
    model = random_model(config)
    silence_plucker(model)
    inputs = clip(config, 3)
    before, _ = run_window(model, inputs)
    angle = torch.tensor(0.7)
    world = torch.eye(4)
    world[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    world[:3, 3] = torch.tensor([0.3, -0.2, 0.5])
    moved, _ = run_window(model, {**inputs, "c2w_windows": world @ inputs["c2w_windows"]})
    torch.testing.assert_close(moved, before, atol=1e-4, rtol=1e-4)


def test_delta_net_camera_path_ignores_rotations_of_the_world_only() -> None:
    config = replace(tiny(), softmax_every_n=9, translation_scale=1.0)
    model = random_model(config)
    silence_plucker(model)
    inputs = clip(config, 3)
    before, _ = run_window(model, inputs)
    angle = torch.tensor(0.7)
    world = torch.eye(4)
    world[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    turned, _ = run_window(model, {**inputs, "c2w_windows": world @ inputs["c2w_windows"]})
    torch.testing.assert_close(turned, before, atol=1e-4, rtol=1e-4)
    world[0, 3] = 2.0
    moved, _ = run_window(model, {**inputs, "c2w_windows": world @ inputs["c2w_windows"]})
    assert not torch.allclose(moved, before, atol=1e-4, rtol=1e-4)


def conditions(inputs: dict[str, Tensor]) -> ChunkConditions:
    return ChunkConditions(
        inputs["c2w_windows"],
        inputs["intrinsics"],
        inputs["frame_index"][:, 0],
        inputs["text"],
        inputs["text_mask"],
    )


def test_denoise_reads_and_only_commit_writes() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 2)
    pieces = [part(inputs, k, k + 1, config.temporal_stride) for k in range(2)]
    state = commit_chunk(model, pieces[0]["latents"], conditions(pieces[0]), None)
    held = {name: tensor.clone() for name, tensor in state.tensors.items()}
    made = denoise_chunk(model, pieces[1]["latents"], conditions(pieces[1]), state, (1000, 500))
    again = denoise_chunk(model, pieces[1]["latents"], conditions(pieces[1]), state, (1000, 500))
    assert torch.equal(made, again)
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in held.items())
    committed = commit_chunk(model, made, conditions(pieces[1]), state)
    assert committed.tensors["num_frames"].tolist() == [2, 2]
    changed = [n for n, t in committed.tensors.items() if not torch.equal(t, held[n])]
    assert {n for n in held if "sink" in n} == set(held) - set(changed)


def test_clean_frame_stays_as_it_is() -> None:
    config = replace(tiny(), chunk_size=2, first_chunk_size=3)
    model = random_model(config)
    inputs = clip(config, 3)
    clean = inputs["latents"][:, :, :1] + 1
    made = denoise_chunk(model, inputs["latents"], conditions(inputs), None, (1000, 500), clean=clean)
    assert torch.equal(made[:, :, :1], clean)
    assert not torch.equal(made[:, :, 1:], inputs["latents"][:, :, 1:])


def test_state_keeps_its_size_and_steps_their_work_over_200_chunks() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 1)
    state = RolloutState.zeros(config, 2)
    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    work = set()
    for index in range(200):
        inputs["frame_index"] = torch.full((2, 1), index)
        counter = FlopCounterMode(display=False)
        with counter:
            velocity, state = run_step(model, inputs, state)
        work.add(counter.get_total_flops())
        assert torch.isfinite(velocity).all()
        assert {name: tensor.shape for name, tensor in state.tensors.items()} == shapes
    assert len(work) == 1


def test_gradients_reach_every_weight_that_is_used() -> None:
    config = tiny()
    model = random_model(config)
    with torch.enable_grad():
        velocity, state = run_window(model, clip(config, 3))
        second, _ = run_window(model, clip(config, 3), state.detach())
        (velocity + second).square().mean().backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None}
    softmax = [layer for layer in range(config.num_layers) if config.is_softmax(layer)]
    gates = ("A_log", "dt_bias", "beta_proj.weight", "beta_proj.bias", "gate_proj.weight", "gate_proj.bias")
    unused = {f"blocks.{layer}.attn.{gate}" for layer in softmax for gate in gates}
    assert silent == unused | {"raymap_embedder.proj.weight", "raymap_embedder.proj.bias"}


def test_released_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = WorldModel(sana_wm())
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_661_800_448
    # The released file's 872 tensors include a position table that nothing reads.
    assert len(model.state_dict()) + 1 == 872


def test_unkept_state_changes_nothing_else() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 4)
    text, mask, poses, intrinsics = (inputs[name] for name in CONDITIONS)
    noisy = inputs["latents"], inputs["timesteps"]
    index = inputs["frame_index"]
    velocity, state = model.window(*noisy, text, mask, poses, intrinsics, index, keep_state=False)
    assert state is None
    assert torch.equal(velocity, run_window(model, inputs)[0])


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_stays_near_float32_and_keeps_a_float32_state(how: str) -> None:
    config = tiny()
    model = WorldModel(config, fresh=True).eval()
    first, second = clip(config, 3), clip(config, 2)
    expected, state = run_window(model, first)
    later, _ = run_window(model, second, state)
    if how == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        coarse, coarse_state = run_window(model, first)
        coarse_later, _ = run_window(model, second, coarse_state)
    assert {tensor.dtype for tensor in coarse_state.tensors.values()} == {torch.float32}
    for ours, exact in ((coarse, expected), (coarse_later, later)):
        # Eight bits of mantissa through three blocks.
        assert (ours - exact).square().mean() < 1e-3 * exact.square().mean()
