"""`flaneur train` on many processes: what a launcher says of them, and what the paper's stages would need."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.report import extra_needed, print_json, print_rows

if TYPE_CHECKING:
    from training.parallel.cost_model import StageCost


class Gpus(Enum):
    """GPUs whose data sheets are known."""

    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


def register(train: typer.Typer) -> None:
    """Add the command."""
    train.command("needs", rich_help_panel="Clusters")(needs)


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
        print_json({"gpus": gpus, "gpu": gpu.value, "utilisation": utilisation, "stages": _as_json(found)})
        return
    columns = ("stage", "GPUs", "per clip", "batches", "GiB", "fits", "tokens/s", "s/step", "days", "paper")
    print_rows(columns, [_row(stage) for stage in found])
    print(
        f"Estimates for {gpus} {gpu.value.upper()} at {utilisation:.0%} of their peak; GiB of one GPU;\n"
        "the paper's days are those of 64 H100 and the share of their peak they come to."
    )


def _as_json(found: list[StageCost]) -> list[dict[str, Any]]:
    return [asdict(stage) for stage in found]


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
