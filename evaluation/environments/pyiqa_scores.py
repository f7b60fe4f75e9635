"""Run in another environment: MUSIQ of frames and LPIPS of pairs of frames, by pyiqa."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BATCH = 8


def open_scorer(options: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Open both measures.

    A request is {"frames": an .npy of [N, H, W, 3] bytes, "windows": lists of rows of it, "pairs": pairs of rows}; the answer is
    {"musiq": mean by window, 0 to 100, "lpips": mean over pairs or null}.
    """
    import numpy as np
    import pyiqa  # pyright: ignore[reportMissingImports]
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    musiq, lpips = (pyiqa.create_metric(name, device=device) for name in ("musiq", "lpips"))

    def pictures(frames: Any, rows: list[int]) -> Any:
        return torch.from_numpy(frames[rows].copy()).permute(0, 3, 1, 2).to(device).float() / 255.0

    def mean(values: list[Any]) -> float | None:
        return float(torch.cat([value.flatten().cpu() for value in values]).mean()) if values else None

    @torch.no_grad()
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        frames = np.load(request["frames"], mmap_mode="r", allow_pickle=False)
        windows = [
            mean([musiq(pictures(frames, rows[n : n + BATCH])) for n in range(0, len(rows), BATCH)])
            for rows in request["windows"]
        ]
        pairs = [
            lpips(pictures(frames, [second]), pictures(frames, [first])) for first, second in request["pairs"]
        ]
        return {"musiq": windows, "lpips": mean(pairs)}

    return answer
