"""Run in another environment: DOVER's quality of a video, by a clone of its repository with its weights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue, which pictures are normalised by."""
TECHNICAL, AESTHETIC = (-0.1107, 0.07355, 0.6104), (-0.08285, 0.03774, 0.3896)
"""Offset, scale and weight of the two scores in the overall one, as its authors fuse them."""


def open_scorer(options: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Open the network.

    Args:
        options: {"folder": the clone, with dover.yml and the weights that it names}.

    A request is {"video": a file}; the answer is {"dover": 0 to 1}.
    """
    os.chdir(options["folder"])
    import torch
    import yaml
    from dover.datasets import (  # pyright: ignore[reportMissingImports]
        UnifiedFrameSampler,
        spatial_temporal_view_decomposition,
    )
    from dover.models import DOVER  # pyright: ignore[reportMissingImports]

    with open("dover.yml") as file:
        known = yaml.safe_load(file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = DOVER(**known["model"]["args"]).to(device)
    network.load_state_dict(torch.load(known["test_load_path"], map_location=device, weights_only=True))
    network.eval()
    views = known["data"]["val-l1080p"]["args"]["sample_types"]
    samplers = {name: UnifiedFrameSampler(*_sampling(view)) for name, view in views.items()}
    mean, std = torch.tensor(MEAN), torch.tensor(STD)

    @torch.no_grad()
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        seen, _ = spatial_temporal_view_decomposition(request["video"], views, samplers)
        for name, view in seen.items():
            clips = views[name].get("num_clips", 1)
            scaled = ((view.permute(1, 2, 3, 0) - mean) / std).permute(3, 0, 1, 2)
            split = scaled.reshape(view.shape[0], clips, -1, *view.shape[2:])
            seen[name] = split.transpose(0, 1).to(device)
        technical, aesthetic = (float(score.mean()) for score in network(seen))
        return {"dover": fused(technical, aesthetic)}

    return answer


def _sampling(view: dict[str, Any]) -> tuple[int, ...]:
    """What a sampler takes of a view: pieces of consecutive frames, or frames from all over the video."""
    if "t_frag" in view:
        return view["clip_len"] // view["t_frag"], view["t_frag"], view["frame_interval"], view["num_clips"]
    return view["clip_len"], view["num_clips"], view["frame_interval"]


def fused(technical: float, aesthetic: float) -> float:
    """The overall score, 0 to 1."""
    parts = ((technical, *TECHNICAL), (aesthetic, *AESTHETIC))
    total = sum((score + offset) / scale * weight for score, offset, scale, weight in parts)
    return 1.0 / (1.0 + math.exp(-total))
