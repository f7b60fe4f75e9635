"""A training on many processes: some share a clip's frames, the others have clips of their own, all share the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from model.refiner import Refiner
from training.checkpoint import load_state
from training.parallel.context import ContextShard
from training.parallel.sharded_checkpoint import load_shards, save_shards
from training.parallel.single_process import (
    Cluster,
    Shareable,
    batch_after_batch,
    index_path,
    is_shared_newer,
)
from training.stages.scenic_model import ScenicModel
from training.trainable import CountsFrames, Trainable

if TYPE_CHECKING:
    from training.parallel.single_process import SharedModel

PATIENCE = timedelta(days=1)
"""For the others: the first process alone draws, encodes and reads what is missing. When one dies torchrun ends all."""


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


@dataclass(frozen=True)
class ClusterConfig:
    """How a training is laid out on processes."""

    context_parallel: int = 1
    """Processes in a row that share the frames of one clip."""
    num_batches: int | None = None
    """Batches of one step, over all processes, computed one after another where there are fewer of these; one for each
    group that shares a clip where None. The same number gives the same training, whatever the number of processes."""
    sharding: ShardingConfig = field(default_factory=ShardingConfig)


class ProcessCluster(Cluster):
    """One of several processes of a training; all of them take the same steps."""

    is_shared = True

    def __init__(self, config: ClusterConfig, device: str = "cpu") -> None:
        """Join; the default process group must have been made.

        Raises:
            ValueError: The processes do not divide as the config says.
        """
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        sharing = config.context_parallel
        if sharing < 1 or self.size % sharing:
            raise ValueError(
                f"{self.size} processes do not divide into groups of {sharing} that share a clip; start a multiple"
            )
        self.num_groups = self.size // sharing
        super().__init__(config.num_batches or self.num_groups)
        if self.batches_per_step % self.num_groups:
            raise ValueError(
                f"{self.batches_per_step} batches a step do not divide among {self.num_groups} groups of processes; "
                "change one of them"
            )
        self.config, self.device = config, device
        self.precision = "bfloat16" if config.sharding.bfloat16 else "float32"
        self.networks: list[ScenicModel | Refiner] = []
        """Those that are shared out."""
        self.everyone: DeviceMesh = init_device_mesh(device, (self.size,))
        layout = init_device_mesh(device, (self.num_groups, sharing), mesh_dim_names=("data", "time"))
        self.group = layout.get_local_rank("data")
        self.clip_sharers = layout.get_group("time")

    def share(self, model: SharedModel) -> SharedModel:
        model.to(self.device)
        shard_model(model, self.everyone, self.config.sharding)
        if self.config.context_parallel > 1:
            if isinstance(model, Refiner):
                raise ValueError("a refiner's clips cannot be shared; leave --context-parallel out")
            model.world.open_shard = partial(ContextShard, group=self.clip_sharers)
        self.networks.append(model)
        return model

    def keep_whole(self, model: nn.Module) -> None:
        model.to(self.device)

    def adopt(self, stage: Trainable) -> None:
        if not isinstance(stage, Shareable):
            raise ValueError(f"{stage.name} is trained by one process; start it without a launcher")
        stage.share_out(self)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        if not self.is_first:
            dist.barrier()
        yield
        if self.is_first:
            dist.barrier()

    def wait(self) -> None:
        dist.barrier()

    def gradients(self, stage: Trainable, rng: np.random.Generator, seed: int, step: int) -> dict[str, float]:
        """Average the gradients of all batches of a step; processes that share a clip draw the same."""
        own = range(self.group, self.batches_per_step, self.num_groups)
        metrics = batch_after_batch(stage, own, seed, step, self._before_batch)
        for parameter in stage.optimizer.parameters:
            # What is shared out was summed in the backward pass.
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad, dist.ReduceOp.SUM)
                parameter.grad.div_(self.size)
        return self._means(metrics)

    def _before_batch(self, is_last: bool) -> None:
        for network in self.networks:
            set_summing(network, is_last)

    def rates(self, stage: Trainable) -> Callable[[float], dict[str, float]]:
        if not isinstance(stage, CountsFrames):
            return lambda steps_per_s: {}
        frames = stage.frames_per_step * self.batches_per_step
        return lambda steps_per_s: {"frames_per_s": steps_per_s * frames}

    def _means(self, metrics: dict[str, float]) -> dict[str, float]:
        means = torch.tensor(list(metrics.values()), dtype=torch.float32, device=self.device)
        dist.all_reduce(means, dist.ReduceOp.SUM)
        return dict(zip(metrics, (means / self.size).tolist(), strict=True))

    def greatest(self, *values: float) -> tuple[float, ...]:
        agreed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return tuple(agreed.tolist())

    def load(self, path: Path) -> dict[Any, Any]:
        if is_shared_newer(path):
            return load_shards(index_path(path), self.everyone)
        return load_state(path)

    def save(self, path: Path, tree: dict[Any, Any]) -> None:
        save_shards(index_path(path), tree)


@contextmanager
def joined(local_rank: int, context_parallel: int, num_batches: int) -> Iterator[ProcessCluster]:
    """Take part in the training that torchrun has started.

    On a GPU of its own where there are any, in bfloat16; on processors in float32, which most of them multiply faster.

    Args:
        local_rank: Number among the processes of this machine.
        context_parallel, num_batches: As in `ClusterConfig`.
    """
    has_gpus = torch.cuda.is_available()
    if has_gpus:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if has_gpus else "gloo", timeout=PATIENCE)
    try:
        config = ClusterConfig(context_parallel, num_batches, ShardingConfig(bfloat16=has_gpus))
        yield ProcessCluster(config, "cuda" if has_gpus else "cpu")
    finally:
        dist.destroy_process_group()
