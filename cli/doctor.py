"""`flaneur doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli.arguments import Json
from cli.report import print_json

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
    as_json: Json = False,
) -> int:
    """Say what this machine can run and what is missing; nothing is downloaded."""
    from engine.machine.doctor import can_open_window, can_play, run_checks, verdict

    checks = run_checks(os.environ, () if engine is None else (engine,), refiner)
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
