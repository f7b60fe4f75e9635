"""A small training that runs on one process or on several, to be compared."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from model.config import tiny
from tests.models import perturb, small_autoencoder
from tests.refiner_cases import small_refiner
from training.data.batches import WalkClips
from training.data.latents import LatentWalk
from training.data.memory_clips import MemoryClips
from training.data.refiner_pairs import RefinerPairs
from training.distillation.distribution_matching import DistributionMatchingStage
from training.distillation.ode_regression import OdeRegressionStage, store_trajectories
from training.distillation.quantized import QuantizedDistillationStage
from training.loop import LoopConfig, run_stage
from training.optimizer import NO_MATRIX, MasterOptimizer, OptimizerConfig
from training.parallel import sharded_checkpoint as checkpoint
from training.parallel.cluster import ClusterConfig, ProcessCluster, ShardingConfig
from training.parallel.single_process import Cluster
from training.presets import miniature_preset
from training.progress import RecipeProgress
from training.stages.autoencoder import AutoencoderStage
from training.stages.config import DistillationConfig
from training.stages.flow_matching import FlowMatchingStage
from training.stages.presets import pocket_stages
from training.stages.refining import RefinerStage
from training.stages.scenic_model import ScenicModel
from training.trainable import Trainable

CONFIG = replace(tiny(), chunk_size=3, first_chunk_size=4, num_cached_chunks=2)
WINDOW = 13
"""Latent frames of a batch's windows, without the first frame; with it they divide neither by 2 chunks nor by 4."""
NUM_BATCHES = 4
"""A step's."""
NUM_STAGE_BATCHES = 2
"""A step's of the other stages, each of which takes longer."""
SEED = 7
WHOLE = ShardingConfig(bfloat16=False)
"""In float32, for comparisons."""


def walks() -> list[LatentWalk]:
    torch.manual_seed(1)
    grid = (CONFIG.latent_height, CONFIG.latent_width)
    size = CONFIG.frame_width * 0.6
    made = []
    for scene in range(2):
        c2w = torch.eye(4).repeat(30, CONFIG.temporal_stride, 1, 1)
        c2w[..., :3, 3] = torch.randn(30, CONFIG.temporal_stride, 3)
        latents = torch.randn(30, CONFIG.in_channels, *grid).half()
        made.append(LatentWalk(scene, latents, c2w, torch.tensor([size, size, 12.0, 8.0])))
    return made


class InterruptedStage(FlowMatchingStage):
    """A stage in which somebody presses Ctrl-C during a batch."""

    batches_left = -1

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        self.batches_left -= 1
        if self.batches_left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().backward(rng)


def train(
    cluster: Cluster, folder: Path, num_steps: int, min_side: int = 16, stop_in: int | None = None
) -> dict[str, NDArray[Any]]:
    """Train to a step, from the beginning or from what lies in the folder, and return the EMA weights.

    Args:
        min_side: Of the matrices that Muon takes.
        stop_in: Batch during which the first process is asked to stop.
    """
    torch.manual_seed(0)
    model = cluster.share(ScenicModel(CONFIG, num_scenes=2))
    optimizer = OptimizerConfig(min_side=min_side, muon_lr=0.01, adam_lr=1e-3)
    preset = replace(pocket_stages()["chunk-causal"], num_latent_frames=1 + WINDOW, batch_size=1)
    config = replace(preset, optimizer=optimizer)
    stage = InterruptedStage(config, model, WalkClips(walks()), "chunk_causal")
    if stop_in is not None and cluster.is_first:
        stage.batches_left = stop_in
    loop = LoopConfig(num_steps, precision="float32", warmup=0.0, decay=1e-9, log_every=1)
    with suppress(KeyboardInterrupt):
        run_stage(stage, loop, folder, SEED, progress=RecipeProgress({}, shown=False), cluster=cluster)
    return {name: np.asarray(tensor) for name, tensor in stage.optimizer.ema_state().items()}


def train_shared(
    group: ProcessGroup,
    folder: Path,
    num_steps: int,
    context_parallel: int = 1,
    sharding: ShardingConfig = WHOLE,
    min_side: int = 16,
    stop_in: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Do the same on the processes of a group."""
    cluster = ProcessCluster(ClusterConfig(context_parallel, NUM_BATCHES, sharding))
    return train(cluster, folder, num_steps, min_side, stop_in)


def stages(folder: Path, cluster: Cluster) -> Iterator[Trainable]:
    """Build the stages that are no plain flow matching, each on weights and data of its own, a clip a batch."""
    rng, clips = np.random.default_rng(3), WalkClips(walks())
    videos = [rng.integers(256, size=(24, 32, 32, 3), dtype=np.uint8)]
    clips_of_videos = [MemoryClips.of_video(video) for video in videos]
    torch.manual_seed(0)
    autoencoder = AutoencoderStage(
        small_autoencoder(8, 2), clips_of_videos, 1, (32, 32), optimizer=OptimizerConfig(min_side=16)
    )
    # All weights are drawn before the first stage draws anything.
    student, teacher, critic = (ScenicModel(CONFIG, 2) for _ in range(3))
    yield autoencoder
    adam = OptimizerConfig(adam_lr=1e-3, betas=(0.0, 0.999), min_side=NO_MATRIX)
    few = DistillationConfig((1000, 700), 1, num_trajectories=5, generator_every=2, critic=adam)
    for name, length in (("ode-regression", 7), ("self-forcing-short", 7), ("self-forcing-long", 10)):
        memory = replace(few, num_cached_chunks=2, sink=True) if name == "self-forcing-long" else few
        preset = replace(pocket_stages()[name], num_latent_frames=length, batch_size=1)
        config = replace(preset, optimizer=adam, distillation=memory)
        own, judge, fake = (copy.deepcopy(model) for model in (student, teacher, critic))
        if name == "ode-regression":
            stored = store_trajectories(folder / "trajectories", judge, clips, config, cluster)
            yield OdeRegressionStage(config, own, stored)
        else:
            yield DistributionMatchingStage(config, own, judge, fake, clips)


def train_stages(cluster: Cluster, folder: Path) -> dict[str, NDArray[Any]]:
    """Take three steps of each of `stages` and return all EMA weights."""
    loop = LoopConfig(3, precision="float32", warmup=0.0, decay=1e-9, log_every=1)
    bars, weights = RecipeProgress({}, shown=False), {}
    for stage in stages(folder, cluster):
        cluster.adopt(stage)
        run_stage(stage, loop, folder, SEED, progress=bars, cluster=cluster)
        both = {"": stage.optimizer}
        if isinstance(stage, DistributionMatchingStage):
            both = {"student.": stage.optimizer.student, "critic.": stage.optimizer.critic}
        for role, optimizer in both.items():
            assert isinstance(optimizer, MasterOptimizer)
            for name, tensor in optimizer.ema_state().items():
                weights[f"{stage.name}.{role}{name}"] = np.asarray(tensor)
    return weights


def train_stages_shared(
    group: ProcessGroup, folder: Path, context_parallel: int = 1
) -> dict[str, NDArray[Any]]:
    """Do the same on the processes of a group."""
    return train_stages(ProcessCluster(ClusterConfig(context_parallel, NUM_STAGE_BATCHES, WHOLE)), folder)


def train_refiner(cluster: Cluster, folder: Path, pairs: Path) -> dict[str, NDArray[Any]]:
    """Take three steps of a refiner's adapters and return the weights with them merged in."""
    config = miniature_preset().stage("refiner")
    assert config.refining is not None
    network = small_refiner(torch.float32, num_layers=2)
    refining = replace(config.refining, network=network.config)
    adam = OptimizerConfig(adam_lr=1e-3, min_side=NO_MATRIX)
    torch.manual_seed(0)
    small = replace(config, batch_size=1, optimizer=adam, refining=refining)
    stage = RefinerStage(small, network, RefinerPairs.find([pairs]))
    cluster.adopt(stage)
    loop = LoopConfig(3, precision="float32", warmup=0.0, decay=1e-9, log_every=1)
    bars = RecipeProgress({}, shown=False)
    run_stage(stage, loop, folder, SEED, progress=bars, cluster=cluster)
    return {name: np.asarray(tensor) for name, tensor in stage.finished()[0].state_dict().items()}


def train_refiner_shared(group: ProcessGroup, folder: Path, pairs: Path) -> dict[str, NDArray[Any]]:
    """Do the same on the processes of a group, activations computed again."""
    cluster = ProcessCluster(ClusterConfig(1, NUM_BATCHES, replace(WHOLE, recompute=True)))
    return train_refiner(cluster, folder, pairs)


def train_qad(cluster: Cluster, folder: Path) -> dict[str, NDArray[Any]]:
    """Take three steps of a quantised student and return its EMA weights."""
    adam = OptimizerConfig(adam_lr=1e-3, min_side=NO_MATRIX)
    few = DistillationConfig(timesteps=(1000, 700))
    config = replace(
        pocket_stages()["qad"], num_latent_frames=7, batch_size=1, optimizer=adam, distillation=few
    )
    torch.manual_seed(0)
    student = ScenicModel(CONFIG, 2)
    perturb(student)
    stage = QuantizedDistillationStage(config, student, WalkClips(walks()))
    cluster.adopt(stage)
    loop = LoopConfig(3, precision="float32", warmup=0.0, decay=1e-9, log_every=1)
    bars = RecipeProgress({}, shown=False)
    run_stage(stage, loop, folder, SEED, progress=bars, cluster=cluster)
    return {name: np.asarray(tensor) for name, tensor in stage.optimizer.ema_state().items()}


def train_qad_shared(group: ProcessGroup, folder: Path, context_parallel: int = 1) -> dict[str, NDArray[Any]]:
    """Do the same on the processes of a group."""
    return train_qad(ProcessCluster(ClusterConfig(context_parallel, NUM_BATCHES, WHOLE)), folder)


def break_off_saving(group: ProcessGroup, path: Path, moment: str) -> dict[str, Any]:
    """Save a state, then begin to save another and be torn from it; return what is there afterwards."""
    mesh = init_device_mesh("cpu", (group.size(),))
    rows = torch.arange(10.0).reshape(5, 2)

    def tree(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "rows": distribute_tensor(rows * step, mesh),
            "count": torch.tensor(float(step)),
        }

    checkpoint.save_shards(path, tree(1))
    torn = "tensors" if moment == "after some tensors" else "index"
    with torn_from(torn), suppress(Torn):
        checkpoint.save_shards(path, tree(2))
    if moment == "before the index" and group.rank() == 0:
        # Only the first process writes the index; the others wait for it still.
        dist.barrier()
    found = checkpoint.load_shards(path, mesh)
    before = {"step": found["step"], "count": found["count"].item(), "rows": found["rows"].full_tensor()}
    checkpoint.save_shards(path, tree(3))
    found = checkpoint.load_shards(path, mesh)
    return {
        **{name: np.asarray(value) for name, value in before.items()},
        "next": np.asarray(found["rows"].full_tensor()),
        "files": sorted(
            str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file()
        ),
    }


class Torn(BaseException):
    """As sudden as a kill."""


@contextmanager
def torn_from(part: str) -> Iterator[None]:
    """Break off the next saving where its tensors, or its index, are written half."""

    def tear(*given: Any, **named: Any) -> Any:
        if part == "tensors":
            folder = Path(named["storage_writer"].path)
            folder.mkdir(exist_ok=True)
            (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        raise Torn

    owner, name = (checkpoint.state_dict_saver, "save") if part == "tensors" else (checkpoint, "replacing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, tear)
        yield
