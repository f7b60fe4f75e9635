"""The ablation from its walks to its tables, one for each question."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from engine.files.atomic import replacing
from model.vae.guided import GuidedAutoencoder
from training.ablation.variants import VARIANTS, AblationConfig, AblationResult, ablation_walks, run_variant
from training.run_folder import holding

WHOLE_NAMES = {
    "key scale": "1/sqrt(D S)",
    "attention": "GDN + softmax (every 4th)",
    "camera": "UCPE + Pluecker",
}
"""What the row that changes nothing is called in each table."""
HEADER = (
    "| | validation loss | told from pose, over repeating the first | steps not finite | rollouts diverged |"
)


def run_ablation(
    config: AblationConfig, autoencoder: GuidedAutoencoder, run_dir: Path, say: Callable[[str], None]
) -> str:
    """Run every variant from every seed, or go on; returns the tables in Markdown.

    Raises:
        ValueError: The folder holds results of another size, or another training uses it.
    """
    with holding(run_dir):
        _claim(run_dir / "ablation.json", config)
        return as_document(_results(config, autoencoder, run_dir, say), config)


def _claim(path: Path, config: AblationConfig) -> None:
    """Note what a folder's results are of, or see that they are of this."""
    mine = json.loads(json.dumps(asdict(config)))
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(mine, indent=1))
    elif json.loads(path.read_text()) != mine:
        raise ValueError(f"{path.parent} holds an ablation of another size; name another folder with --runs")


def _results(
    config: AblationConfig, autoencoder: GuidedAutoencoder, run_dir: Path, say: Callable[[str], None]
) -> list[AblationResult]:
    say("drawing and encoding walks")
    walks, held_out = ablation_walks(run_dir / "data", autoencoder, config)
    results = []
    for seed in config.seeds:
        for variant in VARIANTS:
            say(f"{variant.name}, seed {seed}")
            results.append(run_variant(variant, seed, config, walks, held_out, run_dir))
    return results


def as_document(results: Sequence[AblationResult], config: AblationConfig) -> str:
    """Write the tables, one for each question, means over seeds and the range in brackets."""
    lines: list[str] = []
    for table, whole in WHOLE_NAMES.items():
        lines += [f"### {table.capitalize()}", "", HEADER, "|---|---|---|---|---|"]
        for variant in VARIANTS:
            mine = [result for result in results if result.variant == variant.name]
            if mine and variant.table in (table, "all"):
                lines.append(_row(whole if variant.table == "all" else variant.name, mine, config))
        lines.append("")
    return "\n".join(lines)


def _row(name: str, results: Sequence[AblationResult], config: AblationConfig) -> str:
    losses = [result.validation_loss for result in results]
    gains = [result.gain_db for result in results]
    skipped = sum(result.skipped_steps for result in results)
    first = [result.first_skipped for result in results if result.first_skipped is not None]
    diverged = sum(result.diverged for result in results)
    seconds = [result.first_diverged_s for result in results if result.first_diverged_s is not None]
    steps = f"{skipped} of {config.num_steps * len(results)}" + (
        f", first at step {min(first)}" if first else ""
    )
    rollouts = f"{diverged} of {sum(result.num_rollouts for result in results)}"
    rollouts += f", first after {min(seconds):.2f} s" if seconds else ""
    return f"| {name} | {_spread(losses, '.4f')} | {_spread(gains, '+.2f')} dB | {steps} | {rollouts} |"


def _spread(values: Sequence[float], form: str) -> str:
    """Mean and range of some values, or the only one; one that is not finite says so."""
    if not all(math.isfinite(value) for value in values):
        return "not finite"
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"
