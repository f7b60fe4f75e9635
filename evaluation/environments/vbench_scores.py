"""Run in another environment: VBench's dimensions of one video, by its own package."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "scores"


def open_scorer(options: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Open VBench for videos of one's own.

    Args:
        options: {"dimensions": names, of those that take such videos}.

    A request is {"video": a file}; the answer is {"scores": by dimension, as VBench gives them}.
    """
    import torch
    from vbench import VBench  # pyright: ignore[reportMissingImports]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="flaneur-vbench-") as folder:
            bench = VBench(device, "", folder)
            bench.evaluate(
                videos_path=request["video"],
                name=NAME,
                dimension_list=options["dimensions"],
                mode="custom_input",
            )
            found = json.loads((Path(folder) / f"{NAME}_eval_results.json").read_text())
        return {"scores": {name: float(found[name][0]) for name in options["dimensions"]}}

    return answer
