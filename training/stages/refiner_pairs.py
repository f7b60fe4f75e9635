"""The first stage makes clips again, along their own cameras, for the refiner to learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import weights_sha256
from training.data.batches import ClipBatches
from training.data.refiner_pairs import SUFFIX, PairBatch, RefinerPairs, save_pairs
from training.parallel.single_process import Cluster
from training.stages.config import StageConfig
from training.stages.flow_matching import text_of
from training.stages.rollout import make_again
from training.stages.scenic_model import ScenicModel


def pairs_tag(generator: ScenicModel, config: StageConfig, data: str) -> str:
    """Name what decides the pairs, in sixteen hex digits; how many are wanted does not.

    Args:
        data: Names the clips, `StageData.identity`.
    """
    assert config.refining is not None
    numbers = (config.seed, config.num_latent_frames, config.cut, config.refining.timesteps)
    network = json.dumps(generator.world.config.to_dict(), sort_keys=True)
    named = f"{weights_sha256(generator)} {network} {numbers} {data}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def store_pairs(
    folder: Path,
    generator: ScenicModel,
    clips: ClipBatches,
    config: StageConfig,
    cluster: Cluster,
    tell: Callable[[float], None],
) -> RefinerPairs:
    """Make as many clips again as the config wants; processes take turns, and what a folder holds is not made again.

    Args:
        folder: Belongs to what `pairs_tag` names.
        tell: Told which share of them is there.
    """
    assert config.refining is not None
    count, device = config.refining.num_pairs, generator.scenes.device
    files = [folder / f"{number:05d}{SUFFIX}" for number in range(count)]
    for number in range(cluster.rank, count, cluster.size):
        tell(number / count)
        if files[number].exists():
            continue
        clips.seek(number)
        torch.manual_seed(config.seed + number)
        rng = np.random.default_rng((config.seed, number))
        batch = clips.draw(1, config.num_latent_frames, rng).to(device)
        noise = torch.randn(batch.latents.shape).to(device)
        made = make_again(generator, batch, config.refining.timesteps, noise)
        text, mask = text_of(generator, batch)
        save_pairs(files[number], PairBatch(made, batch.latents, text.detach(), mask))
    cluster.wait()
    return RefinerPairs(files)
