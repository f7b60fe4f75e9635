"""What cards can do at best, as their makers publish it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A card's published peaks."""

    title: str
    operations_per_s: Mapping[str, float]
    bytes_per_s: float


CARDS = {
    "rtx5090": Card(
        "GeForce RTX 5090",
        {"nvfp4": 1676e12, "fp8": 419e12, "bf16": 209.5e12, "fp32": 104.8e12},
        1792e9,
    )
}
"""From NVIDIA's description of the RTX Blackwell architecture, without sparsity."""


def find_card(name: str) -> Card:
    """Return a card by name.

    Raises:
        ValueError: Its peaks are not known.
    """
    if name not in CARDS:
        raise ValueError(f"no peaks are known of {name!r}; use {', '.join(CARDS)}")
    return CARDS[name]
