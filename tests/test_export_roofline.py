"""The speed model counts what the layers do, and its bound is the peaks' own."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxscript")
from engine.machine.cards import CARDS
from engine.machine.refiner_cost import refiner_cost
from export.roofline import Roofline, refiner_rows, roofline
from model.config import pocket


@pytest.fixture(scope="module")
def bound() -> Roofline:
    return roofline("pocket", "rtx5090", "nvfp4")


def test_low_layers_are_counted_by_hand_alike(bound: Roofline) -> None:
    config = pocket()
    width, tokens, text = config.hidden_size, config.tokens_per_frame, config.text_length
    per_token = width * width * (3 + 1 + 1 + 1 + 1) + width * config.inner_size * 3
    products = config.num_layers * (tokens * per_token + text * 2 * width * width)
    row = next(row for row in bound.rows if (row.part, row.precision) == ("denoiser", "nvfp4"))
    assert row.operations == 2 * products * bound.passes
    weights = config.num_layers * (9 * width * width + 3 * width * config.inner_size)
    assert row.num_bytes == weights * 4.5 / 8 * bound.passes


def test_the_bound_is_the_slower_of_arithmetic_and_memory(bound: Roofline) -> None:
    card = CARDS["rtx5090"]
    for part, time in bound.part_ms.items():
        rows = [row for row in bound.rows if row.part == part]
        memory = 1e3 * sum(row.num_bytes for row in rows) / card.bytes_per_s
        arithmetic = 1e3 * sum(
            row.operations / card.operations_per_s.get(row.precision, 1.0) for row in rows if row.operations
        )
        assert time == pytest.approx(max(memory, arithmetic))
    assert bound.bound_ms == pytest.approx(sum(bound.part_ms.values()))
    assert bound.to_dict()["estimate"] is True


def test_attention_is_counted(bound: Roofline) -> None:
    bf16 = next(row for row in bound.rows if (row.part, row.precision) == ("denoiser", "bf16"))
    config = pocket()
    cross = config.num_layers * 4 * config.tokens_per_frame * config.text_length * config.hidden_size
    camera = config.num_layers * 2 * config.tokens_per_frame * 7 * config.hidden_size**2
    assert bf16.operations > bound.passes * (cross + camera)


def test_unknown_cards_and_models_are_named() -> None:
    with pytest.raises(ValueError, match="rtx5090"):
        roofline("pocket", "abacus", "nvfp4")
    with pytest.raises(ValueError, match="pocket"):
        roofline("giant", "rtx5090", "nvfp4")


def test_the_refiner_is_counted_by_its_cost() -> None:
    cost, card = refiner_cost("nvfp4"), CARDS["rtx5090"]
    rows = refiner_rows(cost, card)
    assert sum(row.compute_ms for row in rows) == pytest.approx(cost.compute_ms(card.operations_per_s))
    assert sum(row.memory_ms for row in rows) == pytest.approx(cost.memory_ms(card.bytes_per_s))
    with pytest.raises(ValueError, match="pocket has none"):
        roofline("pocket", "rtx5090", "nvfp4", refiner=True)
