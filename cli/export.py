"""`flaneur export`: from a model to a bundle, from a bundle to an engine, and what a bundle holds."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Hadamard, Json, Precision, pixels
from cli.export_refiner import build_plans, is_refiner, refiner, verify_folder
from cli.report import extra_needed, print_json, print_rows, print_table, say, stages

if TYPE_CHECKING:
    from engine.files.bundle import EngineSpec
    from export.quantization.quality import QualityReport
    from export.verify import VerifyReport

app = typer.Typer(help="Make, show and verify engine bundles.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    app.command("refiner")(refiner)
    root.add_typer(app, name="export")


@app.callback()
def export() -> None:
    """Make, show and verify engine bundles."""


class Against(StrEnum):
    """What a bundle is verified against."""

    GRAPH = "graph"
    FP32 = "fp32"


Model = Annotated[str, typer.Option(help="pocket, sana-wm, or a checkpoint with its autoencoder beside it.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="A preset's sizes, weights from a seed.")
]
NamedBundle = Annotated[str, typer.Argument(help="Name or folder of a bundle.")]
EXPORTED = "-fp32"
"""Ends the name of a bundle that `export onnx` makes where no other was asked for."""
EXIT_DIFFERENT = 1
SHOWN_LAYERS = 8


@app.command()
def onnx(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to make; default: such as pocket-fp32, here."),
    ] = None,
    model: Model = "pocket",
    random_weights: RandomWeights = False,
    timesteps: Annotated[
        str | None, typer.Option(help="Step schedule, such as 1000,727; default: the model's.")
    ] = None,
    frame_size: Annotated[
        str | None, typer.Option(help="Pixels to generate, such as 640x352; default: the model's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model and its decoder to a bundle for ONNX Runtime."""
    steps = None if timesteps is None else _schedule(timesteps)
    size = None if frame_size is None else pixels(frame_size)
    with extra_needed("exporting", "export"):
        from export.folders import check_destination
        from export.onnx import export_bundle
        from export.sources import RANDOM_WEIGHTS, open_source, shipped
    from engine.files.bundle import open_bundle

    output = output or Path(f"{Path(model).stem}{EXPORTED}")
    check_destination(output)
    name, shipped_steps = shipped(model, random_weights)
    steps = steps or shipped_steps
    world_model, decoder = open_source(name, random_weights, size)
    schedule: dict[str, Any] = {} if steps is None else {"timesteps": steps}
    notes = RANDOM_WEIGHTS if random_weights else ""
    with stages() as stage:

        def report(what: str) -> None:
            stage(what, None)

        folder = export_bundle(
            world_model,
            decoder,
            output,
            notes=notes,
            progress=report,
            **schedule,
        )
    bundle = open_bundle(folder)
    result = {"path": str(folder), "name": bundle.spec.name, "sha256": bundle.sha256}
    print_json(result) if as_json else print_table(result)


def _schedule(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--timesteps takes numbers with commas between them, got {text!r}") from error


@app.command()
def engine(
    bundle: Annotated[
        str, typer.Argument(help="Name or folder of a bundle of `export onnx`.")
    ] = f"pocket{EXPORTED}",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to make; default: such as pocket-nvfp4, here."),
    ] = None,
    target: Annotated[str, typer.Option(help="sm120 for an RTX 5090 (sm75 to sm121), or cpu.")] = "sm120",
    precision: Annotated[
        Precision | None, typer.Option(help="nvfp4, fp8 or bf16 on a GPU; fp32 or fp16 on a cpu.")
    ] = None,
    hadamard: Hadamard = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Of an exported refiner, to calibrate on; default: one magnitude for all layers."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a bundle or an exported refiner into one for a GPU, which need not be here; a bundle also for ONNX Runtime."""
    from engine.files.bundle import CPU, open_bundle
    from engine.machine.assets import find_bundle

    chosen = precision or (Precision.FP32 if target == CPU else Precision.NVFP4)
    if is_refiner(bundle):
        if hadamard:
            raise ValueError("a refiner is not rotated; leave --hadamard out")
        build_plans(Path(bundle), output, target, chosen.value, weights, as_json)
        return
    if weights is not None:
        raise ValueError("--weights is for an exported refiner; a bundle is calibrated on its worlds")
    opened = find_bundle(bundle)
    output = output or Path(f"{opened.path.name.removesuffix(EXPORTED)}-{chosen.value}")
    with extra_needed("building an engine", "export"):
        from export.engine import build_bundle
    with stages() as stage:
        folder = build_bundle(opened, output, target, chosen.value, hadamard, stage, say)
    if not as_json:
        show(str(folder))
        return
    made = open_bundle(folder, verify=False)
    fields = {name: getattr(made.spec, name) for name in ("name", "target", "precision", "weight_bytes")}
    print_json({"path": str(folder), "sha256": made.sha256, "file_bytes": made.file_bytes, **fields})


@app.command()
def show(bundle: NamedBundle, as_json: Json = False) -> None:
    """Show what a bundle says of itself, and check its files."""
    from engine.machine.assets import find_bundle

    opened = find_bundle(bundle)
    spec = opened.spec
    result = {"path": str(opened.path), "sha256": opened.sha256, **spec.model_dump(mode="json")}
    if as_json:
        print_json(result)
        return
    for name in ("model", "layer_groups"):
        del result[name]
    for name, tensors in (("state", spec.state), ("decoder_caches", spec.decoder_caches)):
        size = sum(tensor.num_bytes for tensor in tensors) / 2**20
        result[name] = f"{len(tensors)} tensors, {size:.1f} MiB"
    result["precision"] = ", ".join(f"{part} {precision}" for part, precision in spec.precision.items())
    sizes = opened.file_bytes.items()
    result["files"] = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in sizes)
    weights = spec.weight_bytes.items()
    result["weights"] = ", ".join(f"{name} {size / 2**20:.2f} MiB" for name, size in weights)
    print_table(result)
    if spec.layer_groups:
        print()
        _print_layers(spec)


def _print_layers(spec: EngineSpec) -> None:
    rows = [
        (
            group.pattern,
            group.precision,
            str(group.num_layers),
            f"{group.weight_bytes / 2**20:.2f}",
            group.why,
        )
        for group in spec.layer_groups
    ]
    print_rows(("layers", "precision", "number", "MiB", "why"), rows)


@app.command()
def verify(
    bundle: NamedBundle,
    model: Model = "pocket",
    random_weights: RandomWeights = False,
    chunks: Annotated[
        int | None,
        typer.Option(min=1, help="Chunks to generate: 4, or 20 against fp32; faults hide in later ones."),
    ] = None,
    against: Annotated[
        Against, typer.Option(help="graph: the same arithmetic. fp32: what low precision costs, emulated.")
    ] = Against.GRAPH,
    precision: Annotated[Precision, typer.Option(help="To emulate against fp32.")] = Precision.NVFP4,
    hadamard: Hadamard = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Write frames, fp32 above the emulated precision, to this .png.")
    ] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="Step schedule to follow, such as 1000; default: the bundle's.")
    ] = None,
    decoder: Annotated[
        bool, typer.Option("--decoder", help="Emulate fp8 in the decoder's convolutions, against fp32.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Hold the graphs of a bundle, or of an exported refiner, against PyTorch; exit status 1 if they differ too much.

    For a refiner --model names the weights that it was exported from, and --chunks counts blocks of latents.
    """
    from engine.machine.assets import find_bundle

    if is_refiner(bundle):
        low = precision.value if against is Against.FP32 else None
        return verify_folder(Path(bundle), Path(model), low, chunks or 4, as_json)
    opened = find_bundle(bundle)
    with extra_needed("verifying a bundle", "export"):
        from export.sources import shipped
        from export.verify import rescheduled, verify_source
    if timesteps is not None:
        opened = replace(opened, spec=rescheduled(opened.spec, _schedule(timesteps)))
    source, _ = shipped(model, random_weights)
    if decoder:
        return _verify_decoder(opened.spec, source, random_weights, chunks or 20, as_json)
    if against is Against.GRAPH:
        with stages() as stage:
            report = verify_source(opened, source, random_weights, chunks or 4, stage)
        _print_verdict(report, as_json)
        return 0 if report.passed else EXIT_DIFFERENT
    if random_weights:
        raise ValueError("random weights make no pictures to compare; name a checkpoint with --model")
    with extra_needed("measuring a precision", "train"):
        from export.quantization.layers import low_precision
        from export.quantization.quality import measure_quality
    low, num_chunks = low_precision(precision.value, hadamard), chunks or 20
    with stages() as stage:
        quality = measure_quality(opened.spec, source, low, hadamard, num_chunks, pictures, stage)
    weights = opened.spec.weights_sha256
    if as_json:
        print_json({"passed": quality.passed, "weights_sha256": weights, **quality.to_dict()})
    else:
        print(f"weights {weights[:12]}, {num_chunks} chunks")
        _print_quality(quality)
    return 0 if quality.passed else EXIT_DIFFERENT


def _verify_decoder(
    spec: EngineSpec, source: str, random_weights: bool, num_chunks: int, as_json: bool
) -> int:
    """Print what FP8 convolutions cost the decoder."""
    if random_weights:
        raise ValueError("random weights make no pictures to compare; name a checkpoint with --model")
    with extra_needed("measuring a precision", "train"):
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


def _print_verdict(report: VerifyReport, as_json: bool) -> None:
    if as_json:
        print_json({"passed": report.passed, **report.to_dict()})
    else:
        print(
            f"{'equal' if report.passed else 'different'}: over {len(report.chunks) - 1} chunks velocity differs "
            f"by at most {report.velocity:.2g}, state by {report.state:.2g}, frames by {report.frames} of 255, "
            f"inverse depth by {report.inverse_depth:.2g}/m"
        )


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
        f"{verdict}: {report.precision} loses at most {report.loss_db:.2f} dB, {MAX_LOSS_DB:g} dB are allowed"
    )
