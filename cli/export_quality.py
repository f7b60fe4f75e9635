"""What low precision costs, printed for `flaneur export verify --against fp32`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.report import extra_needed, print_json, print_rows, stages

if TYPE_CHECKING:
    from engine.files.bundle import EngineSpec
    from export.quantization.layers import Algorithm
    from export.quantization.quality import QualityReport

EXIT_DIFFERENT = 1
SHOWN_LAYERS = 8


@dataclass(frozen=True)
class Asked:
    """A recipe as options say it."""

    precision: str
    algorithm: Algorithm
    hadamard: bool
    layers: Path | None
    """File of a layer table; the default table where None."""


def verify_quality(
    spec: EngineSpec, source: str, asked: Asked, num_chunks: int, pictures: Path | None, as_json: bool
) -> int:
    """Print what a precision costs the network; returns the exit status."""
    with extra_needed("measuring a precision", "export"):
        from export.quantization.layers import Recipe, low_precision
        from export.quantization.quality import measure_quality
        from export.quantization.table import read_rules
    low = low_precision(asked.precision, asked.hadamard)
    recipe = Recipe(low, asked.algorithm, asked.hadamard, read_rules(asked.layers, spec.weights_sha256))
    with stages() as stage:
        quality = measure_quality(spec, source, recipe, num_chunks, pictures, stage)
    if as_json:
        print_json({"passed": quality.passed, "weights_sha256": spec.weights_sha256, **quality.to_dict()})
    else:
        print(f"weights {spec.weights_sha256[:12]}, {num_chunks} chunks")
        _print_quality(quality)
    return 0 if quality.passed else EXIT_DIFFERENT


def verify_decoder(spec: EngineSpec, source: str, num_chunks: int, as_json: bool) -> int:
    """Print what FP8 convolutions cost the decoder; returns the exit status."""
    with extra_needed("measuring a precision", "export"):
        from export.quantization.decoder import MAX_LOSS_DB, measure_decoder
    with stages() as stage:
        quality = measure_decoder(spec, source, num_chunks, stage)
    if as_json:
        print_json({"passed": quality.passed, "weights_sha256": spec.weights_sha256, **quality.to_dict()})
    else:
        rows = [
            (
                world.world,
                *(f"{db:.2f} dB" for db in (world.psnr_fp32, world.psnr_bf16, world.psnr_fp8)),
                f"{world.psnr_between:.1f} dB",
            )
            for world in quality.worlds
        ]
        print_rows(("world", "PSNR fp32", "bf16", "fp8", "fp8 of bf16"), rows)
        verdict = "passed" if quality.passed else "too much"
        print(f"{verdict}: fp8 loses at most {quality.loss_db:.2f} dB, {MAX_LOSS_DB:g} dB are allowed")
    return 0 if quality.passed else EXIT_DIFFERENT


def _print_quality(report: QualityReport) -> None:
    from export.quantization.quality import MAX_LOSS_DB

    columns = ("world", "PSNR fp32", report.precision, "loss", "of each other", "rotation", "translation")
    rows = [
        (
            world.world,
            f"{world.psnr_fp32:.2f} dB",
            f"{world.psnr_low:.2f} dB",
            f"{world.loss_db:+.2f} dB",
            f"{world.psnr_between:.1f} dB",
            f"{world.pose_fp32.rotation_deg:.2f} -> {world.pose_low.rotation_deg:.2f} deg",
            f"{world.pose_fp32.translation_m:.3f} -> {world.pose_low.translation_m:.3f} m",
        )
        for world in report.worlds
    ]
    print_rows(columns, rows)
    print()
    chunks = [world.chunks for world in report.worlds]
    means = [
        (
            str(group[0].chunk_index),
            f"{100 * sum(chunk.latent_error for chunk in group) / len(group):.1f} %",
            f"{sum(chunk.psnr_between for chunk in group) / len(group):.1f} dB",
        )
        for group in zip(*chunks, strict=True)
    ]
    print_rows(("chunk", "latents differ by", "pictures of each other"), means)
    print()
    costs = [
        (cost.layer, f"{100 * cost.own_error:.1f} %", f"{100 * cost.velocity_error:.2f} %")
        for cost in report.layers[:SHOWN_LAYERS]
    ]
    print_rows(("costliest layers", "own output", "velocity"), costs)
    print()
    verdict = "passed" if report.passed else "too much"
    print(
        f"{verdict}: {report.precision} ({report.algorithm}) loses at most {report.loss_db:.2f} dB, "
        f"{MAX_LOSS_DB:g} dB are allowed"
    )
