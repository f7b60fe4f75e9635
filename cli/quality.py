"""`flaneur export verify --against fp32`: what an engine's low precision costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.extras import extra_needed
from cli.report import print_json, print_rows, progress

if TYPE_CHECKING:
    from engine.files.bundle import Bundle
    from export.quantization.layers import Low
    from export.quantization.quality import QualityReport

MAX_LOSS_DB = 1.0
"""Decoded PSNR against float32 that low precision may lose in the worst world."""
SHOWN_LAYERS = 8
SHEET_WORLDS = 3


def verify_quality(
    bundle: Bundle,
    model: str,
    precision: Low,
    hadamard: bool,
    chunks: int,
    pictures: Path | None,
    as_json: bool,
) -> bool:
    """Emulate a precision on held-out walks through the shipped worlds and print what it costs.

    Returns:
        Whether the loss is within `MAX_LOSS_DB`.
    """
    with extra_needed("measuring a precision", "train"):
        from evaluation.scores import contact_sheet
        from export.quantization.quality import Comparison
        from export.scenes import held_out_scenes
        from export.sources import open_source
        from export.verify import check_sizes

    spec = bundle.spec
    world_model, decoder = open_source(model, random_weights=False)
    scenes = held_out_scenes(spec.weights_sha256, 1 + chunks * spec.frames_per_chunk, spec.fps)
    check_sizes(spec, world_model.config)
    comparison = Comparison(world_model, decoder, spec, chunks)
    with progress(f"emulating {precision}", comparison.num_steps(scenes, precision)) as bar:
        report, films = comparison.measure(scenes, precision, hadamard, bar)
    if pictures is not None:
        rows = [row for film in films[:SHEET_WORLDS] for row in (film.fp32, film.low)]
        contact_sheet(rows, spec.fps, pictures)
    passed = report.loss_db <= MAX_LOSS_DB
    if as_json:
        print_json({"passed": passed, "weights_sha256": spec.weights_sha256, **report.to_dict()})
    else:
        print(f"weights {spec.weights_sha256[:12]}, {chunks} chunks")
        _print(report, passed)
    return passed


def _print(report: QualityReport, passed: bool) -> None:
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
    verdict = "passed" if passed else "too much"
    print(
        f"{verdict}: {report.precision} loses at most {report.loss_db:.2f} dB, {MAX_LOSS_DB:g} dB are allowed"
    )
