"""`flaneur export`: from a model to a bundle, and what a bundle holds."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json
from cli.engine_bundle import EXPORTED, Hadamard, Precision, engine, is_large, low_precision, show
from cli.extras import extra_needed
from cli.report import print_json, print_table, stages

if TYPE_CHECKING:
    from torch import nn

    from engine.files.bundle import Bundle
    from model.world_model import WorldModel

app = typer.Typer(help="Make, show and verify engine bundles.", no_args_is_help=True)


app.command()(engine)
app.command()(show)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="export")


@app.callback()
def export() -> None:
    """Make, show and verify engine bundles."""


Model = Annotated[str, typer.Option(help="pocket, sana-wm, or a checkpoint with its autoencoder beside it.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="A preset's sizes, weights from a seed.")
]


class Against(StrEnum):
    """What a bundle is verified against."""

    GRAPH = "graph"
    FP32 = "fp32"


MAX_VELOCITY_ERROR = 1e-3
"""Largest difference of a float32 graph's velocity (of order 1) that passes; measured ones stay below 1e-4."""
MAX_FRAME_ERROR = 2
"""Largest difference of a byte of a decoded frame that passes: rounding may fall either way."""
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
    as_json: Json = False,
) -> None:
    """Export a model and its decoder to a bundle for ONNX Runtime."""
    steps = None if timesteps is None else _schedule(timesteps)
    pixels = None if frame_size is None else _pixels(frame_size)
    with extra_needed("exporting", "export"):
        from export.folders import check_destination
        from export.onnx import export_bundle
        from export.sources import RANDOM_WEIGHTS, open_source
    from engine.files.bundle import open_bundle

    output = output or Path(f"{Path(model).stem}{EXPORTED}")
    check_destination(output)
    name, shipped_steps = _shipped(model, random_weights)
    steps = steps or shipped_steps
    world_model, decoder = open_source(name, random_weights, pixels)
    # Without gradients nothing needs to be copied before it is exported.
    for module in (world_model, decoder):
        module.requires_grad_(False)
    schedule: dict[str, Any] = {} if steps is None else {"timesteps": steps}
    notes = RANDOM_WEIGHTS if random_weights else ""
    with stages() as stage:

        def report(what: str) -> None:
            stage(what, None)

        folder = export_bundle(world_model, decoder, output, notes=notes, progress=report, **schedule)
    bundle = open_bundle(folder)
    result = {"path": str(folder), "name": bundle.spec.name, "sha256": bundle.sha256}
    print_json(result) if as_json else print_table(result)


def _shipped(model: str, random_weights: bool) -> tuple[str, list[float] | None]:
    """Return the checkpoint that a name stands for, and the schedule of its bundle, where both come with Flaneur."""
    from engine.machine.assets import bundle_names, checkpoints_dir, find_bundle

    checkpoint = checkpoints_dir() / f"{model}.safetensors"
    if random_weights or model not in bundle_names() or not checkpoint.is_file():
        return model, None
    return str(checkpoint), list(find_bundle(model, verify=False).spec.timesteps)


def _schedule(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--timesteps takes numbers with commas between them, got {text!r}") from error


def _pixels(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise ValueError(f"--frame-size takes a width and a height such as 640x352, got {text!r}")
    return int(found[1]), int(found[2])


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")],
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
    as_json: Json = False,
) -> int:
    """Hold a bundle's graphs against PyTorch, chunk by chunk; exit status 1 if they differ too much."""
    from engine.machine.assets import find_bundle

    opened = find_bundle(bundle)
    if timesteps is not None:
        with extra_needed("verifying a bundle", "export"):
            from export.verify import rescheduled
        opened = replace(opened, spec=rescheduled(opened.spec, _schedule(timesteps)))
    if against is Against.FP32:
        from cli.quality import verify_quality

        if random_weights:
            raise ValueError("random weights make no pictures to compare; name a checkpoint with --model")
        passed = verify_quality(
            opened,
            _shipped(model, random_weights)[0],
            low_precision(precision, hadamard),
            hadamard,
            chunks or 20,
            pictures,
            as_json,
        )
        return 0 if passed else EXIT_DIFFERENT
    return _verify_graphs(opened, model, random_weights, chunks or 4, as_json)


def _verify_graphs(bundle: Bundle, model: str, random_weights: bool, chunks: int, as_json: bool) -> int:
    with extra_needed("verifying a bundle", "export"):
        from export.sources import open_source
        from export.verify import check_sizes, verify_bundle
    from engine.backends.onnxruntime import OnnxRuntimeBackend
    from engine.machine.hardware import num_cores

    if bundle.spec.is_plan:
        raise ValueError(
            f"this bundle was built for {bundle.spec.target}; verify the bundle it was built from, or use --against fp32"
        )
    large = is_large(bundle)
    threads = num_cores() if large else 1

    def open_model() -> tuple[WorldModel, nn.Module]:
        pixels = bundle.spec.frame_width, bundle.spec.frame_height
        world_model, decoder = open_source(_shipped(model, random_weights)[0], random_weights, pixels)
        check_sizes(bundle.spec, world_model.config)
        return world_model, decoder

    def open_runner() -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(bundle, threads, threads, mapped=large)

    with stages() as stage:
        report = verify_bundle(open_model, open_runner, bundle.spec, chunks, stage)
    passed = report.velocity <= MAX_VELOCITY_ERROR and report.frames <= MAX_FRAME_ERROR
    if as_json:
        print_json({"passed": passed, **report.to_dict()})
    else:
        print(
            f"{'equal' if passed else 'different'}: over {chunks} chunks velocity differs by at most "
            f"{report.velocity:.2g}, state by {report.state:.2g}, frames by {report.frames} of 255"
        )
    return 0 if passed else EXIT_DIFFERENT
