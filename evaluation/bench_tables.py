"""Tables of benchmark scores, the paper's rows above ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.bench_costs import Costs
from evaluation.bench_films import FilmScore
from evaluation.scores import table

PUBLISHED = {
    "simple": (
        ("Infinite-World", 16.55, 1.98, 2.08, 12.60, 0.284, 0.595, 6.72),
        ("LingBot-World", 10.47, 2.01, 2.05, 14.59, 0.366, 0.394, 0.04),
        ("HY-WorldPlay", 17.89, 2.36, 2.45, 12.83, 0.321, 0.616, 23.59),
        ("Matrix-Game 3.0", 12.96, 1.83, 1.92, 12.29, 0.326, 0.553, 2.41),
        ("SANA-WM", 7.59, 1.59, 1.63, 14.16, 0.333, 0.458, 3.79),
        ("SANA-WM, refined", 4.50, 1.39, 1.41, 14.46, 0.292, 0.479, 1.17),
        ("SANA-WM, bidirectional", 3.11, 1.08, 1.09, 13.74, 0.346, 0.425, 2.25),
    ),
    "hard": (
        ("Infinite-World", 41.31, 2.49, 2.84, 12.04, 0.248, 0.617, 4.16),
        ("LingBot-World", 18.99, 1.65, 1.81, 14.08, 0.332, 0.436, 0.58),
        ("HY-WorldPlay", 35.46, 2.34, 2.64, 13.72, 0.328, 0.654, 25.88),
        ("Matrix-Game 3.0", 18.79, 1.67, 1.82, 12.17, 0.317, 0.556, 0.32),
        ("SANA-WM", 10.02, 1.66, 1.72, 14.10, 0.327, 0.469, 3.09),
        ("SANA-WM, refined", 8.34, 1.39, 1.44, 14.80, 0.312, 0.458, 0.31),
        ("SANA-WM, bidirectional", 3.17, 1.08, 1.09, 13.78, 0.342, 0.432, 2.13),
    ),
}
"""Method, RotErr in degrees, TransErr, CamMC, PSNR, SSIM and LPIPS of revisits, loss of imaging quality; on SANA-WM-Bench's own
scenes, so nothing but the order of magnitude compares with other scenes."""
PUBLISHED_VBENCH = {
    "simple": ("79.18", "81.82", "68.82", "78.53", "79.29", "80.62", "79.39"),
    "hard": ("79.51", "81.89", "70.46", "78.79", "79.60", "81.89", "80.18"),
}
"""Overall, of 100, in the order of the methods."""
PUBLISHED_COSTS = (
    ("5.9", "53.5 GB"),
    ("0.6", "454.1 GB"),
    ("1.1", "215.5 GB"),
    ("3.1", "106.2 GB"),
    ("24.1", "51.1 GB"),
    ("22.0", "74.7 GB"),
    ("29.5", "49.2 GB"),
)
"""Videos of a minute an hour on eight H100, and memory of its GPUs, in the order of the methods."""
COLUMNS = (
    "videos", "scenes", "RotErr, deg", "TransErr, m", "CamMC", "located", "revisit PSNR", "revisit SSIM", "revisit LPIPS",
    "PSNR to the truth", "SSIM to the truth", "quality lost", "VBench", "videos an hour", "peak memory",
)  # fmt: skip


def films_table(split: str, scores: Sequence[FilmScore], costs: Mapping[str, Costs]) -> str:
    """Format scores as Markdown: the published rows of the split, then each folder's by category and for all.

    Args:
        costs: By folder.
    """
    rows = [
        [
            f"{method} (paper)",
            "80",
            *_cells(rot, trans, mc),
            "",
            *_cells(psnr, ssim, lpips),
            "",
            "",
            f"{lost:.2f} of 100",
            vbench,
            *costs_told,
        ]
        for (method, rot, trans, mc, psnr, ssim, lpips, lost), vbench, costs_told in zip(
            PUBLISHED[split], PUBLISHED_VBENCH[split], PUBLISHED_COSTS, strict=True
        )
    ]
    for name in dict.fromkeys(score.videos for score in scores):
        own = [score for score in scores if score.videos == name]
        for category in dict.fromkeys(score.category for score in own):
            group = [score for score in own if score.category == category]
            rows.append([f"{name}, {category}", str(len(group)), *_row(group), "", ""])
        rows.append([f"{name}, all", str(len(own)), *_row(own), *_cost_cells(costs.get(name, Costs()))])
    return "\n".join(table(COLUMNS, rows))


def _row(scores: Sequence[FilmScore]) -> list[str]:
    cameras = [score.camera for score in scores if score.camera is not None]
    errors = [camera.aligned for camera in cameras if camera.aligned is not None]
    located = sum(c.num_located for c in cameras) / max(1, sum(c.num_frames for c in cameras))
    means = [
        float(np.mean([getattr(e, f) for e in errors])) if errors else None
        for f in ("rotation_deg", "translation_m", "matrix")
    ]
    musiq = [score.networks.musiq for score in scores if score.networks.musiq is not None]
    lost = (
        f"{np.mean([first - last for first, last in musiq]):.2f} of 100"
        if musiq
        else f"{np.mean([s.sharpness_lost for s in scores]):.0%} of sharpness"
    )
    vbench = [value for score in scores for value in score.networks.vbench.values()]
    lpips = [score.networks.lpips for score in scores if score.networks.lpips is not None]
    revisits = [_mean([s.revisit for s in scores], measure) for measure in ("psnr", "ssim", "lpips")]
    return [
        *_cells(*means),
        f"{located:.0%}" if cameras else "",
        *_cells(*revisits[:2], float(np.mean(lpips)) if lpips else revisits[2]),
        *_cells(*(_mean([s.likeness for s in scores], measure) for measure in ("psnr", "ssim"))),
        lost,
        f"{100 * np.mean(vbench):.2f}" if vbench else "",
    ]


def _cost_cells(costs: Costs) -> list[str]:
    """Videos an hour, with the length of a video, and peak memory; empty where nothing says so."""
    pace = "" if costs.videos_per_hour is None else f"{costs.videos_per_hour:.1f}"
    if pace and costs.seconds_per_video is not None:
        pace += f" of {costs.seconds_per_video:.0f} s"
    if pace and costs.videos_per_cpu_hour is not None:
        pace += f", {costs.videos_per_cpu_hour:.1f} a core hour"
    memory = "" if costs.peak_memory_bytes is None else f"{costs.peak_memory_bytes / 1e9:.1f} GB"
    return [pace, memory]


def _mean(scores: Sequence[dict[str, float]], measure: str) -> float | None:
    values = [each[measure] for each in scores if measure in each]
    return float(np.mean(values)) if values else None


def _cells(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" for value in values]
