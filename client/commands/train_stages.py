"""`flaneur train STAGE`: the paper's stages one by one, and its ablation."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from client.commands.extras import extra_needed
from client.report import Interrupted, print_json, print_table, say


class StagePreset(Enum):
    """Sizes of a stage."""

    pocket = "pocket"
    paper = "paper"
    miniature = "miniature"


def register(train: typer.Typer) -> None:
    """Add a command for each stage, and the ablation's."""
    from training.stage_names import PURPOSES

    for name, purpose in PURPOSES.items():
        sentence = f"Stage {name}: {purpose}."
        train.command(name, help=sentence, rich_help_panel="The paper's stages")(_command(name))
    train.command("ablation", rich_help_panel="The paper's stages")(ablation)


def _command(name: str) -> Callable[..., None]:
    def stage(
        preset: Annotated[
            StagePreset,
            typer.Option(help="Pocket size, the paper's figures (a plan only), or two steps on thumbnails."),
        ] = StagePreset.pocket,
        runs: Annotated[
            Path | None,
            typer.Option(help="Run folder; walks in data/, outcomes in stages/. Default: runs/PRESET."),
        ] = None,
        start_from: Annotated[
            Path | None,
            typer.Option("--from", help="Start from this .model.safetensors; default: the stage before."),
        ] = None,
        context_parallel: Annotated[
            int, typer.Option(min=1, help="Under torchrun: processes that share the frames of one clip.")
        ] = 1,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and exit.")] = False,
        json_output: Annotated[bool, typer.Option("--json", help="Print plan or outcome as JSON.")] = False,
    ) -> None:
        with extra_needed("training", "train"):
            from training.chain_presets import Launch, plan_of, train_one
        ranks = launched()
        launch = None if ranks is None else Launch(*ranks, context_parallel)
        if launch is None and context_parallel > 1:
            raise ValueError(
                f"--context-parallel {context_parallel} needs as many processes; start them with torchrun"
            )
        folder = runs or Path("runs") / preset.value
        if dry_run:
            result = plan_of(name, preset.value)
        else:
            try:
                result = {"model": str(train_one(name, preset.value, folder, start_from, launch))}
            except KeyboardInterrupt:
                raise Interrupted(f"stopped; the same command goes on from what {folder} holds") from None
        if launch is None or launch.rank == 0:
            (print_json if json_output else print_table)(result)

    return stage


def launched() -> tuple[int, int] | None:
    """Rank and local rank, where torchrun started this process as one of a training's."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])


def ablation(
    latents: Annotated[
        Path, typer.Option(help="Folder of encoded walks: STEM.c2w.npy and STEM.*latents.npy of each.")
    ] = Path("runs/pocket/data"),
    runs: Annotated[Path, typer.Option(help="Gets logs, states and results.")] = Path("runs/ablation"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Markdown file of the tables; default: print them.")
    ] = None,
) -> None:
    """Measure what key scale, softmax blocks and camera branches are worth at pocket size."""
    with extra_needed("training", "train"):
        from training.ablation import AblationConfig
        from training.ablation_tables import run_ablation
    tables = run_ablation(AblationConfig(), latents, runs, say)
    if output is None:
        print(tables)
    else:
        from engine.atomic import replacing

        with replacing(output) as file:
            file.write_text(tables)
