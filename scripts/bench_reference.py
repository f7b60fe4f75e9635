"""Times our model against diffusers' on this machine, with the same weights and shapes, in one run.

    python scripts/bench_reference.py [--width 448] [--layers 4] [--threads 2] [--json]

Prints the ratio per forward pass of a clip, and of a minute of video in four steps: ours streamed chunk by chunk with its
commits, the reference, which has no memory, in four passes over the whole minute. Beside them stands how a chunk's cost grows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from model.camera import plucker_maps, relative_poses, window_frames
from model.checkpoint import from_diffusers
from model.conditioning import Conditioning
from model.rollout import RolloutState
from model.sampler import STREAMING_TIMESTEPS, commit_chunk, denoise_chunk
from model.world_model import WorldModel

STRIDE = 8
HEAD_DIM = 112


def build(width: int, layers: int) -> tuple[torch.nn.Module, WorldModel]:
    from diffusers.models.transformers.transformer_sana_wm import SanaWMTransformer3DModel

    torch.manual_seed(0)
    reference = SanaWMTransformer3DModel(
        num_layers=layers,
        hidden_size=width,
        num_attention_heads=width // HEAD_DIM,
        linear_head_dim=HEAD_DIM,
        chunk_plucker_post_attn_blocks=layers,
    ).eval()
    return reference, from_diffusers(dict(reference.config), reference.state_dict()).eval()


def clip(model: WorldModel, frames: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Random inputs of a clip of that many latent frames."""
    video = 1 + STRIDE * (frames - 1)
    c2w = torch.eye(4).repeat(1, video, 1, 1)
    c2w[0, :, 2, 3] = torch.linspace(0, 3, video)
    return {
        "latents": torch.randn(1, model.config.in_channels, frames, *grid),
        "timesteps": torch.full((1, frames), 700.0),
        "text": torch.randn(1, model.config.text_length, model.config.text_dim),
        "text_mask": torch.ones(1, model.config.text_length),
        "c2w": c2w,
        "intrinsics": torch.tensor([600.0, 600, 320, 176]).repeat(1, video, 1),
    }


def reference_inputs(model: WorldModel, given: dict[str, Tensor]) -> dict[str, Any]:
    config = model.config.for_grid(*given["latents"].shape[-2:])
    order = window_frames(given["latents"].shape[2], STRIDE, given["c2w"].shape[1])
    poses = relative_poses(given["c2w"])
    maps = plucker_maps(config, poses[:, order], given["intrinsics"][:, order])
    cameras = torch.cat([poses.flatten(2), given["intrinsics"] / config.spatial_stride], -1)
    return {
        "hidden_states": given["latents"],
        "timestep": given["timesteps"][:, None],
        "encoder_hidden_states": given["text"][:, None],
        "encoder_attention_mask": given["text_mask"],
        "camera_conditions": cameras[:, ::STRIDE],
        "chunk_plucker": maps.transpose(2, 3).unflatten(-1, given["latents"].shape[-2:]).transpose(1, 2),
        "return_dict": False,
    }


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of `work` after one call to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def compare_forward(
    reference: torch.nn.Module, model: WorldModel, frames: int, grid: tuple[int, int], repeats: int
) -> dict[str, float]:
    given = clip(model, frames, grid)
    theirs = reference_inputs(model, given)
    latents, timesteps = given.pop("latents"), given.pop("timesteps")
    conditioning = Conditioning(**given)
    # Turn by turn, so that a slow minute of the machine meets both.
    pairs = [
        (
            seconds(lambda: model(latents, timesteps, conditioning, mode="bidirectional"), 1),
            seconds(lambda: reference(**theirs), 1),
        )
        for _ in range(repeats)
    ]
    ours_s, theirs_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"ours_s": ours_s, "reference_s": theirs_s, "ratio": theirs_s / ours_s}


def time_streaming(model: WorldModel, grid: tuple[int, int], chunks: int) -> list[float]:
    """Seconds of each chunk of three latent frames: four denoising passes and the commit."""
    config = model.config.for_grid(*grid)
    given = clip(model, 4, grid)
    state = RolloutState.zeros(config)
    times = []
    for number in range(chunks):
        frames = config.first_chunk_size if number == 0 else config.chunk_size
        start_frame = 0 if number == 0 else config.first_chunk_size + (number - 1) * config.chunk_size
        conditioning = Conditioning(
            given["text"],
            given["text_mask"],
            torch.eye(4).repeat(1, frames * STRIDE, 1, 1),
            given["intrinsics"][:, :1].repeat(1, frames * STRIDE, 1),
            torch.tensor([start_frame]),
        )
        noise = torch.randn(1, config.in_channels, frames, *grid)
        start = time.perf_counter()
        clean = denoise_chunk(model, noise, conditioning, state)
        state = commit_chunk(model, clean, conditioning, state)
        times.append(time.perf_counter() - start)
    return times


def compare(
    reference: torch.nn.Module, model: WorldModel, grid: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Measure everything; the stages are told on stderr."""
    with torch.no_grad():
        say("one pass over 5 s")
        short = compare_forward(reference, model, 11, grid, repeats)
        say("one pass over 60 s, which takes a while")
        minute = compare_forward(reference, model, 121, grid, 1)
        say("60 s streamed")
        chunks = time_streaming(model, grid, 40)
    early, late = statistics.median(chunks[4:10]), statistics.median(chunks[-6:])
    theirs_s = len(STREAMING_TIMESTEPS) * minute["reference_s"]
    return {
        "forward_5s": short,
        "forward_60s": minute,
        "chunk_s": {"chunks_5_to_10": early, "last_6_of_40": late, "growth": late / early},
        "minute_of_video": {"ours_s": sum(chunks), "reference_s": theirs_s, "ratio": theirs_s / sum(chunks)},
    }


def say(what: str) -> None:
    print(what, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=448, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--grid", type=int, nargs=2, default=(11, 20), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.width % HEAD_DIM:
        parser.error(f"--width must be a multiple of {HEAD_DIM}")
    torch.set_num_threads(options.threads)
    result = compare(*build(options.width, options.layers), tuple(options.grid), options.repeats)
    if options.json:
        print(json.dumps(result))
        return
    for name, frames in (("forward_5s", 11), ("forward_60s", 121)):
        row = result[name]
        print(
            f"one pass over {frames} latent frames: ours {row['ours_s']:.2f} s, diffusers {row['reference_s']:.2f} s, "
            f"{row['ratio']:.2f}x as fast"
        )
    chunk, minute = result["chunk_s"], result["minute_of_video"]
    print(f"a chunk: {chunk['chunks_5_to_10']:.2f} s early, {chunk['last_6_of_40']:.2f} s at 60 s of video")
    print(
        f"a minute of video in four steps: ours {minute['ours_s']:.1f} s, diffusers {minute['reference_s']:.1f} s, "
        f"{minute['ratio']:.2f}x as fast"
    )


if __name__ == "__main__":
    main()
