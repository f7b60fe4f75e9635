"""`flaneur train`: make the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.commands.extras import extra_needed
from client.report import say

app = typer.Typer(help="Train world models.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="train")


@app.callback()
def train() -> None:
    """Train world models."""


@app.command()
def pocket(
    runs: Annotated[Path, typer.Option(help="Folder of walks, latents and training states.")] = Path(
        "runs/pocket"
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets bundles/ and worlds/.")] = Path(
        "assets"
    ),
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Training time in total; default: the recipe's.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Go on from these weights, such as assets/checkpoints.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the recipe and exit.")] = False,
) -> None:
    """Make the pocket world from nothing, or go on where an earlier call stopped."""
    with extra_needed("training", "train"):
        from training.pocket import train_pocket
    train_pocket(runs, output, minutes, start_from, dry_run, say)
