"""What each part of the pocket's generator is worth: the bundle measured again with one part silenced at a time, by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.backends.torch import TorchBackend, TorchModel, TorchOptions, checkpoint_model
from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.world import World
from engine.session.model_session import ModelSession
from evaluation.baselines import MODEL, REMEMBERED
from evaluation.evaluate import EvaluationPlan, evaluate
from evaluation.scores import EvaluationReport, table
from model.block import Block
from model.world_model import WorldModel
from training.pocket.publish import WORLD_FILE

FORGETTING = 30.0
"""Logarithm of a decay rate at which nothing of a gated delta net's state is left a frame later."""
NO_MEMORY = "spatial memory, everywhere"
"""The memory begins empty and grows by what was generated."""


def _blocks(model: WorldModel) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _silence(*linears: nn.Linear) -> None:
    for linear in linears:
        linear.weight.zero_()
        linear.bias.zero_()


def _silence_softmax(model: WorldModel) -> None:
    _silence(*(block.attn.proj for block in _blocks(model) if block.attn.is_softmax))


def _silence_state(model: WorldModel) -> None:
    for block in _blocks(model):
        if not block.attn.is_softmax:
            block.attn.A_log.fill_(FORGETTING)


def _silence_cameras(model: WorldModel) -> None:
    for block in _blocks(model):
        _silence(block.attn.out_proj_cam, block.plucker_proj)


def _silence_text(model: WorldModel) -> None:
    _silence(*(block.cross_attn.proj for block in _blocks(model)))


def _silence_memory(model: WorldModel) -> None:
    assert model.memory_embedder is not None, "the pocket reads a spatial memory"
    _silence(model.memory_embedder.proj)


PARTS: dict[str, Callable[[WorldModel], None]] = {
    "softmax attention": _silence_softmax,
    "state of the gated delta net": _silence_state,
    "camera branches": _silence_cameras,
    "text": _silence_text,
    "spatial memory, in the generator": _silence_memory,
}
"""What can be silenced, and how."""


@dataclass(frozen=True)
class Row:
    """One line of the table: means over rollouts, from 1 s to the end."""

    name: str
    scores: dict[str, float]
    """By measure."""


@torch.no_grad()
def silenced_model(bundle: Bundle, checkpoints: Path, part: str) -> TorchModel:
    """The model of a bundle with a part silenced.

    Args:
        checkpoints: What `publish` wrote beside the bundle.
        part: One of PARTS.

    Raises:
        ValueError: The bundle was exported from other weights.
    """
    path = checkpoints / WORLD_FILE
    try:
        model = checkpoint_model(bundle, path)
    except SpecMismatch as error:
        raise ValueError(
            f"{bundle.spec.name} was not exported from {path}; name its own folder with --autoencoder"
        ) from error
    PARTS[part](model.network)
    return model


def _session(model: TorchModel, world: World) -> ModelSession:
    return ModelSession(model, world, TorchBackend(model, TorchOptions("cpu")))


def measure_parts(
    bundle: Bundle,
    checkpoints: Path,
    plan: EvaluationPlan,
    output: Path,
    say: Callable[[str], None],
    parts: Sequence[str] = (*PARTS, NO_MEMORY),
) -> list[Row]:
    """Measure a bundle, its memory alone, and it again without each part.

    Args:
        output: Gets a folder of tables and contact sheets for each.
        say: Told what is measured now.
    """
    say("measuring the whole")
    report = evaluate(bundle, plan, output / "whole")
    rows = [_row("the whole", report, MODEL), _row("memory's rendering alone", report, REMEMBERED)]
    for part in parts:
        say(f"measuring without: {part}")
        folder = output / part.replace(",", "").replace(" ", "-")
        if part == NO_MEMORY:
            its = replace(plan, worlds=tuple((_forgetful(world), place) for world, place in plan.worlds))
            rows.append(_row(f"without {part}", evaluate(bundle, its, folder), MODEL))
            continue
        model = silenced_model(bundle, checkpoints, part)
        report = evaluate(bundle, plan, folder, open_world=partial(_session, model))
        rows.append(_row(f"without {part}", report, MODEL))
    return rows


def parts_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with what each loses against the first."""
    measures = list(rows[0].scores)
    whole = rows[0].scores.get("psnr")
    lines = []
    for row in rows:
        cells = [f"{row.scores[m]:.1f}" if m == "psnr" else f"{row.scores[m]:.3f}" for m in measures]
        lost = "" if whole is None else f"{row.scores['psnr'] - whole:+.2f}"
        lines.append((row.name, *cells, lost))
    return "\n".join(table(("mean from 1 s on", *measures, "dB"), lines))


def _row(name: str, report: EvaluationReport, video: str) -> Row:
    settled = [rollout.settled[video] for rollout in report.rollouts if video in rollout.settled]
    return Row(name, {m: float(np.mean([scores[m] for scores in settled])) for m in report.measures})


def _forgetful(world: World) -> World:
    """The world with nothing but its first frame."""
    return replace(world, keyframes=())
