"""`flaneur eval --bench`: the pictures of SANA-WM-Bench along its tracks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cli.extras import extra_needed
from cli.report import print_json, progress, say

if TYPE_CHECKING:
    from cli.eval import Subject
    from evaluation.rollouts import Frames

LISTED = 5
"""Broken scenes that are named."""


def evaluate_pictures(
    subject: Subject,
    folder: Path,
    split: str,
    scenes: int,
    seconds: float,
    metrics: tuple[str, ...] | None,
    output: Path,
    as_json: bool,
) -> None:
    """Measure so many scenes of each category of a split."""
    with extra_needed("reading the benchmark's pictures", "worlds"):
        from export.photo import fit_photo, read_photo
    from evaluation.image_metrics import OPENERS, open_measures
    from evaluation.sana_wm_bench import bench_chunks, bench_table, evaluate_bench, first_of_each, read_bench

    def read(path: Path, width: int, height: int) -> tuple[Frames, tuple[int, int]]:
        photo = read_photo(path)
        return fit_photo(photo, width, height)[0], photo.size

    found, broken = read_bench(folder, split)
    if broken:
        more = "" if len(broken) <= LISTED else f" and {len(broken) - LISTED} more"
        say(
            f"{len(broken)} scenes lack an image or a track and are left out: {', '.join(broken[:LISTED])}{more}"
        )
    chosen = first_of_each(found, scenes)
    measures, missing = open_measures([name for name in metrics or OPENERS if name in OPENERS])
    for reason in missing:
        say(reason)
    bundle, encoder = subject.bundle, subject.encoder()
    with progress("measuring", len(chosen) * bench_chunks(bundle, seconds)) as bar:
        scores = evaluate_bench(
            bundle, chosen, subject.fitting, encoder, read, measures, output, seconds, bar
        )
    if as_json:
        print_json({"scenes": [asdict(score) for score in scores], "left_out": broken, "output": str(output)})
    else:
        print(bench_table(scores))
