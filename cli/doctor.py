"""`flaneur doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli.arguments import Json, Precision, own_worlds_folder, pixels
from cli.report import print_json, print_rows

EXIT_CANNOT_PLAY = 2


def register(root: typer.Typer) -> None:
    root.command(name="doctor")(doctor)


def doctor(
    engine: Annotated[
        str | None, typer.Option(help="Ask about this engine bundle too, by its name or folder.")
    ] = None,
    refiner: Annotated[
        bool, typer.Option("--refiner", help="Ask whether a GPU here could hold sana-wm's second stage.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Plan the memory of this model instead: sana-wm.")] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of its large layers: bf16, fp8 or nvfp4; fp32 on a CPU.")
    ] = Precision.BF16,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="GiB of the device to plan for; default: this machine's.")
    ] = None,
    frame_size: Annotated[
        str | None, typer.Option(help="Pixels to plan for, such as 640x352; default: the model's.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say what this machine can run and what is missing; nothing is downloaded."""
    if model is not None:
        _plan(model, precision, refiner, memory, frame_size, as_json)
        return 0
    from engine.machine.doctor import can_open_window, can_play, run_checks, verdict

    checks = run_checks(os.environ, () if engine is None else (engine,), refiner, own_worlds_folder())
    playable = can_play(checks)
    if as_json:
        found = {"can_play": playable, "can_open_window": can_open_window(checks)}
        print_json(found | {"checks": [check.as_json() for check in checks]})
        return 0 if playable else EXIT_CANNOT_PLAY
    width = max(len(check.name) for check in checks)
    for check in checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        print(f"{check.name:<{width}}  {check.status:<7}  {check.detail}{remedy}")
    print(verdict(checks))
    return 0 if playable else EXIT_CANNOT_PLAY


def _plan(
    model: str,
    precision: Precision,
    refiner: bool,
    memory: float | None,
    frame_size: str | None,
    as_json: bool,
) -> None:
    """Print what a model takes, and where it fits."""
    from engine.machine.doctor import device_memory
    from engine.machine.memory_plan import (
        CARD_GIB,
        DOWNLOADS,
        OFF_DEVICE,
        check_precision,
        fitting,
        memory_plan,
        planned_sizes,
    )

    sizes = planned_sizes(model, None if frame_size is None else pixels(frame_size))
    plan = memory_plan(check_precision(precision.value), refiner, sizes)
    title, free = (f"{memory:g} GiB", memory * 2**30) if memory is not None else device_memory()
    cards = {gib: [fitting(gib * 2**30, second, sizes) for second in (False, True)] for gib in CARD_GIB}
    if as_json:
        parts = {part.name: part.num_bytes for part in plan.parts}
        fits = {
            str(gib): {"first_stage": first, "with_refiner": both} for gib, (first, both) in cards.items()
        }
        print_json(
            {
                "model": model,
                "precision": plan.precision,
                "bytes": parts,
                "total_bytes": plan.num_bytes,
                "device": title,
                "device_bytes": free,
                "fits": plan.fits(free),
                "cards": fits,
            }
        )
        return
    print(f"{model}, {sizes.frame_width}x{sizes.frame_height}, large layers in {plan.precision}")
    rows = [(part.name, f"{part.num_bytes / 2**30:.2f}", part.note) for part in plan.parts]
    print_rows(("on the device", "GiB", ""), [*rows, ("together", f"{plan.num_bytes / 2**30:.2f}", "")])
    verdict = "it fits" if plan.fits(free) else "it does not fit"
    print(f"\n{title}: {free / 2**30:.1f} GiB free, {verdict}\n")
    lines = [
        (str(gib), ", ".join(first) or "no", ", ".join(both) or "no") for gib, (first, both) in cards.items()
    ]
    print_rows(("GiB of a device", "first stage fits in", "with the refiner"), lines)
    print("\nnever on the device:")
    for line in OFF_DEVICE:
        print(f"- {line}")
    print("\nto download:")
    for purpose, folders in DOWNLOADS.items():
        print(f"- {purpose}: " + ", ".join(f"{name} {size:g} GB" for name, size in folders))
