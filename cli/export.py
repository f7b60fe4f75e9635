"""`flaneur export`: from a model to a bundle, from a bundle to an engine, and what a bundle holds."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import (
    AlgorithmChoice,
    CalibrationAlgorithm,
    DecoderPrecision,
    Hadamard,
    Json,
    LayerTable,
    Model,
    Overwrite,
    Precision,
    Student,
    pixels,
)
from cli.export_quality import Asked, open_student, search, verify_decoder, verify_quality
from cli.export_refiner import (
    build_plans,
    described,
    is_refiner,
    refiner,
    show_folder,
    verify_folder,
)
from cli.report import extra_needed, print_json, print_rows, print_table, say, stages
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from engine.files.bundle import EngineSpec
    from export.verify import VerifyReport

app = typer.Typer(help="Make, show and verify engine bundles.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="export")


@app.callback()
def export() -> None:
    """Make, show and verify engine bundles."""


class Against(StrEnum):
    """What a bundle is verified against."""

    GRAPH = "graph"
    FP32 = "fp32"


RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="A preset's sizes, weights from a seed.")
]
NamedBundle = Annotated[str, typer.Argument(help="Name or folder of a bundle.")]
EXPORTED = "-fp32"
"""Ends the name of a bundle that `export onnx` makes where no other was asked for."""
EXIT_DIFFERENT = 1


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
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a model and its decoder to a bundle for ONNX Runtime."""
    steps = None if timesteps is None else _schedule(timesteps)
    size = None if frame_size is None else pixels(frame_size)
    with extra_needed("exporting", "export"):
        from export.folders import check_destination
        from export.onnx import export_bundle
        from export.sources import RANDOM_WEIGHTS, depth_graph_beside, open_source, shipped
    from engine.files.bundle import open_bundle

    output = output or Path(f"{Path(model).stem}{EXPORTED}")
    check_destination(output)
    check_absent(output, overwrite)
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
            depth=None if random_weights or size else depth_graph_beside(model),
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


Bundle = Annotated[str, typer.Argument(help="Name or folder of a bundle of `export onnx`.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to make; default: such as pocket-nvfp4, here."),
]
Target = Annotated[str, typer.Option(help="sm120 for an RTX 5090 (sm75 to sm121), or cpu.")]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="nvfp4, fp8, int8 or bf16 on a GPU; fp32 or fp16 on a cpu.")
]
DecoderPrecisionOption = Annotated[
    DecoderPrecision, typer.Option(help="Of the decoder's convolutions on a GPU.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="What was exported, to calibrate on; default: the shipped checkpoint, or one magnitude for a refiner's layers."
    ),
]


@app.command()
def engine(
    bundle: Bundle = f"pocket{EXPORTED}",
    output: Output = None,
    target: Target = "sm120",
    precision: PrecisionOption = None,
    decoder_precision: DecoderPrecisionOption = DecoderPrecision.BF16,
    algorithm: CalibrationAlgorithm = AlgorithmChoice.MAX,
    hadamard: Hadamard = False,
    layers: LayerTable = None,
    student: Student = None,
    weights: Weights = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a bundle or an exported refiner into one for a GPU, which need not be here; a bundle also for ONNX Runtime."""
    from engine.files.bundle import CPU, open_bundle
    from engine.machine.assets import find_bundle

    chosen = precision or (Precision.FP32 if target == CPU else Precision.NVFP4)
    if decoder_precision is DecoderPrecision.FP8 and (target == CPU or is_refiner(bundle)):
        raise ValueError("--decoder-precision is for bundles with a decoder, built for a GPU; leave it out")
    if is_refiner(bundle):
        if hadamard:
            raise ValueError("a refiner is not rotated; leave --hadamard out")
        build_plans(Path(bundle), output, target, chosen.value, weights, algorithm.value, overwrite, as_json)
        return
    opened = find_bundle(bundle)
    output = output or Path(f"{opened.path.name.removesuffix(EXPORTED)}-{chosen.value}")
    check_absent(output, overwrite)
    with extra_needed("building an engine", "export"):
        from export.engine import build_bundle, build_graphs, chosen_recipe
        from export.quantization.layers import rules_for
    rules = rules_for(layers, opened.spec.name, opened.spec.weights_sha256, say)
    recipe = chosen_recipe(target, chosen.value, hadamard, algorithm.value, rules)
    with stages() as stage:
        if recipe is None:
            folder = build_graphs(opened, output, chosen is Precision.FP16, stage)
        else:
            folder = build_bundle(
                opened,
                output,
                target,
                recipe,
                str(weights or "pocket"),
                stage,
                say,
                open_student(student),
                decoder_precision.value,
            )
    if not as_json:
        show(str(folder))
        return
    made = open_bundle(folder, verify=False)
    fields = {name: getattr(made.spec, name) for name in ("name", "target", "precision", "weight_bytes")}
    print_json({"path": str(folder), "sha256": made.sha256, "file_bytes": made.file_bytes, **fields})


@app.command()
def show(bundle: NamedBundle, as_json: Json = False) -> None:
    """Show what a bundle or an exported refiner says of itself, and check its files."""
    from engine.files.refiner import bundled_refiner
    from engine.machine.assets import find_bundle

    if is_refiner(bundle):
        show_folder(Path(bundle), as_json)
        return
    opened = find_bundle(bundle)
    spec = opened.spec
    result = {"path": str(opened.path), "sha256": opened.sha256, **spec.model_dump(mode="json")}
    if (folder := bundled_refiner(opened)) is not None:
        result["refiner"] = described(folder, as_json)
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
        Against, typer.Option(help="graph: the same arithmetic. fp32: what low precision costs.")
    ] = Against.GRAPH,
    precision: Annotated[Precision, typer.Option(help="To hold against fp32.")] = Precision.NVFP4,
    algorithm: CalibrationAlgorithm = AlgorithmChoice.MAX,
    hadamard: Hadamard = False,
    layers: LayerTable = None,
    student: Student = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write frames, fp32 above the low precision, to this .png.")
    ] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="Step schedule to follow, such as 1000; default: the bundle's.")
    ] = None,
    decoder: Annotated[
        bool, typer.Option("--decoder", help="The decoder's convolutions in fp8, against fp32.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Hold the graphs of a bundle, or of an exported refiner, against PyTorch; exit status 1 if they differ too much.

    For a refiner --model names the weights that it was exported from, and --chunks counts blocks of latents.
    """
    from engine.machine.assets import find_bundle

    check_absent(pictures, overwrite)
    if is_refiner(bundle):
        low = precision.value if against is Against.FP32 else None
        return verify_folder(Path(bundle), Path(model), low, algorithm.value, chunks or 4, as_json)
    opened = find_bundle(bundle)
    with extra_needed("verifying a bundle", "export"):
        from export.sources import shipped
        from export.verify import rescheduled, verify_source
    if timesteps is not None:
        opened = replace(opened, spec=rescheduled(opened.spec, _schedule(timesteps)))
    source, _ = shipped(model, random_weights)
    if random_weights and (decoder or against is Against.FP32):
        raise ValueError("random weights make no pictures to compare; name a checkpoint with --model")
    if decoder:
        return verify_decoder(opened.spec, source, chunks or 20, as_json)
    if against is Against.GRAPH:
        with stages() as stage:
            report = verify_source(opened, source, random_weights, chunks or 4, stage)
        _print_verdict(report, as_json)
        return 0 if report.passed else EXIT_DIFFERENT
    asked = Asked(precision.value, algorithm.value, hadamard, layers, student)
    return verify_quality(opened.spec, source, asked, chunks or 20, pictures, as_json)


def _print_verdict(report: VerifyReport, as_json: bool) -> None:
    if as_json:
        print_json({"passed": report.passed, **report.to_dict()})
    else:
        print(
            f"{'equal' if report.passed else 'different'}: over {len(report.chunks) - 1} chunks velocity differs "
            f"by at most {report.velocity:.2g}, state by {report.state:.2g}, frames by {report.frames} of 255, "
            f"inverse depth by {report.inverse_depth:.2g}/m"
        )


app.command("refiner")(refiner)
app.command("search")(search)
