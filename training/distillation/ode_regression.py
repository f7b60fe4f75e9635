"""ODE regression: a few-step student learns where the teacher's trajectories end.

The teacher's path from noise to a clip is stored once, at the steps that the student will take; the student sees each chunk
at one of them and is told the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import weights_sha256
from training.checkpoint import load_state, save_state
from training.data.batches import ClipBatches, WindowBatch, side_by_side
from training.optimizer import MasterOptimizer
from training.stages.config import DistillationConfig, StageConfig
from training.stages.flow_matching import chunks_of, clip_frames, predict_velocity
from training.stages.scenic_model import ScenicModel, is_hidden_matrix

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster


@dataclass(frozen=True)
class Trajectory:
    """The way of some clips from noise to their end."""

    clips: WindowBatch
    """Conditions; of its latents only frame 0 is used."""
    states: Tensor
    """At the student's timesteps and then at 0, [K + 1, B, C, T, H, W] float16; frame 0 is clean in all of them."""


@torch.no_grad()
def guided_velocity(
    model: ScenicModel, latents: Tensor, sigma: Tensor, batch: WindowBatch, guidance: float
) -> Tensor:
    """Predict the teacher's velocity: v + guidance (v - v_null), all frames seeing one another."""
    velocity = predict_velocity(model, latents, sigma, batch, "bidirectional")
    if guidance == 0.0:
        return velocity
    nulled = torch.ones(len(batch.scene), dtype=torch.bool, device=latents.device)
    return velocity + guidance * (
        velocity - predict_velocity(model, latents, sigma, batch, "bidirectional", nulled)
    )


@torch.no_grad()
def follow_teacher(teacher: ScenicModel, batch: WindowBatch, config: DistillationConfig) -> Trajectory:
    """Walk from noise to clips with the teacher, in even Euler steps between the student's timesteps."""
    moving = torch.ones_like(batch.latents[:, 0, :, 0, 0])
    moving[:, 0] = 0.0
    latents = torch.randn_like(batch.latents)
    latents[:, :, 0] = batch.latents[:, :, 0]
    states = [latents]
    levels = [step / 1000.0 for step in (*config.timesteps, 0)]
    for start, stop in pairwise(levels):
        fine = np.linspace(start, stop, config.teacher_steps_between + 1)
        for level, following in pairwise(fine):
            velocity = guided_velocity(teacher, latents, level * moving, batch, config.guidance)
            change = (level - following) * moving
            latents = latents - change[:, None, :, None, None] * velocity
        states.append(latents)
    return Trajectory(batch, torch.stack(states).half())


class StoredTrajectories:
    """One clip's trajectory a file in a folder, read when it is asked for."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Trajectory:
        """Read one.

        Raises:
            ValueError: Its file is damaged.
        """
        tree = load_state(self.path(number))
        return Trajectory(WindowBatch(**tree["clips"]), tree["states"])


def trajectories_tag(teacher: ScenicModel, config: StageConfig, data: str) -> str:
    """Name what decides a trajectory, in sixteen hex digits; how many are wanted and how the student learns do not.

    Args:
        data: Names the clips, `StageData.identity`.
    """
    distillation = config.distillation
    assert distillation is not None
    steps = (distillation.timesteps, distillation.teacher_steps_between, distillation.guidance)
    numbers = (config.seed, config.num_latent_frames, config.cut, *steps)
    network = json.dumps(teacher.world.config.to_dict(), sort_keys=True)
    named = f"{weights_sha256(teacher)} {network} {numbers} {data}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def store_trajectories(
    folder: Path,
    teacher: ScenicModel,
    clips: ClipBatches,
    config: StageConfig,
    cluster: Cluster | None = None,
    tell: Callable[[float], None] = lambda share: None,
) -> StoredTrajectories:
    """Follow the teacher for as many clips as the config wants; those that it left in the folder before are not made again.

    Processes make one after another in turn, each with the whole teacher.

    Args:
        folder: Belongs to what `trajectories_tag` names.
        tell: Told which share of them is there.
    """
    assert config.distillation is not None
    size, rank = (1, 0) if cluster is None else (cluster.size, cluster.rank)
    stored = StoredTrajectories(folder, config.distillation.num_trajectories)
    device = teacher.scenes.device
    for number in range(rank, len(stored), size):
        tell(number / len(stored))
        if stored.path(number).exists():
            continue
        clips.seek(number)
        rng = np.random.default_rng((config.seed, number))
        torch.manual_seed(config.seed + number)
        batch = clips.draw(1, config.num_latent_frames, rng).to(device)
        made = follow_teacher(teacher, batch, config.distillation)
        save_state(stored.path(number), {"clips": batch.tensors(), "states": made.states})
    if cluster is not None:
        cluster.wait()
    return stored


def batched(trajectories: Sequence[Trajectory], device: torch.device) -> Trajectory:
    """Put the trajectories of some clips side by side, on a device."""
    clips = side_by_side([trajectory.clips for trajectory in trajectories])
    states = torch.cat([trajectory.states for trajectory in trajectories], dim=1)
    return Trajectory(clips.to(device), states.to(device))


class OdeRegressionStage:
    """Batches of stored states, one for each chunk, and the loss of the end they lead to."""

    def __init__(self, config: StageConfig, student: ScenicModel, trajectories: StoredTrajectories) -> None:
        if config.distillation is None or not trajectories:
            raise ValueError(f"{config.stage} needs trajectories of a teacher; store some first")
        self.name, self.config, self.model = config.stage, config, student
        self.trajectories = trajectories
        self.sigmas = torch.tensor([step / 1000.0 for step in (*config.distillation.timesteps, 0)])
        self.optimizer = MasterOptimizer(student, config.optimizer, is_hidden_matrix)

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch's clips, without the first frames."""
        return clip_frames(self.config, self.model.world.config)

    def share_out(self, cluster: Cluster) -> None:
        """Let processes share the student."""
        cluster.share(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step."""
        numbers = rng.integers(len(self.trajectories), size=self.config.batch_size).tolist()
        drawn = [self.trajectories[number] for number in numbers]
        trajectory = batched(drawn, self.model.scenes.device)
        loss = self.loss(trajectory, self.draw_snapshots(trajectory, rng))
        loss.backward()
        return {"loss": float(loss.detach())}

    def draw_snapshots(self, trajectory: Trajectory, rng: np.random.Generator) -> Tensor:
        """Draw the state that each latent frame is seen in, [B, T]: one for a chunk, the clean one for frame 0."""
        batch_size, frames = trajectory.clips.frame_index.shape
        chunks = chunks_of(self.model.world.config, frames, "chunk_causal")
        drawn = rng.integers(len(self.sigmas), size=(batch_size, len(chunks)))
        drawn = np.repeat(drawn, [stop - start for start, stop in chunks], axis=1)
        drawn[:, 0] = len(self.sigmas) - 1
        return torch.from_numpy(drawn).to(trajectory.states.device)

    def loss(self, trajectory: Trajectory, snapshots: Tensor) -> Tensor:
        """Mean square error of the clean estimates over the frames that are not clean already."""
        states = trajectory.states.float()
        index = snapshots[None, :, None, :, None, None].expand(1, -1, states.shape[2], -1, *states.shape[4:])
        seen = states.gather(0, index)[0]
        sigma = self.sigmas.to(snapshots.device)[snapshots]
        velocity = predict_velocity(self.model, seen, sigma, trajectory.clips, "chunk_causal")
        clean = seen - sigma[:, None, :, None, None] * velocity
        error = (clean - states[-1]).square().mean((1, 3, 4))
        counted = (sigma > 0).float()
        return (error * counted).sum() / counted.sum().clamp_min(1.0)
