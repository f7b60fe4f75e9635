"""What is computed once on whole clips and once on shares of them, to be compared: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import ProcessGroup

from model.attention.gdn import Chunks, frame_attention
from model.attention.sharding import FrameShard
from model.attention.short_convolution import short_convolution
from model.block import FeedForward
from model.conditioning import Conditioning
from model.config import ModelConfig, tiny
from model.world_model import Mode, WorldModel
from training.parallel.context import ContextShard

Open = Callable[[Chunks], FrameShard]
Case = Callable[[Open, torch.dtype], dict[str, Tensor]]
Arrays = dict[str, NDArray[Any]]

FRAMES = 14
"""Divides neither by 4 nor, with chunks of 3, along chunk borders."""
CHUNKS: dict[str, Chunks] = {
    "single frames": [(n, n + 1) for n in range(FRAMES)],
    "chunk-causal": [(0, 4), (4, 7), (7, 10), (10, FRAMES)],
    "bidirectional": [(0, FRAMES)],
}
CONFIG = replace(tiny(), chunk_size=3, first_chunk_size=4, num_cached_chunks=2, downscale_softmax=True)


def _leaves(dtype: torch.dtype, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(shape).to(dtype).requires_grad_() for name, shape in shapes.items()}


def _answer(output: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weigh the output to one number and collect the gradients of the leaves."""
    torch.manual_seed(2)
    weight = torch.randn(output.shape).to(output.dtype)
    (output * weight).sum().backward()
    gradients = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"value": output.detach(), **gradients}


def delta_net(chunks: Chunks) -> Case:
    """The frame-wise delta rule with its normaliser, forward and backward scans."""

    def compute(open_shard: Open, dtype: torch.dtype) -> dict[str, Tensor]:
        shape = (2, FRAMES, 2, 5, 4)
        vectors = dict.fromkeys(("q", "k", "rq", "rk", "v"), shape)
        leaves = _leaves(dtype, **vectors, beta=shape[:-1], decay=shape[:3])
        shard = open_shard(chunks)
        held = {name: shard.shard(leaf, 1) for name, leaf in leaves.items()}
        scale = 20**-0.5
        output, _ = frame_attention(
            held["q"].relu() + 0.1,
            held["k"].relu() * scale,
            held["rq"],
            held["rk"] * scale,
            held["v"],
            held["beta"].sigmoid(),
            held["decay"].sigmoid(),
            shard.chunks,
            borders=shard.border_states,
        )
        return _answer(shard.all_gather(output, 1), leaves)

    return compute


def key_convolution(chunks: Chunks, across: bool) -> Case:
    def compute(open_shard: Open, dtype: torch.dtype) -> dict[str, Tensor]:
        leaves = _leaves(dtype, x=(2, FRAMES, 3, 6), weight=(6, 1, 4))
        shard = open_shard(chunks)
        wider, near = shard.add_halo(shard.shard(leaves["x"], 1), 3)
        output = shard.drop_halo(short_convolution(wider, leaves["weight"], near, None, across), 3)
        return _answer(shard.all_gather(output, 1), leaves)

    return compute


def feed_forward(chunks: Chunks) -> Case:
    def compute(open_shard: Open, dtype: torch.dtype) -> dict[str, Tensor]:
        torch.manual_seed(3)
        layer = FeedForward(CONFIG).to(dtype)
        leaves = _leaves(dtype, x=(2, FRAMES, 6, CONFIG.hidden_size))
        shard = open_shard(chunks)
        output, _ = layer(shard.shard(leaves["x"], 1), (2, 3), shard, None)
        return _answer(shard.all_gather(output, 1), leaves | dict(layer.named_parameters()))

    return compute


def world_model(mode: Mode, softmax_every_n: int = CONFIG.softmax_every_n) -> Case:
    """A whole network whose every weight matters: both kinds of blocks, both camera branches."""

    def compute(open_shard: Open, dtype: torch.dtype) -> dict[str, Tensor]:
        config = replace(CONFIG, softmax_every_n=softmax_every_n)
        torch.manual_seed(4)
        model = WorldModel(config, fresh=True)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model = model.to(dtype)
        model.open_shard = open_shard
        latents, timesteps, conditioning = clip(config, FRAMES, dtype)
        leaves = dict(model.named_parameters()) | {"text": conditioning.text.requires_grad_()}
        if mode != "streaming":
            frames = 1 + config.temporal_stride * (FRAMES - 1)
            cameras = {"c2w": conditioning.c2w[:, :frames], "intrinsics": conditioning.intrinsics[:, :frames]}
            conditioning = replace(conditioning, start_frame=None, **cameras)
        return _answer(model(latents, timesteps, conditioning, mode=mode), leaves)

    return compute


def clip(config: ModelConfig, frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Conditioning]:
    """Random latents, timesteps and, in packed windows, cameras."""
    torch.manual_seed(5)
    count = frames * config.temporal_stride
    poses = torch.eye(4).expand(2, count, 4, 4).clone()
    poses[..., :3, 3] = torch.randn(2, count, 3)
    size = config.frame_width * 0.6
    centre = torch.tensor([size, size, config.frame_width / 2, config.frame_height / 2])
    grid = (config.latent_height, config.latent_width)
    latents = torch.randn(2, config.in_channels, frames, *grid).to(dtype)
    timesteps = torch.rand(2, frames).to(dtype) * 1000
    conditioning = Conditioning(
        text=torch.randn(2, config.text_length, config.text_dim).to(dtype),
        text_mask=(torch.arange(config.text_length) < 4).to(dtype).expand(2, -1),
        c2w=poses.to(dtype),
        intrinsics=centre.to(dtype).expand(2, count, 4),
        start_frame=torch.zeros(2, dtype=torch.int64),
    )
    return latents, timesteps, conditioning


CASES: dict[str, Case] = {
    **{f"delta net, {name}": delta_net(chunks) for name, chunks in CHUNKS.items()},
    **{f"key convolution, {name}": key_convolution(chunks, True) for name, chunks in CHUNKS.items()},
    "key convolution within chunks": key_convolution(CHUNKS["chunk-causal"], False),
    **{f"feed-forward, {name}": feed_forward(chunks) for name, chunks in CHUNKS.items()},
    "softmax blocks, chunk-causal": world_model("chunk_causal", softmax_every_n=1),
    "softmax blocks, bidirectional": world_model("bidirectional", softmax_every_n=1),
    "whole model, chunk-causal": world_model("chunk_causal"),
    "whole model, bidirectional": world_model("bidirectional"),
    "whole model, training window": world_model("streaming"),
}


def on_one_process(name: str, dtype: torch.dtype) -> Arrays:
    """Compute a case on whole clips."""
    return {key: np.asarray(tensor) for key, tensor in CASES[name](FrameShard, dtype).items()}


def on_shares(group: ProcessGroup, names: list[str], dtype: torch.dtype) -> dict[str, Arrays]:
    """Compute cases on this process's share of the frames, gradients as the mean of all processes'."""
    answers: dict[str, Arrays] = {}
    for name in names:
        answer = CASES[name](lambda chunks: ContextShard(chunks, group), dtype)
        for key, tensor in answer.items():
            if key.startswith("gradient"):
                dist.all_reduce(tensor)
                tensor /= group.size()
        answers[name] = {key: np.asarray(tensor) for key, tensor in answer.items()}
    return answers


def differences(ours: Arrays, truth: Arrays) -> dict[str, float]:
    """Largest difference of every array over the largest entry of the true one."""
    assert ours.keys() == truth.keys()
    scale = {key: max(float(np.abs(array).max()), 1e-30) for key, array in truth.items()}
    return {key: float(np.abs(ours[key] - truth[key]).max()) / scale[key] for key in truth}
