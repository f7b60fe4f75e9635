"""`flaneur export refiner`: the released second stage as ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json, Overwrite, pixels
from cli.report import extra_needed, print_json, print_table, stages
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from export.quantization.layers import Algorithm

EXIT_DIFFERENT = 1

Window = Annotated[
    int | None, typer.Option(min=2, help="Latent frames that a block sees besides its own; default: 11.")
]
BlockSize = Annotated[
    int, typer.Option(min=1, help="Latent frames refined at a time: the first stage's chunk.")
]
SegmentSize = Annotated[int, typer.Option(min=1, help="Blocks of the network in one graph.")]
HalfState = Annotated[
    bool, typer.Option("--half-state", help="Keep keys and values in float16: half the memory.")
]
HalfWeights = Annotated[
    bool, typer.Option("--half-weights", help="Round the weights to float16: half the size.")
]
AsOption = Annotated[
    bool, typer.Option("--option", help="Leave chunks as they are under --refiner auto until asked.")
]
Lora = Annotated[
    Path | None, typer.Option(help="LoRA of `flaneur train refiner` to merge into the weights first.")
]
NumVerified = Annotated[
    int, typer.Option(min=0, help="Hold this many blocks of latents against PyTorch afterwards.")
]


def refiner(
    weights: Annotated[Path, typer.Argument(help="The release's refiner folder, or its single file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path("refiner-fp32"),
    frame_size: Annotated[str, typer.Option(help="Pixels of a frame.")] = "1280x704",
    fps: Annotated[float, typer.Option(help="Video frames per second.")] = 16.0,
    window: Window = None,
    block: BlockSize = 3,
    segment: SegmentSize = 12,
    half_state: HalfState = False,
    half_weights: HalfWeights = False,
    option: AsOption = False,
    adapter: Lora = None,
    verify: NumVerified = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Export a refiner to graphs for ONNX Runtime; exit status 1 if they differ too much from PyTorch."""
    check_absent(output, overwrite)
    size = pixels(frame_size)
    with extra_needed("exporting", "export"):
        from export.refiner.released import export_released
    with stages() as stage:

        def report(what: str) -> None:
            stage(what, None)

        made = export_released(
            weights,
            output,
            size,
            fps,
            window,
            segment,
            half_state,
            verify,
            report,
            adapter,
            block,
            half_weights,
            not option,
        )
    result = {
        "path": str(output),
        "sha256": made.folder.sha256,
        "segments": len(made.folder.spec.segments),
        "audio_tensors_skipped": made.num_audio_tensors,
    }
    if made.report is not None:
        result |= made.report.to_dict()
    print_json(result) if as_json else print_table(result)
    return 0 if made.report is None or made.report.passed else EXIT_DIFFERENT


def is_refiner(name: str) -> bool:
    """Whether a name is the folder of an exported refiner."""
    from engine.files.refiner import REFINER_FILE

    return (Path(name) / REFINER_FILE).is_file()


def described(folder: Path, as_json: bool) -> dict[str, Any] | str:
    """Say in a line what a bundle's refiner is; with `as_json`, all that it says of itself."""
    from engine.files.refiner import open_refiner

    opened = open_refiner(folder)
    spec = opened.spec
    if as_json:
        return {"path": str(folder), "sha256": opened.sha256, **spec.model_dump(mode="json")}
    size = sum((folder / name).stat().st_size for name in spec.files) / 2**20
    shown = "shown the spatial memory" if spec.memory_channels else "shown no memory"
    return f"{spec.use}; {size:.1f} MiB, from noise level {spec.sigmas[0]:g}, {shown}"


def show_folder(folder: Path, as_json: bool) -> None:
    """Print what an exported refiner says of itself."""
    full = described(folder, as_json=True)
    assert isinstance(full, dict)
    if as_json:
        print_json(full)
        return
    for name in ("model", "layer_groups", "state", "segments"):
        del full[name]
    print_table(full | {"use": described(folder, as_json=False)})


def build_plans(
    folder: Path,
    output: Path | None,
    target: str,
    precision: str,
    weights: Path | None,
    algorithm: Algorithm,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Build an exported refiner for a GPU, and print what it became."""
    from engine.files.refiner import open_refiner

    opened = open_refiner(folder)
    with extra_needed("building an engine", "export"):
        from export.quantization.layers import low_precision
        from export.refiner.plans import refiner_recipe
        from export.refiner.released import build_exported
    low = low_precision(precision, hadamard=False)
    output = output or Path(f"{folder.name.removesuffix('-fp32')}-{low}")
    check_absent(output, overwrite)
    with stages() as stage:
        made = build_exported(opened, weights, output, target, refiner_recipe(low, algorithm), stage)
    sizes = {name: (made.path / name).stat().st_size for name in made.spec.files}
    result = {"path": str(output), "sha256": made.sha256, "target": target, "precision": low}
    result |= {"activation_scales": made.spec.activation_scales, "bytes": sum(sizes.values())}
    print_json(result | {"file_bytes": sizes}) if as_json else print_table(result)


def verify_folder(
    folder: Path, weights: Path, low: str | None, algorithm: Algorithm, num_blocks: int, as_json: bool
) -> int:
    """Hold an exported refiner against PyTorch, or a low precision of it against float32; returns the exit status."""
    from engine.files.refiner import open_refiner

    opened = open_refiner(folder)
    with extra_needed("verifying a refiner", "export"):
        from export.quantization.layers import low_precision
        from export.refiner.plans import refiner_recipe
        from export.refiner.released import measure_exported, verify_exported
    if low is None:
        report = verify_exported(opened, weights, num_blocks)
    else:
        report = measure_exported(
            opened, weights, refiner_recipe(low_precision(low, False), algorithm), num_blocks
        )
    print_json(report.to_dict()) if as_json else print_table(report.to_dict())
    return 0 if report.passed else EXIT_DIFFERENT
