"""`flaneur bench --roofline CARD`: the speed that a card's published peaks allow; an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.extras import extra_needed
from cli.report import print_json, print_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.machine.bench import BenchReport
    from export.quantization.layers import Low

PARTS = {"denoiser": ("denoise_ms", "commit_ms"), "decoder": ("decode_ms",)}
"""Stages of a measurement that make up each part of the estimate."""


def print_roofline(
    card: str, model: str, low: Low, refiner: bool, measured: BenchReport | None, as_json: bool
) -> None:
    """Print the bound of a preset on a card, and beside it what was measured on this machine, if it was."""
    with extra_needed("counting operations", "export"):
        from export.roofline import ASSUMPTIONS, PUBLISHED, roofline

    bound = roofline(model, card, low, refiner=refiner)
    here = {} if measured is None else _measured(measured)
    if as_json:
        print_json({**bound.to_dict(), "measured_ms": here})
        return
    print(
        f"Estimate, not a measurement: {bound.model} in {bound.precision} on a {bound.card}, one chunk of {bound.chunk_s:g} s"
    )
    print()
    rows = [
        (
            row.part,
            row.precision,
            f"{row.operations / 1e12:.2f}",
            f"{row.num_bytes / 1e9:.2f}",
            f"{row.compute_ms:.1f}",
            f"{row.memory_ms:.1f}",
        )
        for row in bound.rows
    ]
    print_rows(("part", "precision", "10^12 operations", "GB", "ms at peak", "ms of memory"), rows)
    print()
    lines = [
        (part, f"{time:.1f} ms", f"{here[part]:.1f} ms" if part in here else "not measured")
        for part, time in bound.part_ms.items()
    ]
    total = f"{sum(here.values()):.1f} ms" if here else "not measured"
    print_rows(
        ("no kernel could beat", "", "on this machine"),
        [*lines, ("together", f"{bound.bound_ms:.1f} ms", total)],
    )
    minute = 60 / bound.chunk_s * bound.bound_ms / 1e3
    print(f"a minute of video: at least {minute:.1f} s at these peaks ({bound.passes} passes a chunk)")
    for assumption in ASSUMPTIONS:
        print(f"- {assumption}")
    if model == "sana-wm" and card in PUBLISHED:
        print("\nwhat SANA-WM's authors report for a minute on this card, with their own kernels:")
        print_rows(("", ""), PUBLISHED[card])


def _measured(report: BenchReport) -> Mapping[str, float]:
    return {part: sum(report.stages[stage].p50 for stage in stages) for part, stages in PARTS.items()}
