"""Whole clips and streaming agree; nothing leaks from the future; state never grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.attention import naive, self_attention
from model.attention.mask import prefix_mask
from model.conditioning import Conditioning
from model.config import ModelConfig, sana_wm, tiny
from model.rollout import RolloutState, state_shapes
from model.sampler import commit_chunk, denoise_chunk
from model.world_model import Mode, WorldModel
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


def disable_rays(model: WorldModel) -> None:
    for name, parameter in model.named_parameters():
        if ".out_proj_cam." in name:
            parameter.zero_()


def disable_plucker(model: WorldModel) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("plucker_proj.weight"):
            parameter.zero_()


@dataclass(frozen=True)
class Clip:
    """Arguments of the network, cameras in packed windows."""

    latents: Tensor
    timesteps: Tensor
    conditioning: Conditioning

    def part(self, start: int, stop: int, stride: int) -> Clip:
        packed, given = slice(start * stride, stop * stride), self.conditioning
        index = given.frame_index(self.latents.shape[2])[:, start:stop]
        cameras = {"c2w": given.c2w[:, packed], "intrinsics": given.intrinsics[:, packed]}
        conditioning = replace(given, start_frame=index, **cameras)
        return Clip(self.latents[:, :, start:stop], self.timesteps[:, start:stop], conditioning)

    def double(self) -> Clip:
        doubled = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in vars(self.conditioning).items()
            if tensor is not None
        }
        return Clip(self.latents.double(), self.timesteps.double(), Conditioning(**doubled))

    def moved(self, c2w: Tensor, start_frame: Tensor | None) -> Clip:
        video = c2w.shape[1]
        given = replace(self.conditioning, c2w=c2w, start_frame=start_frame)
        return replace(self, conditioning=replace(given, intrinsics=given.intrinsics[:, :video]))

    def run(self, model: WorldModel, mode: Mode = "streaming") -> Tensor:
        return model(self.latents, self.timesteps, self.conditioning, mode=mode)

    def step(self, model: WorldModel, state: RolloutState | None) -> tuple[Tensor, RolloutState]:
        return model.step(self.latents, self.timesteps, self.conditioning, state)


def clip(config: ModelConfig, frames: int, batch: int = 2) -> Clip:
    stride = config.temporal_stride
    poses = torch.eye(4).expand(batch, frames * stride, 4, 4).clone()
    poses[..., :3, 3] = torch.randn(batch, frames * stride, 3)
    size = config.frame_width * 0.6
    centre = [size, size, config.frame_width / 2, config.frame_height / 2]
    latents = torch.randn(batch, config.in_channels, frames, config.latent_height, config.latent_width)
    timesteps = torch.rand(batch, frames) * 1000
    conditioning = Conditioning(
        text=torch.randn(batch, config.text_length, config.text_dim),
        text_mask=(torch.arange(config.text_length) < 4).float().expand(batch, -1),
        c2w=poses,
        intrinsics=torch.tensor(centre).expand(batch, frames * stride, 4),
        start_frame=torch.zeros(batch, dtype=torch.int64),
    )
    return Clip(latents, timesteps, conditioning)


def video_poses(config: ModelConfig, frames: int, batch: int = 2) -> Tensor:
    """Poses of the video frames of a clip, the first the identity."""
    c2w = torch.eye(4).repeat(batch, 1 + config.temporal_stride * (frames - 1), 1, 1)
    c2w[:, 1:, :3, 3] = torch.randn(batch, c2w.shape[1] - 1, 3)
    return c2w


def stream(model: WorldModel, inputs: Clip) -> tuple[list[Tensor], list[RolloutState]]:
    """Velocity and state of every chunk."""
    state: RolloutState | None = None
    packed = inputs.conditioning.pack(inputs.latents.shape[2], model.config.temporal_stride)
    inputs = replace(inputs, conditioning=packed)
    outputs, states = [], []
    for start, stop in model.config.chunk_ranges(inputs.latents.shape[2]):
        output, state = inputs.part(start, stop, model.config.temporal_stride).step(model, state)
        outputs.append(output)
        states.append(state)
    return outputs, states


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_streaming_pass_equals_repeated_steps(config: ModelConfig) -> None:
    model = random_model(config)
    inputs = clip(config, config.first_chunk_size + 5 * config.chunk_size)
    outputs, states = stream(model, inputs)
    for state in states:
        assert {name: tuple(t.shape[1:]) for name, t in state.tensors.items()} == state_shapes(config)
    torch.testing.assert_close(torch.cat(outputs, 2), inputs.run(model), atol=TOLERANCE, rtol=TOLERANCE)


def test_six_chunks_are_one_streaming_pass_in_float64() -> None:
    model = random_model(RELEASED).double()
    inputs = clip(RELEASED, 19).double()
    outputs, states = stream(model, inputs)
    assert len(states) == 6
    torch.testing.assert_close(torch.cat(outputs, 2), inputs.run(model), atol=1e-11, rtol=1e-11)


def test_six_streamed_chunks_equal_the_whole_chunk_causal_pass_in_float64() -> None:
    config = replace(RELEASED, num_cached_chunks=9)
    model = random_model(config).double()
    # By specification the camera key convolution of delta-net blocks has no memory across chunks in streaming.
    for layer in range(config.num_layers):
        if not config.is_softmax(layer):
            for parameter in model.get_submodule(f"blocks.{layer}.attn.out_proj_cam").parameters():
                parameter.zero_()
    inputs = clip(config, 19).double().moved(video_poses(config, 19).double(), None)
    outputs, _ = stream(model, inputs)
    whole = inputs.run(model, "chunk_causal")
    torch.testing.assert_close(torch.cat(outputs, 2), whole, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("sink", "seen"), [(True, {0, 3}), (False, {2, 3})])
def test_chunk_4_sees_the_sink_and_the_newest_chunks_only(sink: bool, seen: set[int]) -> None:
    config = replace(RELEASED, num_layers=1, softmax_every_n=1, sink=sink)
    model = random_model(config)
    # What attention sees is in question, not what the feed-forward remembers of the frame before.
    model.get_parameter("blocks.0.mlp.t_conv.weight").zero_()
    inputs = clip(config, 16)
    chunks = config.chunk_ranges(16)
    before, _ = stream(model, inputs)
    for number, (start, stop) in enumerate(chunks[:4]):
        changed = inputs.latents.clone()
        changed[:, :, start:stop] += 1.0
        after, _ = stream(model, replace(inputs, latents=changed))
        assert torch.equal(after[4], before[4]) == (number not in seen), number


def test_six_chunks_equal_the_double_loop_over_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(RELEASED).double()
    inputs = clip(RELEASED, 19, batch=1).double()
    fast, fast_states = stream(model, inputs)

    # The twins know neither a write limit nor shards.
    def twin_of(name: str) -> Callable[..., Any]:
        twin = getattr(naive, name)
        return lambda *given, chunks, initial, **_: twin(*given, chunks, initial)

    for name in ("frame_attention", "delta_rule"):
        monkeypatch.setattr(self_attention, name, twin_of(name))
    slow, slow_states = stream(model, inputs)
    for ours, twin in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, twin, atol=1e-10, rtol=1e-10)
    for ours, twin in zip(fast_states, slow_states, strict=True):
        for name, tensor in twin.tensors.items():
            torch.testing.assert_close(ours.tensors[name], tensor, atol=1e-10, rtol=1e-10, msg=name)


def test_frame_indices_may_jump() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 9)
    index = torch.arange(9).expand(2, -1)
    jumping = inputs.moved(inputs.conditioning.c2w, index + (index > 0) * 136)
    outputs, _ = stream(model, jumping)
    whole = jumping.run(model)
    torch.testing.assert_close(torch.cat(outputs, 2), whole, atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(whole, inputs.run(model), atol=1e-3)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_streaming_equals_the_whole_clip_where_the_window_is_wide(chunk_size: int) -> None:
    config = replace(tiny(), chunk_size=chunk_size, num_cached_chunks=9)
    model = random_model(config)
    # The camera key convolution has no memory across chunks in streaming, by specification.
    disable_rays(model)
    frames = 1 + 4 * chunk_size
    inputs = clip(config, frames).moved(video_poses(config, frames), None)
    streamed, whole = inputs.run(model), inputs.run(model, "chunk_causal")
    torch.testing.assert_close(streamed, whole, atol=TOLERANCE, rtol=TOLERANCE)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="chunk_causal"):
        clip(tiny(), 2).run(WorldModel(tiny()), "causal")  # type: ignore[arg-type]


def test_whole_clips_are_attended_to_chunk_by_chunk_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def look(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        assert mask is None
        seen.append((q.shape[2], k.shape[2]))
        return v[:, :, : q.shape[2]]

    monkeypatch.setattr(self_attention, "softmax_attention", look)
    config = replace(RELEASED, softmax_every_n=1, num_layers=1)
    clip(config, 10).run(WorldModel(config), "chunk_causal")
    tokens = config.tokens_per_frame
    # Both paths of the block, chunks of 4, 3 and 3 frames.
    assert seen == 2 * [(4 * tokens, 4 * tokens), (3 * tokens, 7 * tokens), (3 * tokens, 10 * tokens)]
    # A process that holds frames 6 to 10 of a clip of 10, the last one repeated.
    assert prefix_mask([(0, 4), (4, 7), (7, 10)], [6, 7, 8, 9, 9]) == [(0, 1, 7), (1, 5, 10)]


def test_one_chunk_is_the_bidirectional_pass() -> None:
    config = replace(tiny(), first_chunk_size=4, chunk_size=3)
    model = random_model(config)
    inputs = clip(config, 4)
    torch.testing.assert_close(inputs.run(model, "chunk_causal"), inputs.run(model, "bidirectional"))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_later_chunks_leave_earlier_outputs_unchanged(config: ModelConfig) -> None:
    model = random_model(config)
    frames = config.first_chunk_size + 2 * config.chunk_size
    inputs = clip(config, frames)
    before = inputs.run(model, "chunk_causal")
    changed = inputs.latents.clone()
    changed[:, :, -config.chunk_size :] += 1
    after = replace(inputs, latents=changed).run(model, "chunk_causal")
    kept = frames - config.chunk_size
    torch.testing.assert_close(after[:, :, :kept], before[:, :, :kept])
    assert not torch.allclose(after[:, :, kept:], before[:, :, kept:])


def test_memory_lasts_longer_than_the_window() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 8)
    before = inputs.run(model)
    inputs.latents[:, :, 2] += 1
    after = inputs.run(model)
    assert not torch.allclose(after[:, :, -1], before[:, :, -1])


def test_disabled_camera_branches_ignore_the_camera() -> None:
    config = tiny()
    model = random_model(config)
    disable_rays(model)
    disable_plucker(model)
    inputs = clip(config, 4)
    poses, start = inputs.conditioning.c2w, inputs.conditioning.start_frame
    before, after = inputs.run(model), inputs.moved(poses.roll(1, dims=1), start).run(model)
    torch.testing.assert_close(after, before)


def test_softmax_camera_path_ignores_the_world_frame() -> None:
    config = replace(tiny(), softmax_every_n=1, translation_scale=1.0)
    model = random_model(config)
    disable_plucker(model)
    inputs = clip(config, 3)
    poses, start = inputs.conditioning.c2w, inputs.conditioning.start_frame
    before = inputs.run(model)
    angle = torch.tensor(0.7)
    world = torch.eye(4)
    world[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    world[:3, 3] = torch.tensor([0.3, -0.2, 0.5])
    moved = inputs.moved(world @ poses, start).run(model)
    torch.testing.assert_close(moved, before, atol=1e-4, rtol=1e-4)


def test_delta_net_camera_path_ignores_rotations_of_the_world_only() -> None:
    config = replace(tiny(), softmax_every_n=9, translation_scale=1.0)
    model = random_model(config)
    disable_plucker(model)
    inputs = clip(config, 3)
    poses, start = inputs.conditioning.c2w, inputs.conditioning.start_frame
    before = inputs.run(model)
    angle = torch.tensor(0.7)
    world = torch.eye(4)
    world[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    turned = inputs.moved(world @ poses, start).run(model)
    torch.testing.assert_close(turned, before, atol=1e-4, rtol=1e-4)
    world[0, 3] = 2.0
    moved = inputs.moved(world @ poses, start).run(model)
    assert not torch.allclose(moved, before, atol=1e-4, rtol=1e-4)


def test_denoise_reads_and_only_commit_writes() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 2)
    first, second = (inputs.part(k, k + 1, config.temporal_stride) for k in range(2))
    state = commit_chunk(model, first.latents, first.conditioning, None)
    held = {name: tensor.clone() for name, tensor in state.tensors.items()}
    made = denoise_chunk(model, second.latents, second.conditioning, state, (1000, 500))
    again = denoise_chunk(model, second.latents, second.conditioning, state, (1000, 500))
    assert torch.equal(made, again)
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in held.items())
    committed = commit_chunk(model, made, second.conditioning, state)
    assert committed.tensors["num_frames"].tolist() == [2, 2]
    changed = [n for n, t in committed.tensors.items() if not torch.equal(t, held[n])]
    assert {n for n in held if "sink" in n} == set(held) - set(changed)


def test_clean_frame_stays_as_it_is() -> None:
    config = replace(tiny(), chunk_size=2, first_chunk_size=3)
    model = random_model(config)
    inputs = clip(config, 3)
    clean = inputs.latents[:, :, :1] + 1
    made = denoise_chunk(model, inputs.latents, inputs.conditioning, None, (1000, 500), clean=clean)
    assert torch.equal(made[:, :, :1], clean)
    assert not torch.equal(made[:, :, 1:], inputs.latents[:, :, 1:])


def test_state_keeps_its_size_and_steps_their_work_over_200_chunks() -> None:
    config = tiny()
    model = random_model(config)
    inputs = clip(config, 1)
    state = RolloutState.zeros(config, 2)
    shapes = {name: tensor.shape for name, tensor in state.tensors.items()}
    work = set()
    for index in range(200):
        conditioning = replace(inputs.conditioning, start_frame=torch.full((2,), index))
        chunk = replace(inputs, conditioning=conditioning)
        with FlopCounterMode(display=False) if index % 66 == 1 else nullcontext() as counter:
            velocity, state = chunk.step(model, state)
        if counter is not None:
            work.add(counter.get_total_flops())
        assert torch.isfinite(velocity).all()
        assert {name: tensor.shape for name, tensor in state.tensors.items()} == shapes
    assert len(work) == 1


def test_gradients_reach_every_weight_that_is_used() -> None:
    config = tiny()
    model = random_model(config)
    with torch.enable_grad():
        outputs, _ = stream(model, clip(config, 3))
        torch.cat(outputs, 2).square().mean().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    softmax = [layer for layer in range(config.num_layers) if config.is_softmax(layer)]
    gates = ("A_log", "dt_bias", "beta_proj.weight", "beta_proj.bias", "gate_proj.weight", "gate_proj.bias")
    unused = {f"blocks.{layer}.attn.{gate}" for layer in softmax for gate in gates}
    assert idle == unused | {"raymap_embedder.proj.weight", "raymap_embedder.proj.bias"}


def test_write_strengths_learn_from_the_camera_branch_too() -> None:
    config = replace(tiny(), num_layers=1)
    model = random_model(config)
    # Without values the main branch is zero, whatever is written.
    model.get_parameter("blocks.0.attn.qkv.weight")[2 * config.hidden_size :] = 0
    with torch.enable_grad():
        clip(config, 3).run(model).square().mean().backward()
    gradient = model.get_parameter("blocks.0.attn.beta_proj.weight").grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_released_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = WorldModel(sana_wm())
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_661_800_448
    # The released file's 872 tensors include a position table that nothing reads.
    assert len(model.state_dict()) + 1 == 872


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bfloat16_stays_near_float32_and_keeps_a_float32_state(how: str) -> None:
    config = tiny()
    model = WorldModel(config, fresh=True).eval()
    inputs = clip(config, 5)
    expected, _ = stream(model, inputs)
    if how == "weights":
        model = model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        coarse, states = stream(model, inputs)
    assert {tensor.dtype for tensor in states[-1].tensors.values()} == {torch.float32}
    for ours, exact in zip(coarse, expected, strict=True):
        # Eight bits of mantissa through three blocks.
        assert (ours - exact).square().mean() < 1e-3 * exact.square().mean()
