"""Laws of the frame-wise delta rule, and the fast form against its double-precision twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.attention import naive
from model.attention.gdn import Chunks, FrameUpdates, delta_rule, frame_attention

CHUNKS = {
    "forward only": [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)],
    "both ways": [(0, 5)],
    "chunk-causal": [(0, 3), (3, 5)],
}
TOLERANCE = 2e-5
"""Float32 sums over a few dozen products, against float64."""


def sample(frames: int = 5, tokens: int = 6, width: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shape = (2, frames, 3, tokens, width)
    scale = (tokens * width) ** -0.5
    return {
        "query": torch.rand(shape),
        "key": torch.rand(shape) * scale,
        "rotated_query": torch.randn(shape),
        "rotated_key": torch.randn(shape) * scale,
        "value": torch.randn(shape),
        "beta": torch.rand(shape[:-1]),
        "decay": 0.5 + torch.rand(shape[:3]) / 2,
    }


def attend(
    inputs: dict[str, Tensor],
    chunks: Chunks,
    initial: tuple[Tensor, Tensor] | None = None,
    slowly: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    names = ("query", "key", "rotated_query", "rotated_key", "value")
    query, key, rotated_query, rotated_key, value = (inputs[name] for name in names)
    gates = inputs["beta"], inputs["decay"]
    function = naive.frame_attention if slowly else frame_attention
    return function(query, key, rotated_query, rotated_key, value, *gates, chunks, initial)


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
@pytest.mark.parametrize("carried", [False, True], ids=["from zero", "from a state"])
def test_fast_scan_equals_its_twin(chunks: list[tuple[int, int]], carried: bool) -> None:
    inputs = sample()
    initial = (torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4)) if carried else None
    output, (state, norm) = attend(inputs, chunks, initial)
    expected, (state_64, norm_64) = attend(inputs, chunks, initial, slowly=True)
    torch.testing.assert_close(state.double(), state_64, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(norm.double(), norm_64, atol=TOLERANCE, rtol=TOLERANCE)
    # The division magnifies rounding where the normaliser is small.
    torch.testing.assert_close(output.double(), expected, atol=1e-3, rtol=1e-3)


def test_backward_scan_excludes_the_frame_itself() -> None:
    inputs = sample(frames=2)
    key, value = inputs["rotated_key"], inputs["value"]
    both, _ = delta_rule(key, value, inputs["beta"], inputs["decay"], [(0, 2)], None)
    forward, _ = delta_rule(key, value, inputs["beta"], inputs["decay"], [(0, 1), (1, 2)], None)
    later = (key[:, 1] * inputs["beta"][:, 1, ..., None]).mT @ value[:, 1]
    torch.testing.assert_close(both[:, 0] - forward[:, 0], later)
    torch.testing.assert_close(both[:, 1], forward[:, 1])


@pytest.mark.parametrize("backwards", [False, True])
def test_a_composite_does_what_its_frames_do_one_by_one(backwards: bool) -> None:
    torch.manual_seed(0)
    keys = torch.randn(5, 3, 4, 6, dtype=torch.float64) / 5
    steps = FrameUpdates(
        list(torch.rand(5, 3, 1, 1, dtype=torch.float64)),
        list(keys @ keys.mT),
        list(torch.randn(5, 3, 4, 2, dtype=torch.float64)),
    )
    order = range(4, 0, -1) if backwards else range(5)
    state = start = torch.randn(3, 4, 2, dtype=torch.float64)
    for index in order:
        state = steps.advance(state, index)
    factor, term = steps.composite(order)
    torch.testing.assert_close(factor @ start + term, state, atol=1e-13, rtol=1e-13)


def test_single_frame_reads_only_itself() -> None:
    inputs = sample(frames=1)
    output, _ = attend(inputs, [(0, 1)])
    written = inputs["rotated_key"] * inputs["beta"][..., None]
    numerator = inputs["rotated_query"] @ (written.mT @ inputs["value"])
    plain = inputs["key"] * inputs["beta"][..., None]
    denominator = inputs["query"] @ plain.sum(-2).unsqueeze(-1)
    torch.testing.assert_close(output, numerator / (denominator + 1e-8))


@pytest.mark.parametrize("frames", [1, 4])
def test_constant_value_comes_back_unchanged(frames: int) -> None:
    inputs = sample(frames=frames)
    inputs |= {"rotated_query": inputs["query"], "rotated_key": inputs["key"]}
    inputs["value"] = torch.tensor([1.0, -2.0, 0.5, 3.0]).expand_as(inputs["value"])
    output, _ = attend(inputs, [(0, frames)])
    torch.testing.assert_close(output, inputs["value"], atol=1e-3, rtol=1e-3)


def test_segments_compose_into_the_whole_scan() -> None:
    inputs = sample()
    key, value, beta, decay = (inputs[name] for name in ("rotated_key", "value", "beta", "decay"))
    chunks = CHUNKS["forward only"]
    whole, last = delta_rule(key, value, beta, decay, chunks, None)
    first, state = delta_rule(key[:, :2], value[:, :2], beta[:, :2], decay[:, :2], chunks[:2], None)
    second, end = delta_rule(key[:, 2:], value[:, 2:], beta[:, 2:], decay[:, 2:], chunks[:3], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, last)


def largest_gain(scale: float, tokens: int, width: int) -> float:
    """Return the spectral norm of a frame's state transition for random normed keys."""
    torch.manual_seed(1)
    key = torch.randn(tokens, width)
    key = (key / key.square().mean(-1, keepdim=True).sqrt()).relu() * scale
    transition = torch.eye(width) - 0.993 * key.T @ key
    return float(torch.linalg.matrix_norm(transition, 2))


def test_frame_key_scale_keeps_the_state_from_growing() -> None:
    tokens, width = 880, 112
    assert largest_gain((tokens * width) ** -0.5, tokens, width) <= 1
    assert largest_gain(width**-0.5, tokens, width) > 1


def test_write_limit_keeps_strong_writes_from_growing_the_state_and_leaves_weak_ones_alone():
    torch.manual_seed(0)
    key, value = torch.rand(1, 60, 1, 10, 8), torch.randn(1, 60, 1, 10, 8)
    beta, decay = torch.ones(1, 60, 1, 10), torch.ones(1, 60, 1)
    chunks = [(n, n + 1) for n in range(60)]
    _, free = delta_rule(key, value, beta, decay, chunks, None)
    _, held = delta_rule(key, value, beta, decay, chunks, None, write_limit=1.9)
    assert not bool(free.isfinite().all())
    assert float(held.norm()) < 1e3
    weak = 0.1 * key
    plain = delta_rule(weak, value, beta, decay, chunks, None)
    limited = delta_rule(weak, value, beta, decay, chunks, None, write_limit=1.9)
    torch.testing.assert_close(plain, limited, rtol=0, atol=0)


@pytest.mark.parametrize("name", CHUNKS)
def test_without_erasing_or_forgetting_it_is_linear_attention_over_the_visible_frames(name):
    inputs, chunks = sample(), CHUNKS[name]
    inputs |= {"beta": torch.ones_like(inputs["beta"]), "decay": torch.ones_like(inputs["decay"])}
    output, _ = frame_attention(**inputs, chunks=chunks, erases=False)  # pyright: ignore[reportArgumentType]
    for start, stop in chunks:
        for frame in range(start, stop):
            # Everything up to the end of the frame's own chunk, each token once.
            key, rotated_key, value = (
                inputs[part][:, :stop].transpose(1, 2).flatten(2, 3).double()
                for part in ("key", "rotated_key", "value")
            )
            weights = inputs["rotated_query"][:, frame].double() @ rotated_key.mT
            total = (inputs["query"][:, frame].double() @ key.mT).sum(-1, keepdim=True)
            expected = weights @ value / (total + 1e-8)
            # Rotated weights of either sign cancel, so sums lose a digit more than elsewhere.
            torch.testing.assert_close(output[:, frame].double(), expected, rtol=1e-3, atol=1e-3)
