"""What low precision costs, and which layers need more bits: `flaneur export verify --against fp32` and `export search`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import Json, Model, Overwrite
from cli.report import extra_needed, print_json, print_rows, say, stages
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from engine.files.bundle import EngineSpec
    from export.quantization.layers import Algorithm
    from export.quantization.quality import QualityReport
    from model.world_model import WorldModel

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
    student: Path | None = None
    """Checkpoint of `flaneur train qad`, quantised in the place of the model's own weights."""


def verify_quality(
    spec: EngineSpec, source: str, asked: Asked, num_chunks: int, pictures: Path | None, as_json: bool
) -> int:
    """Print what a precision costs the network; returns the exit status."""
    with extra_needed("measuring a precision", "export"):
        from export.quantization.layers import Recipe, low_precision, rules_for
        from export.quantization.quality import measure_quality
    low = low_precision(asked.precision, asked.hadamard)
    rules = rules_for(asked.layers, spec.name, spec.weights_sha256, say)
    recipe = Recipe(low, asked.algorithm, asked.hadamard, rules)
    student = open_student(asked.student)
    with stages() as stage:
        quality = measure_quality(spec, source, recipe, num_chunks, pictures, stage, student)
    if as_json:
        print_json({"passed": quality.passed, "weights_sha256": spec.weights_sha256, **quality.to_dict()})
    else:
        print(f"weights {spec.weights_sha256[:12]}, {num_chunks} chunks")
        _print_quality(quality)
    return 0 if quality.passed else EXIT_DIFFERENT


def open_student(path: Path | None) -> WorldModel | None:
    """Read the network of a checkpoint of `train qad`; None where there is no path."""
    if path is None:
        return None
    from training.stages.model_file import GENERATOR, load_models

    return load_models(path)[GENERATOR].world.eval().requires_grad_(False)


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


def search(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")] = "pocket",
    bits: Annotated[
        list[float] | None,
        typer.Option(help="Bits of a weight on average, at most; several with more --bits. Default: 5."),
    ] = None,
    model: Model = "pocket",
    chunks: Annotated[
        int, typer.Option(min=1, help="Chunks to generate in each world, to measure what is found.")
    ] = 20,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for NAME-BITS.layers.json; default: here.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Search which layers keep NVFP4, FP8 or bf16 under a budget, and write a layer table for `export engine --layers`."""
    from engine.machine.assets import find_bundle

    opened = find_bundle(bundle)
    with extra_needed("searching a layer table", "export"):
        from export.quantization.layers import SUFFIX, write_table
        from export.quantization.search import search_source
        from export.sources import shipped
    source, _ = shipped(model, False)
    budgets = bits or [5.0]
    paths = [(output or Path()) / f"{opened.spec.name}-{budget:g}{SUFFIX}" for budget in budgets]
    for path in paths:
        check_absent(path, overwrite)
    with stages() as stage:
        found = search_source(opened.spec, source, budgets, chunks, stage)
    rows, results = [], []
    for path, made in zip(paths, found, strict=True):
        write_table(made.table, path)
        worlds = made.quality.worlds
        mean_db = sum(world.loss_db for world in worlds) / len(worlds)
        by_bits = {"fp8": 0, "bf16": 0} | Counter(made.table.layers.values())
        rows.append(
            (
                f"{made.table.effective_bits:.2f}",
                f"{made.weight_bytes / 2**20:.2f}",
                f"{by_bits['fp8']}, {by_bits['bf16']}",
                f"{made.quality.loss_db:+.2f} dB",
                f"{mean_db:+.2f} dB",
                str(path),
            )
        )
        results.append(
            {
                "path": str(path),
                **made.table.model_dump(),
                "weight_bytes": made.weight_bytes,
                **made.quality.to_dict(),
            }
        )
    if as_json:
        print_json({"tables": results})
    else:
        print_rows(("bits", "MiB", "layers in fp8, bf16", "worst loss", "mean loss", "table"), rows)
