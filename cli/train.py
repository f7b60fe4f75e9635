"""`flaneur train`: the pocket world, the report, and the cost of clusters; the stages stand in `train_stages`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import train_stages
from cli.report import Interrupted, extra_needed, print_json, print_rows, print_table, say

if TYPE_CHECKING:
    from training.parallel.cost_model import StageCost

app = typer.Typer(help="Train world models.", no_args_is_help=True)


class Preset(Enum):
    """Recipes of `flaneur train pocket`."""

    pocket = "pocket"
    miniature = "miniature"


class Gpus(Enum):
    """GPUs whose data sheets are known."""

    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


Runs = Annotated[
    Path | None, typer.Option(help="Folder of clips, latents and training states; default: runs/PRESET.")
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
Only = Annotated[
    str | None, typer.Option(help="Train this stage alone: generator, own-history, decoder or depth.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the plan, or what was made, as JSON.")]


def register(root: typer.Typer) -> None:
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
    only: Only = None,
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
    run = prepare(preset.value, runs, minutes, steps, start_from, only)
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


@app.command(rich_help_panel="Clusters")
def needs(
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the cluster.")] = 64,
    gpu: Annotated[Gpus, typer.Option(help="Their kind.")] = Gpus.h100,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Share of their peak that is assumed to be reached.")
    ] = 0.3,
    recompute: Annotated[
        bool, typer.Option(help="Compute activations again in the backward pass, or keep them.")
    ] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate memory, speed and days of the paper's stages on a cluster, beside the paper's own days."""
    with extra_needed("an estimate", "train"):
        from training.parallel.cost_model import GPUS, Layout, paper_costs
    found = paper_costs(Layout(gpus, GPUS[gpu.value], utilisation, recompute))
    if json_output:
        print_json(
            {
                "gpus": gpus,
                "gpu": gpu.value,
                "utilisation": utilisation,
                "stages": [asdict(stage) for stage in found],
            }
        )
        return
    columns = ("stage", "GPUs", "per clip", "batches", "GiB", "fits", "tokens/s", "s/step", "days", "paper")
    print_rows(columns, [_row(stage) for stage in found])
    print(
        f"Estimates for {gpus} {gpu.value.upper()} at {utilisation:.0%} of their peak; GiB of one GPU;\n"
        "the paper's days are those of 64 H100 and the share of their peak they come to."
    )


def _row(stage: StageCost) -> list[str]:
    paper = ""
    if stage.paper_days is not None and stage.paper_utilisation is not None:
        paper = f"{stage.paper_days:g} at {stage.paper_utilisation:.0%}"
    return [
        stage.stage,
        str(stage.gpus_used),
        str(stage.context_parallel),
        str(stage.batches_per_group),
        f"{stage.memory_gib:.1f}",
        "yes" if stage.fits else "no",
        f"{stage.tokens_per_s:.0f}",
        f"{stage.step_s:.2f}",
        f"{stage.days:.2f}",
        paper,
    ]


train_stages.register(app)
