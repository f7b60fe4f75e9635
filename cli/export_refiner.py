"""`flaneur export refiner`: the released second stage as ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import Json, pixels
from cli.report import extra_needed, print_json, print_table, stages

EXIT_DIFFERENT = 1


def refiner(
    weights: Annotated[Path, typer.Argument(help="The release's refiner folder, or its single file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path("refiner-fp32"),
    frame_size: Annotated[str, typer.Option(help="Pixels of a frame.")] = "1280x704",
    fps: Annotated[float, typer.Option(help="Video frames per second.")] = 16.0,
    window: Annotated[
        int | None, typer.Option(min=2, help="Latent frames that a block sees besides its own; default: 11.")
    ] = None,
    segment: Annotated[int, typer.Option(min=1, help="Blocks of the network in one graph.")] = 12,
    half_state: Annotated[
        bool, typer.Option("--half-state", help="Keep keys and values in float16: half the memory.")
    ] = False,
    verify: Annotated[
        int, typer.Option(min=0, help="Hold this many blocks of latents against PyTorch afterwards.")
    ] = 0,
    as_json: Json = False,
) -> int:
    """Export a refiner to graphs for ONNX Runtime; exit status 1 if they differ too much from PyTorch."""
    width, height = pixels(frame_size)
    with extra_needed("exporting", "export"):
        from export.folders import check_destination
        from export.refiner.folder import export_refiner
        from export.refiner.graphs import Sizes
        from export.refiner.verify import verify_refiner
        from model.refiner import load_refiner
        from model.refiner.streaming import BLOCK_SIZE, WINDOW
    from engine.backends.onnxruntime import OnnxRuntimeGraphs
    from engine.files.refiner import REFINER_FILE, open_refiner
    from engine.machine.hardware import num_cores

    check_destination(output, REFINER_FILE)
    loaded = load_refiner(weights)
    _, row_px, column_px = loaded.model.config.vae_scale_factors
    if width % column_px or height % row_px:
        raise ValueError(
            f"--frame-size {frame_size} is no multiple of {column_px}x{row_px}; use such as 1280x704"
        )
    sizes = Sizes((height // row_px, width // column_px), fps, BLOCK_SIZE, window or WINDOW, half_state)
    with stages() as stage:

        def report(what: str) -> None:
            stage(what, None)

        export_refiner(loaded.model, output, sizes, segment, progress=report)
    folder = open_refiner(output)
    result = {
        "path": str(output),
        "sha256": folder.sha256,
        "segments": len(folder.spec.segments),
        "audio_tensors_skipped": loaded.num_audio_tensors,
    }
    passed = True
    if verify:
        runner = OnnxRuntimeGraphs(folder, num_cores())
        found = verify_refiner(folder, runner, loaded.model.float(), verify)
        passed = found.passed
        result |= {"verified": "equal" if passed else "different"} | found.to_dict()
    print_json(result) if as_json else print_table(result)
    return 0 if passed else EXIT_DIFFERENT
