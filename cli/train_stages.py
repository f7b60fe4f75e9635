"""`flaneur train STAGE`: the paper's stages one by one, and its ablation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import Overwrite
from cli.report import Interrupted, extra_needed, print_json, print_table, say
from engine.files.atomic import check_absent

if TYPE_CHECKING:
    from training.data.clip import LeftOut

NAMED_LEFT_OUT = 20
"""Clips that are named when they are left out; the rest is counted."""


class StagePreset(Enum):
    """Sizes of a stage."""

    pocket = "pocket"
    paper = "paper"
    miniature = "miniature"


class Filters(Enum):
    """Which clips of archives are wanted."""

    none = "none"
    sekai_game = "sekai-game"


Preset = Annotated[
    StagePreset, typer.Option(help="Pocket size, the paper's sizes, or two steps on thumbnails.")
]
Runs = Annotated[
    Path | None,
    typer.Option(help="Run folder; walks in data/, checkpoints in stages/. Default: runs/PRESET."),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Start from this .model.safetensors, or a released checkpoint; default: the stage before.",
    ),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of clips from `flaneur data` or in SANA-WM's format; more with more --data. "
        "Default: the run's own walks."
    ),
]
Wanted = Annotated[
    Filters, typer.Option(help="Which clips of archives are wanted: all, or the public recipe's choice.")
]
TextEncoder = Annotated[
    Path | None,
    typer.Option(help="Folder of gemma-2-2b-it, to read captions; default: a table that is learned."),
]
Config = Annotated[Path | None, typer.Option(help="JSON of a model's numbers; default: the preset's model.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the stage; default: the preset's.")]
ContextParallel = Annotated[
    int, typer.Option(min=1, help="Under torchrun: processes that share the frames of one clip.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, with the data that is found, and exit.")
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print plan or checkpoint as JSON.")]


def register(train: typer.Typer) -> None:
    """Add a command for each stage, and the ablation's."""
    from training.stages.table import STAGES

    for name, stage in STAGES.items():
        sentence = f"Stage {name}: {stage.purpose}."
        train.command(name, help=sentence, rich_help_panel="The paper's stages")(_command(name))
    train.command("ablation", rich_help_panel="The paper's stages")(ablation)


def _command(name: str) -> Callable[..., None]:
    def stage(
        preset: Preset = StagePreset.pocket,
        runs: Runs = None,
        start_from: StartFrom = None,
        data: Data = None,
        filters: Wanted = Filters.none,
        text_encoder: TextEncoder = None,
        config: Config = None,
        steps: Steps = None,
        context_parallel: ContextParallel = 1,
        dry_run: DryRun = False,
        json_output: JsonOutput = False,
    ) -> None:
        with extra_needed("training", "train"):
            from training.stages.request import Launch, StageRequest, plan_of, train_one
        processes = launched()
        launch = None if processes is None else Launch(*processes, context_parallel)
        if launch is None and context_parallel > 1:
            raise ValueError(
                f"--context-parallel {context_parallel} needs as many processes; start them with torchrun"
            )
        folder = runs or Path("runs") / preset.value
        request = StageRequest(
            name,
            preset.value,
            folder,
            start_from,
            tuple(data or ()),
            filters.value,
            config,
            text_encoder,
            steps,
        )
        if dry_run:
            result = plan_of(request, launch)
        else:
            if request.is_done and (launch is None or launch.rank == 0):
                say(
                    f"{name} is done already; delete its checkpoint, or name another --runs, to train it anew"
                )
            try:
                checkpoint, left_out = train_one(request, launch)
            except KeyboardInterrupt:
                raise Interrupted(f"stopped; the same command goes on from what {folder} holds") from None
            result = {"model": str(checkpoint)} | _told(left_out)
        if launch is None or launch.rank == 0:
            (print_json if json_output else print_table)(result)

    return stage


def _told(left_out: Sequence[LeftOut]) -> dict[str, str]:
    """Name some of the clips that were not given, and count them."""
    for item in left_out[:NAMED_LEFT_OUT]:
        say(f"left out: {item.reason}")
    return {"clips left out": str(len(left_out))} if left_out else {}


def launched() -> tuple[int, int, int, int] | None:
    """Rank, local rank and how many there are of both, where torchrun started this process as one of a training's."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    rank, local_rank, size, local_size = (
        int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    return rank, local_rank, size, local_size


def ablation(
    runs: Annotated[Path, typer.Option(help="Gets walks, logs, states and results.")] = Path("runs/ablation"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Markdown file of the tables; default: print them.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of a row.")] = 240,
    walks: Annotated[int, typer.Option(min=1, help="Walks of each of two places to train on.")] = 10,
    seconds: Annotated[float, typer.Option(min=2.0, max=600.0, help="Length of the rollouts.")] = 60.0,
    overwrite: Overwrite = False,
) -> None:
    """Measure what key scale, softmax blocks and camera branches are worth, on a small model; a second call goes on."""
    check_absent(output, overwrite)
    with extra_needed("training", "train"):
        from training.ablation.tables import run_ablation
        from training.ablation.variants import AblationConfig
        from training.data.latents import load_autoencoder
    from engine.machine.assets import checkpoints_dir

    # Four latents a second.
    config = AblationConfig(num_steps=steps, num_walks=walks, num_chunks=round(4 * seconds))
    try:
        tables = run_ablation(config, load_autoencoder(checkpoints_dir()), runs, say)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on from what {runs} holds") from None
    if output is None:
        print(tables)
        return
    from engine.files.atomic import replacing

    with replacing(output) as file:
        file.write_text(tables)
