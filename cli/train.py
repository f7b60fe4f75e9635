"""`flaneur train`: make the weights."""

from __future__ import annotations

import shutil
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cli import train_cluster, train_stages
from cli.report import Interrupted, extra_needed, print_json, print_table, say

app = typer.Typer(help="Train world models.", no_args_is_help=True)


class Preset(Enum):
    """Recipes of `flaneur train pocket`."""

    pocket = "pocket"
    miniature = "miniature"


Runs = Annotated[
    Path | None, typer.Option(help="Folder of walks, latents and training states; default: runs/PRESET.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Gets bundles/ and worlds/; default: assets, or RUNS/assets."),
]
Recipe = Annotated[
    Preset,
    typer.Option(help="The pocket world, or a miniature of it that shows in minutes that all works."),
]
Minutes = Annotated[
    float | None, typer.Option(min=0.01, help="Training time in total; default: the recipe's.")
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="End every stage after so many steps, if minutes do not.")
]
StartFrom = Annotated[Path | None, typer.Option(help="Go on from these weights, such as assets.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the plan, or what was made, as JSON.")]


def register(root: typer.Typer) -> None:
    train_stages.register(app)
    train_cluster.register(app)
    root.add_typer(app, name="train")


@app.callback()
def train() -> None:
    """Train world models."""


@app.command()
def pocket(
    runs: Runs = None,
    output: Output = None,
    preset: Recipe = Preset.pocket,
    minutes: Minutes = None,
    steps: Steps = None,
    start_from: StartFrom = None,
    dry_run: DryRun = False,
    json_output: JsonOutput = False,
) -> None:
    """Make the pocket world from nothing, or go on where an earlier call stopped or was killed."""
    if train_stages.launched() is not None:
        raise ValueError("the pocket's recipe is for one process; start it without torchrun")
    with extra_needed("training", "train"):
        from training.pocket.build import prepare, train_pocket
        from training.pocket.plan import as_json, as_text, expected_s, make_plan
    runs = runs or Path("runs") / preset.value
    output = output or (Path("assets") if preset is Preset.pocket else runs / "assets")
    run = prepare(preset.value, runs, minutes, steps, start_from)
    plan = make_plan(run)
    if dry_run:
        if json_output:
            print_json(as_json(run, plan))
        else:
            print(as_text(plan, shutil.get_terminal_size().columns))
        return
    try:
        page = train_pocket(run, output, expected_s(plan), say)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on from what {runs} holds") from None
    result = {
        "bundle": str(output / "bundles" / "pocket"),
        "worlds": str(output / "worlds"),
        "report": str(page),
    }
    if json_output:
        print_json(result)
    else:
        print_table(result)


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="Folder of a training, finished or under way.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The HTML file; default: RUNS/report/index.html.")
    ] = None,
) -> None:
    """Make a page of a training's curves, throughput, scores and pictures from its logs."""
    with extra_needed("a report", "train"):
        from training.report.page import write_report
    print(write_report(runs, output))
