"""A network whose parameters are shared out among processes, block by block, and gathered when a block computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import checkpoint

from model.refiner import Refiner
from training.stages.scenic_model import ScenicModel


@dataclass(frozen=True)
class ShardingConfig:
    """How a network lies on its processes."""

    bfloat16: bool = True
    """Whether blocks compute in bfloat16; parameters and sums of gradients are float32 in any case."""
    recompute: bool = True
    """Whether a block's activations are computed again in the backward pass instead of being kept."""


def shard_model(model: ScenicModel | Refiner, mesh: DeviceMesh, config: ShardingConfig) -> None:
    """Keep this process's part of each parameter; gradients become means over all processes of the mesh."""
    dtype = torch.bfloat16 if config.bfloat16 else None
    # Cameras come in float32 and stay so: inputs are not cast.
    policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    options = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": True}
    blocks = model.transformer_blocks if isinstance(model, Refiner) else model.world.blocks
    for block in blocks:
        if config.recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        fully_shard(block, **options)
    # Stages call the methods named here, not the modules, and parameters must be there by then.
    if isinstance(model, Refiner):
        for block in blocks:
            register_fsdp_forward_method(block, "read_text")
        fully_shard(model, **options)
        register_fsdp_forward_method(model, "encode_text")
        return
    fully_shard(model.world, **options)
    fully_shard(model, **options)
    register_fsdp_forward_method(model.world, "step")
    register_fsdp_forward_method(model, "text")


def set_summing(model: nn.Module, is_last: bool) -> None:
    """Say whether the next backward pass is the last of a step, after which gradients are summed over processes."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(is_last, recurse=False)
            module.set_is_last_backward(is_last)
