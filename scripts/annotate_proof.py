"""Hold annotated cameras against the truth: render videos of holodeck places, hide their poses, annotate, compare.

    python scripts/annotate_proof.py -o proof

A video that is there already is not rendered again. The table has every clip, kept or not: how far the recovered cameras are from
the true ones after the benchmark's similarity transform, as degrees and as a share of the path.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from cli.app import run
from engine.files.atomic import replacing
from engine.files.video import open_video
from evaluation.poses.alignment import camera_errors, fit_similarity, path_length
from evaluation.scores import table
from holodeck import get_place
from holodeck.compiled import render_rgbd
from training.data.annotation.results import (
    CLIPS_FOLDER,
    camera_path,
    read_camera,
    read_result,
    read_seconds,
)
from training.data.holodeck.families import draw_poses

SIZE = (640, 352)
LENS = np.array([416.0, 416.0, 320.0, 176.0], np.float32)
"""fx, fy, cx, cy in pixels: 75 degrees across."""
FPS, NUM_FRAMES = 16, 161
VIDEOS = (
    ("town", "orbit", 1),
    ("town", "walk", 3),
    ("colonnade", "walk", 4),
    ("garden", "walk", 7),
    ("canyon", "walk", 8),
    ("generated-17", "fly-through", 9),
)
"""Place, camera family, seed."""


def main() -> None:
    """Render, annotate, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of videos, truth and set")
    parser.add_argument("--set", default="set", help="name of the set within it")
    parser.add_argument(
        "options",
        nargs="*",
        help="more for `flaneur data annotate`, after --, such as -- --ray local --workers 2",
    )
    asked = parser.parse_args()
    folder = asked.output
    videos, truth, made = (folder / name for name in ("videos", "truth", asked.set))
    for each in (videos, truth):
        each.mkdir(parents=True, exist_ok=True)
    for place, family, seed in VIDEOS:
        render(place, family, seed, videos, truth)
    started_s = time.perf_counter()
    status = run(["data", "annotate", str(videos), "-o", str(made), *asked.options])
    if status:
        raise SystemExit(status)
    wall_s = time.perf_counter() - started_s
    print("\n".join(compare(truth, made)))
    print("\n".join(throughput(made, wall_s)))


def render(place_name: str, family: str, seed: int, videos: Path, truth: Path) -> None:
    """Render one video; its poses go to another folder, where annotation does not look."""
    name = f"{place_name}-{family}"
    if (truth / f"{name}.npz").exists() and (videos / f"{name}.mp4").exists():
        return
    place = get_place(place_name)
    poses = draw_poses(family, place, NUM_FRAMES, FPS, seed)
    with open_video(videos / f"{name}.mp4", SIZE, FPS) as writer:
        for pose in poses:
            writer.write(render_rgbd(place, pose, LENS, *SIZE)[0][None])
    with replacing(truth / f"{name}.npz") as file:
        np.savez(file, c2w=poses)


def throughput(made: Path, wall_s: float) -> list[str]:
    """How many clips an hour were judged; encoding those that are kept, and looking for cuts, count by the clock only."""
    keys = [path.stem for path in (made / CLIPS_FOLDER).glob("*.json")]
    cpu_s = sum(sum(read_seconds(made, key).cpu_s.values()) for key in keys)
    return [
        f"{len(keys)} clips, {cpu_s:.0f} s of a core: {3600 * len(keys) / max(cpu_s, 1e-9):.0f} clips a core hour",
        f"{wall_s:.0f} s by the clock: {3600 * len(keys) / wall_s:.0f} clips an hour",
    ]


def compare(truth: Path, made: Path) -> list[str]:
    """A Markdown table of every clip of a set."""
    rows = []
    for path in sorted((made / CLIPS_FOLDER).glob("*.json")):
        result = read_result(made, path.stem)
        assert result is not None, "annotation wrote it"
        seconds = read_seconds(made, result.key)
        cells = ["", "", ""]
        if camera_path(made, result.key).exists():
            c2w, intrinsics, _ = read_camera(made, result.key)
            start = round(result.start_s * FPS)
            with np.load(truth / f"{Path(result.source).stem}.npz") as true:
                wanted = true["c2w"][start : start + len(c2w)]
            found = camera_errors(fit_similarity(c2w, wanted)(c2w), wanted)
            share = found.translation_m / path_length(wanted)
            cells = [
                f"{found.rotation_deg:.2f}",
                f"{100 * found.translation_m:.1f} cm, {share:.1%}",
                f"{intrinsics[0, 0]:.0f}",
            ]
        verdict = "kept" if result.kept else f"rejected: {'; '.join(result.reasons)}"
        took = " ".join(f"{step} {value:.0f}" for step, value in seconds.cpu_s.items())
        rows.append([result.key, str(result.num_frames), *cells, verdict, took])
    columns = (
        "clip",
        "frames",
        "RotErr, deg",
        "TransErr, of the path",
        f"fx (true {LENS[0]:.0f})",
        "verdict",
        "seconds of a core",
    )
    return table(columns, rows)


if __name__ == "__main__":
    main()
