"""The refiner's stream: constant work and memory, ring buffers, and agreement with one masked pass over the clip."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.refiner import Refiner, RefinerConfig
from model.refiner import state as state_module
from model.refiner.rotary import video_rotary
from model.refiner.state import RefinerState, sink_frame, state_shapes
from model.refiner.streaming import SIGMAS
from model.refiner.transformer import TextContext
from tests.refiner_cases import (
    CHANNELS,
    FPS,
    random_clip,
    random_text,
    refiner_config,
    relative_error,
    small_refiner,
)

GRID = (3, 4)
TOKENS = 12


def open_stream(refiner: Refiner, clip: Tensor, history: int = 10) -> tuple[TextContext, RefinerState]:
    context = refiner.encode_text(*random_text(clip.dtype))
    return context, refiner.begin(clip[:, :, :1], context, FPS, history)


@torch.no_grad()
def masked_refinement(
    refiner: Refiner, clip: Tensor, block_size: int, memory: Tensor | None = None
) -> Tensor:
    """Refine by passes over the clip so far, under a mask that hides later blocks: slow, and without any cache."""
    context = refiner.encode_text(*random_text(clip.dtype))
    generator = torch.Generator().manual_seed(42)
    done = clip[:, :, :1]
    for start in range(1, clip.shape[2], block_size):
        block = clip[:, :, start : start + block_size]
        stop = start + block.shape[2]
        order = torch.tensor([0, *(1 + (frame - 1) // block_size for frame in range(1, stop))])
        order = order.repeat_interleave(TOKENS)
        mask = torch.where(order[None] <= order[:, None], 0.0, float("-inf"))
        table = video_rotary(refiner.config, torch.arange(float(stop)), *GRID, FPS)
        noise = torch.randn(block.shape, generator=generator, dtype=clip.dtype)
        shown = None
        if memory is not None:
            shown = torch.cat([0 * memory[:, :, :start], memory[:, :, start:stop]], 2)
        x = (1 - SIGMAS[0]) * block + SIGMAS[0] * noise
        for sigma, following in pairwise(SIGMAS):
            sigmas = torch.cat([torch.zeros(1, start), torch.full((1, stop - start), sigma)], 1)
            velocity = refiner(torch.cat([done, x], 2), sigmas, context, table, mask=mask, memory=shown)
            x = x + (following - sigma) * velocity[:, :, start:]
        done = torch.cat([done, x], 2)
    return done


@pytest.mark.parametrize("block_size", [2, 3, 9])
def test_a_stream_that_forgets_nothing_equals_passes_over_the_whole_clip(block_size: int):
    refiner, clip = small_refiner(), random_clip(10, torch.float64)
    text = random_text(torch.float64)
    streamed = refiner.refine(clip, *text, fps=FPS, block_size=block_size, window=10)
    # The bound of float64 sums in another order.
    assert relative_error(streamed, masked_refinement(refiner, clip, block_size)) < 1e-10


@pytest.mark.parametrize("block_size", [2, 9])
def test_the_memory_is_shown_to_the_block_at_hand_alone(block_size: int):
    refiner, clip = small_refiner(memory_channels=CHANNELS + 1), random_clip(10, torch.float64)
    text = random_text(torch.float64)
    memory = torch.randn(
        1, CHANNELS + 1, 10, *GRID, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    streamed = refiner.refine(clip, *text, fps=FPS, block_size=block_size, window=10, memory=memory)
    assert relative_error(streamed, masked_refinement(refiner, clip, block_size, memory)) < 1e-10
    plain = refiner.refine(clip, *text, fps=FPS, block_size=block_size, window=10)
    assert relative_error(streamed, plain) > 0.01
    nothing = refiner.refine(clip, *text, fps=FPS, block_size=block_size, window=10, memory=0 * memory)
    torch.testing.assert_close(nothing, plain, rtol=0, atol=0)


def test_a_new_refiner_does_not_see_its_memory_yet():
    torch.manual_seed(0)
    refiner = Refiner(RefinerConfig.from_dict(refiner_config(memory_channels=CHANNELS + 1))).double()
    clip, text = random_clip(4, torch.float64), random_text(torch.float64)
    memory = torch.ones(1, CHANNELS + 1, 4, *GRID, dtype=torch.float64)
    plain = refiner.refine(clip, *text, fps=FPS)
    torch.testing.assert_close(refiner.refine(clip, *text, fps=FPS, memory=memory), plain, rtol=0, atol=0)


def test_a_memory_that_does_not_fit_is_refused():
    clip, text = random_clip(4, torch.float64), random_text(torch.float64)
    memory = torch.zeros(1, CHANNELS + 1, 4, *GRID, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"give \(1, 0, 4, 3, 4\), or none"):
        small_refiner().refine(clip, *text, fps=FPS, memory=memory)
    refiner = small_refiner()
    context, state = open_stream(refiner, clip)
    with pytest.raises(ValueError, match="reads no spatial memory"):
        refiner.step(clip[:, :, 1:], clip[:, :, 1:], context, state, FPS, memory[:, :, 1:])
    with pytest.raises(ValueError, match="memory_channels is -1"):
        RefinerConfig.from_dict(refiner_config(memory_channels=-1))


class ProductCounter(TorchDispatchMode):
    """Counts matrix products and attentions by the shapes of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[str, tuple[torch.Size, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "mm" in name or "attention" in name:
            self.products[name, tuple(a.shape for a in args if isinstance(a, Tensor))] += 1
        return func(*args, **(kwargs or {}))


def test_two_hundred_blocks_cost_the_same_work_and_memory():
    refiner = small_refiner(torch.float32, num_layers=1)
    clip = random_clip(1 + 200 * 3, torch.float32, (1, 2))
    context, state = open_stream(refiner, clip)
    work, memory = [], set()
    for start in range(1, clip.shape[2], 3):
        block = clip[:, :, start : start + 3]
        with ProductCounter() as counter:
            _, state = refiner.step(block, torch.zeros_like(block), context, state, FPS)
        work.append(counter.products)
        memory.add(tuple((name, tensor.shape, tensor.dtype) for name, tensor in state.tensors.items()))
    assert sum(work[0].values()) > 40
    assert all(products == work[0] for products in work)
    assert len(memory) == 1
    assert float(state.num_frames) == 601


def test_the_text_is_projected_once_and_the_sink_rotated_once_a_block(monkeypatch: pytest.MonkeyPatch):
    refiner, clip = small_refiner(), random_clip(13, torch.float64)
    projections = []
    for block in refiner.blocks():
        block.attn2.to_k.register_forward_hook(lambda *_: projections.append("text"))
    rotations = []
    rotate = state_module.rotate
    monkeypatch.setattr(state_module, "rotate", lambda *a: rotations.append("sink") or rotate(*a))
    refiner.refine(clip, *random_text(torch.float64), fps=FPS)
    assert len(projections) == refiner.config.num_layers
    assert len(rotations) == 4 * refiner.config.num_layers


def test_the_state_has_the_names_and_shapes_it_promises():
    refiner, clip = small_refiner(), random_clip(4, torch.float64)
    context, state = open_stream(refiner, clip, history=5)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in state.tensors.items()}
    assert shapes == state_shapes(refiner.config, TOKENS, 5)
    block = clip[:, :, 1:]
    _, after = refiner.step(block, torch.zeros_like(block), context, state, FPS)
    assert list(after.tensors) == list(state_shapes(refiner.config, TOKENS, 5))
    assert {name: tensor.shape for name, tensor in after.tensors.items()} == {
        name: tensor.shape for name, tensor in state.tensors.items()
    }


def test_a_step_leaves_the_state_before_it_untouched():
    refiner, clip = small_refiner(), random_clip(7, torch.float64)
    context, state = open_stream(refiner, clip)
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    block, noise = clip[:, :, 1:4], torch.zeros(1, CHANNELS, 3, *GRID, dtype=torch.float64)
    first, _ = refiner.step(block, noise, context, state, FPS)
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in before.items())
    again, _ = refiner.step(block, noise, context, state, FPS)
    assert torch.equal(first, again)


def test_steps_give_what_refine_gives():
    refiner, clip = small_refiner(), random_clip(13, torch.float64)
    context, state = open_stream(refiner, clip, history=4)
    generator = torch.Generator().manual_seed(42)
    parts = [clip[:, :, :1]]
    for start in range(1, 13, 3):
        block = clip[:, :, start : start + 3]
        noise = torch.randn(block.shape, generator=generator, dtype=torch.float64)
        refined, state = refiner.step(block, noise, context, state, FPS)
        parts.append(refined)
    whole = refiner.refine(clip, *random_text(torch.float64), fps=FPS, window=5)
    assert relative_error(torch.cat(parts, 2), whole) < 1e-12


def test_the_ring_holds_the_newest_frames():
    refiner, clip = small_refiner(), random_clip(10, torch.float64)
    context, state = open_stream(refiner, clip, history=4)
    wide_context, wide_state = open_stream(refiner, clip, history=9)
    for start in (1, 4, 7):
        block = clip[:, :, start : start + 3]
        _, state = refiner.step(block, torch.zeros_like(block), context, state, FPS)
        _, wide_state = refiner.step(block, torch.zeros_like(block), wide_context, wide_state, FPS)
        if start == 4:
            # What both wrote while neither had forgotten anything.
            ring = state.tensors["blocks.0.history_value"].unflatten(2, (4, TOKENS))
            whole = wide_state.tensors["blocks.0.history_value"].unflatten(2, (9, TOKENS))
            for frame in (3, 4, 5, 6):
                torch.testing.assert_close(ring[:, :, (frame - 1) % 4], whole[:, :, frame - 1])
    assert float(sink_frame(state.num_frames, 4)) == 10 - 4 - 1
    assert float(sink_frame(wide_state.num_frames, 9)) == 0


class StepGraph(torch.nn.Module):
    """`Refiner.step` as a function of plain tensors."""

    def __init__(self, refiner: Refiner, names: list[str]) -> None:
        super().__init__()
        self.refiner, self.names = refiner, names

    def forward(
        self, block: Tensor, noise: Tensor, text: list[Tensor], bias: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        context = TextContext(tuple(text[::2]), tuple(text[1::2]), bias)
        state = RefinerState(dict(zip(self.names, tensors, strict=True)))
        refined, after = self.refiner.step(block, noise, context, state, FPS)
        return refined, *(after.tensors[name] for name in self.names)


def test_one_exported_step_serves_every_block():
    refiner, clip = small_refiner(num_layers=1), random_clip(13, torch.float64)
    context, state = open_stream(refiner, clip, history=5)
    assert context.bias is not None
    text = [t for pair in zip(context.keys, context.values, strict=True) for t in pair]
    names = list(state.tensors)
    exported = None
    tensors = tuple(state.tensors.values())
    for start in (1, 4, 7, 10):
        block = clip[:, :, start : start + 3]
        arguments = (block, torch.ones_like(block), text, context.bias, *tensors)
        if exported is None:
            exported = torch.export.export(StepGraph(refiner, names), arguments).module()
        expected, state = refiner.step(block, torch.ones_like(block), context, state, FPS)
        refined, *tensors = exported(*arguments)
        assert relative_error(refined, expected) < 1e-12
        for name, tensor in zip(names, tensors, strict=True):
            torch.testing.assert_close(tensor, state.tensors[name])


def test_hidden_text_tokens_change_nothing():
    refiner, clip = small_refiner(), random_clip(4, torch.float64)
    text, mask = random_text(torch.float64)
    other = torch.where(mask[..., None] > 0, text, torch.full_like(text, 3.0))
    refined = [refiner.refine(clip, t, mask, fps=FPS) for t in (text, other)]
    assert torch.equal(*refined)
    seen = refiner.refine(clip, other, torch.ones_like(mask), fps=FPS)
    assert not torch.allclose(refined[0], seen)


def test_half_precision_weights_stay_near_full_precision():
    clip = random_clip(7, torch.float32)
    text, mask = random_text(torch.float32)
    full, half = small_refiner(torch.float32), small_refiner(torch.bfloat16)
    context, halved = full.encode_text(text, mask), half.encode_text(text, mask)
    block = clip[:, :, 1:4]
    states = [full.begin(clip[:, :, :1], context, FPS, 3), half.begin(clip[:, :, :1], halved, FPS, 3)]
    ours, _ = full.step(block, torch.ones_like(block), context, states[0], FPS)
    rough, _ = half.step(block, torch.ones_like(block), halved, states[1], FPS)
    assert rough.dtype == torch.float32
    # bfloat16 keeps 8 bits, 4e-3, through three layers and three steps.
    assert 0 < relative_error(rough, ours) < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": torch.zeros(1, CHANNELS, 1, 3, 4)}, "two latent frames or more"),
        ({"latents": torch.zeros(2, CHANNELS, 4, 3, 4)}, "give \\[1, 6, T, H, W\\]"),
        ({"text": torch.zeros(1, 7, 3)}, "as the connectors do"),
        ({"text_mask": torch.ones(1, 3)}, "one number a token"),
        ({"fps": 0.0}, "frames per second"),
        ({"block_size": 0}, "one latent frame or more"),
        ({"window": 1}, "at least 2"),
    ],
)
def test_unusable_arguments_are_refused_with_a_remedy(changes: dict, message: str):
    text, mask = random_text(torch.float32)
    arguments = {"latents": torch.zeros(1, CHANNELS, 4, 3, 4), "text": text, "text_mask": mask, "fps": FPS}
    arguments |= changes
    latents = arguments.pop("latents")
    with pytest.raises(ValueError, match=message):
        small_refiner(torch.float32).refine(
            latents, arguments.pop("text"), arguments.pop("text_mask"), **arguments
        )
