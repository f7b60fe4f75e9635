"""`flaneur export engine` and `show`: bundles for one target, and what they hold."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json
from cli.extras import extra_needed
from cli.report import print_json, print_rows, print_table, say, stages

if TYPE_CHECKING:
    from engine.files.bundle import Bundle, EngineSpec
    from export.progress import Stage
    from export.quantization.calibration import Calibration, Walks
    from export.quantization.layers import Low


class Precision(StrEnum):
    """Of the large linear layers on a GPU, or of stored weights on a CPU."""

    NVFP4 = "nvfp4"
    FP8 = "fp8"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


CPU = "cpu"
CALIBRATION_CHUNKS = 20
EXPORTED = "-fp32"
"""Ends the name of a bundle that `export onnx` makes where no other was asked for."""
Hadamard = Annotated[
    bool, typer.Option("--hadamard", help="Rotate blocks of 16 before NVFP4 (random Hadamard transform).")
]


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
    as_json: Json = False,
) -> None:
    """Turn a bundle into one for a GPU, which need not be here, or into another for ONNX Runtime."""
    from engine.machine.assets import find_bundle

    if target != CPU and not re.fullmatch(r"sm\d{2,3}", target):
        raise ValueError(f"--target takes cpu or a GPU's compute capability such as sm120, got {target!r}")
    chosen = precision or (Precision.FP32 if target == CPU else Precision.NVFP4)
    low = None if target == CPU else low_precision(chosen, hadamard)
    opened = find_bundle(bundle)
    output = output or Path(f"{opened.path.name.removesuffix(EXPORTED)}-{chosen.value}")
    with extra_needed("building an engine", "export"):
        from export.engine import build_graphs, build_plans, check_source, check_target, load_library
        from export.folders import check_destination
    # Whatever can be refused is refused before minutes of calibration.
    check_source(opened.spec)
    check_destination(output)
    if output.resolve() == opened.path.resolve():
        raise ValueError(f"{output} is the bundle to build from; name another folder")
    with stages() as stage:
        if low is None:
            half = {Precision.FP16: True, Precision.FP32: False}.get(chosen)
            if half is None or hadamard:
                raise ValueError(f"a cpu computes in float32: --precision fp32 or fp16, not {chosen.value}")
            folder = build_graphs(opened, output, half, stage)
        else:
            check_target(load_library(), target)
            calibration = _calibrate(opened, low, hadamard, output, stage)
            folder = build_plans(opened, output, target, low, calibration, hadamard, stage)
    print_json({"path": str(folder), **_sizes(folder)}) if as_json else show(str(folder))


def low_precision(precision: Precision, hadamard: bool) -> Low:
    """Return the precision as the layer table takes it."""
    names: dict[Precision, Low] = {
        Precision.NVFP4: "nvfp4",
        Precision.FP8: "fp8",
        Precision.BF16: "bf16",
    }
    if precision not in names:
        raise ValueError(f"a GPU's large layers take nvfp4, fp8 or bf16, not {precision.value}")
    if hadamard and precision is not Precision.NVFP4:
        raise ValueError(f"--hadamard rotates blocks of nvfp4, and {precision.value} has none; leave it out")
    return names[precision]


def _calibrate(bundle: Bundle, low: Low, hadamard: bool, output: Path, stage: Stage) -> Calibration:
    """Measure activations on the worlds that fit the bundle, or on a made-up walk where there is none."""
    from engine.backends.onnxruntime import OnnxRuntimeBackend
    from engine.machine.hardware import num_cores
    from engine.session.opening import default_denoise_threads
    from export.quantization.calibration import Calibration, calibrate, nominal_calibration
    from export.sources import RANDOM_WEIGHTS

    if bundle.spec.notes == RANDOM_WEIGHTS:
        say("weights from a seed: there is nothing to measure, activations get a nominal scale")
        return nominal_calibration(bundle, low)
    if low == "bf16":
        return Calibration({}, "")
    walks = _walks(bundle.spec)
    advance = stage("calibrating", len(walks.scenes) * (walks.num_chunks + 1))
    large = is_large(bundle)
    threads = num_cores() if large else default_denoise_threads()

    def open_runner(made: Bundle) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(made, threads, 1, mapped=large)

    return calibrate(bundle, low, hadamard, walks, open_runner, output, advance)


def is_large(bundle: Bundle) -> bool:
    """Whether a bundle's weights are too many to be held in memory more than once."""
    from export.graph import INLINE_LIMIT_BYTES

    return any((bundle.path / name).stat().st_size > INLINE_LIMIT_BYTES for name in bundle.spec.files)


def _walks(spec: EngineSpec) -> Walks:
    from evaluation.worlds import fitting_worlds
    from export.quantization.calibration import Walks
    from export.scenes import held_out_scenes
    from export.verify import made_up_scene

    pixels = (spec.frame_height, spec.frame_width)
    if any(world.first_frame.shape[:2] == pixels for world in fitting_worlds(spec.weights_sha256)):
        frames = 1 + CALIBRATION_CHUNKS * spec.frames_per_chunk
        scenes = held_out_scenes(spec.weights_sha256, frames, spec.fps)
        return Walks(scenes, CALIBRATION_CHUNKS, spec.timesteps)
    say("no world here was made for this model; calibrating on a made-up walk")
    return Walks([made_up_scene(spec, 1)], 1, spec.timesteps)


def _sizes(folder: Path) -> dict[str, Any]:
    from engine.files.bundle import open_bundle

    opened = open_bundle(folder, verify=False)
    spec = opened.spec
    return {
        "name": spec.name,
        "sha256": opened.sha256,
        "target": spec.target,
        "precision": spec.precision,
        "file_bytes": {name: (folder / name).stat().st_size for name in spec.files},
        "weight_bytes": dict(_bytes_by_precision(spec)),
    }


def _bytes_by_precision(spec: EngineSpec) -> Counter[str]:
    total: Counter[str] = Counter()
    for group in spec.layer_groups:
        total[group.precision] += group.weight_bytes
    return total


def show(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle.")],
    as_json: Json = False,
) -> None:
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
    sizes = {name: (opened.path / name).stat().st_size / 2**20 for name in spec.files}
    result["files"] = ", ".join(f"{name} {size:.1f} MiB" for name, size in sizes.items())
    weights = _bytes_by_precision(spec)
    result["weights"] = ", ".join(f"{name} {size / 2**20:.2f} MiB" for name, size in weights.items())
    print_table(result)
    if spec.layer_groups:
        print()
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
