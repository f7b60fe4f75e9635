"""`flaneur bench`: what a walk takes on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import (
    Backend,
    BackendChoice,
    Engine,
    Json,
    Precision,
    Provider,
    ProviderChoice,
    Weights,
    World,
)
from cli.report import extra_needed, print_json, print_rows, print_table, progress

if TYPE_CHECKING:
    from engine.machine.bench import BenchReport
    from engine.session.opening import EngineRequest


PARTS = {"denoiser": ("denoise_ms", "commit_ms"), "decoder": ("decode_ms",)}
"""Stages of a measurement that make up each part of the estimate."""


def register(root: typer.Typer) -> None:
    root.command(name="bench")(bench)


def bench(
    world: World = None,
    engine: Engine = None,
    backend: Backend = BackendChoice.AUTO,
    provider: Provider = ProviderChoice.AUTO,
    weights: Weights = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the walk.")] = 0,
    chunks: Annotated[int, typer.Option(min=2, help="Chunks to measure.")] = 200,
    pacing: Annotated[
        Path | None, typer.Option(help="Measure nothing; pace the walk of this trace (play --trace) again.")
    ] = None,
    roofline: Annotated[
        str | None, typer.Option(help="Estimate a card's best, such as rtx5090; measures only with --engine.")
    ] = None,
    model: Annotated[str, typer.Option(help="Sizes to estimate: sana-wm or pocket.")] = "sana-wm",
    refiner: Annotated[
        bool, typer.Option("--refiner", help="Refine every chunk, or with --roofline estimate that too.")
    ] = False,
    precision: Annotated[Precision, typer.Option(help="To estimate: nvfp4, fp8 or bf16.")] = Precision.NVFP4,
    layers: Annotated[
        bool, typer.Option("--layers", help="Estimate sana-wm's decoder, convolution by convolution.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a walk: milliseconds per chunk by stage, realtime factor, memory, first frame."""
    if pacing is not None:
        _pace_again(pacing, as_json)
        return
    from engine.session.opening import EngineRequest

    request = EngineRequest(engine, backend.value, provider.value, weights)
    if layers:
        _print_layers(roofline or "rtx5090", as_json)
        return
    if roofline is not None:
        measured = None if engine is None else _measure(world, request, seed, chunks, False)
        _print_roofline(roofline, model, precision.value, refiner, measured, as_json)
        return
    report = _measure(world, request, seed, chunks, refiner)
    if as_json:
        print_json(report.as_json())
        return
    _print(report)


def _measure(world: str | None, request: EngineRequest, seed: int, chunks: int, refiner: bool) -> BenchReport:
    """Walk, and return what it took."""
    started_s = time.perf_counter()
    from cli.walks import open_walk
    from engine.machine.bench import run_bench

    session = open_walk(world, request, keep_latents=False, refiner="on" if refiner else "off")
    try:
        with progress("measuring", chunks) as bar:
            return run_bench(session, chunks, seed, lambda done, _: bar(done), started_s=started_s)
    finally:
        session.close()


def _print(report: BenchReport) -> None:
    """Print a report as a table."""
    result = report.as_json()
    rows = {name: result[name] for name in ("world", "engine", "backend", "device", "num_chunks")}
    for name, stage in result["stages"].items():
        if name == "render_ms" and stage["p95"] == 0:
            continue  # There is no spatial memory.
        rows[name.removesuffix("_ms")] = f"p50 {stage['p50']:.1f} ms, p95 {stage['p95']:.1f} ms"
    interval = result["interval_ms"]
    memory = result["peak_memory_bytes"]
    print_table(
        rows
        | {
            "interval": f"p50 {interval['p50']:.1f} ms, p95 {interval['p95']:.1f} ms",
            "deadline": f"{result['deadline_ms']:.1f} ms, met by {100 * result['deadline_met']:.1f} %",
            "realtime_factor": f"{result['realtime_factor']:.2f}",
            "slowing_down": f"a chunk of the last quarter takes {result['drift']:.2f} times one of the first",
            "first_frame": f"{result['first_frame_s']:.2f} s after the start",
            "state": f"{result['state_bytes'] / 2**20:.1f} MiB",
            "peak_memory": "" if memory is None else f"{memory / 2**20:.0f} MiB",
        }
    )


def _pace_again(path: Path, as_json: bool) -> None:
    """Print what the pacer of this version counts over a trace, beside what was counted in the walk."""
    from client.playback.pacing_replay import replay_pacing
    from client.playback.trace import read_trace

    rollouts = replay_pacing(read_trace(path))
    if as_json:
        print_json({"trace": str(path), "rollouts": [asdict(rollout) for rollout in rollouts]})
        return
    for number, rollout in enumerate(rollouts, 1):
        traced: dict[str, Any] = {} if rollout.traced is None else asdict(rollout.traced)
        usual_ms, late_ms = rollout.early_ms
        rows = {"rollout": f"{number} of {len(rollouts)}, {rollout.num_chunks} chunks"}
        for name, value in asdict(rollout.counts).items():
            was = f"{traced[name]:.6g}" if name in traced else "not written"
            rows[name] = f"{value:.6g} (in the walk itself: {was})"
        rows["chunks ready"] = (
            f"{usual_ms:.0f} ms before they are shown, the latest 5 % under {late_ms:.0f} ms"
        )
        print_table(rows)


def _print_roofline(
    card: str, model: str, precision: str, refiner: bool, measured: BenchReport | None, as_json: bool
) -> None:
    """Print the bound of a preset on a card, and beside it what was measured on this machine, if it was."""
    with extra_needed("counting operations", "export"):
        from export.quantization.layers import low_precision
        from export.roofline import ASSUMPTIONS, PUBLISHED, roofline

    bound = roofline(model, card, low_precision(precision, hadamard=False), refiner=refiner)
    here = {} if measured is None else _part_ms(measured)
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


def _print_layers(card: str, as_json: bool) -> None:
    """Print what bounds each convolution of the decoder on a card, in bf16 and in FP8."""
    from engine.machine.cards import find_card
    from engine.machine.decoder_cost import decoder_layers, minute_s
    from engine.machine.memory_plan import DenoiserSizes

    peaks, sizes = find_card(card), DenoiserSizes()
    chunk_s = sizes.chunk_size * sizes.temporal_stride / 16.0
    half, low = decoder_layers("bf16"), decoder_layers("fp8")
    minutes = {
        f"{precision}, {'fused' if fused else 'not fused'}": minute_s(
            found, peaks.operations_per_s, peaks.bytes_per_s, precision, fused, chunk_s
        )
        for precision, found in (("bf16", half), ("fp8", low))
        for fused in (False, True)
    }
    if as_json:
        rows = [{"bf16": asdict(a), "fp8": asdict(b)} for a, b in zip(half, low, strict=True)]
        print_json({"estimate": True, "card": peaks.title, "layers": rows, "minute_s": minutes})
        return
    print(f"Estimate, not a measurement: the LTX-2 decoder on a {peaks.title}, one chunk of {chunk_s:g} s\n")
    lines = []
    for a, b in zip(half, low, strict=True):
        compute_ms = a.compute_ms(peaks.operations_per_s["bf16"])
        memory_ms = a.memory_ms(peaks.bytes_per_s, fused=True)
        lines.append(
            (
                a.name,
                str(a.count),
                f"{a.operations / 1e12:.2f}",
                f"{compute_ms:.1f}",
                f"{memory_ms:.1f}",
                f"{1e3 * a.elementwise_bytes / peaks.bytes_per_s:.1f}",
                "arithmetic" if compute_ms > memory_ms else "memory",
                f"{b.compute_ms(peaks.operations_per_s['fp8']):.1f}",
            )
        )
    columns = ("channels, frames x rows x columns", "number", "10^12", "ms at peak", "ms of memory")
    print_rows((*columns, "ms between, not fused", "bound by", "ms in fp8"), lines)
    print("\nthe decoder for a minute of video, at least:")
    print_rows(("", ""), [(name, f"{seconds:.1f} s") for name, seconds in minutes.items()])


def _part_ms(report: BenchReport) -> dict[str, float]:
    return {part: sum(report.stages[stage].p50 for stage in stages) for part, stages in PARTS.items()}
