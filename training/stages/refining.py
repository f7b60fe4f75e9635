"""The refiner's stage: from what the first stage made, half noised, to the truth.

With z of the first stage, x0 the truth and noise eps: x1 = (1 - s) z + s eps at the level s that sampling starts from. For
sigma in (0, s] and a = sigma / s the network sees x_t = (1 - a) x0 + a x1, and is to say (x1 - x0) / s. Latent frames before the
block are given clean, and see one another as in a stream. Where there is a spatial memory, the block alone is shown it, and an
error counts by how much of its cell is covered: what is not shown nobody can tell, and would drown the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.checkpoint import weights_sha256
from model.refiner import Refiner
from model.refiner.adapter import Adapter
from model.refiner.rotary import video_rotary
from model.refiner.state import SINK_FRAMES
from training.data.batches import ClipBatches
from training.data.refiner_pairs import SUFFIX, PairBatch, RefinerPairs, save_pairs
from training.optimizer import MasterOptimizer
from training.parallel.shards import whole
from training.parallel.single_process import Cluster
from training.stages.config import RefiningConfig, StageConfig
from training.stages.flow_matching import text_of
from training.stages.rollout import make_again
from training.stages.scenic_model import ScenicModel

LEAST_SIGMA = 1e-6
FEW_TOKENS, MANY_TOKENS = 1024, 4096
LOW_MEAN, HIGH_MEAN = 0.95, 2.05
"""Of the logit-normal levels, at those numbers of tokens; linear between them."""
LOW_QUANTILE, HIGH_QUANTILE = -2.5758, 3.0902
"""Deviations of the 0.5 % and 99.9 % points, which levels are stretched to 0 and 1 from."""
UNIFORM_SHARE = 0.1
UNSEEN_WEIGHT, SHARPNESS = 0.02, 8
"""Weight of errors in cells that the memory does not cover, beside 1 in those that it covers; and how soon it falls off, as a
power of coverage. In cells that are covered by nine tenths nothing that is shown tells what stage 1 has wrong."""
LAYERS = r"transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
"""What an adapter changes: queries, keys, values, outputs and feed-forward layers."""


def refiner_sigmas(batch_size: int, num_tokens: int, start: float, rng: np.random.Generator) -> Tensor:
    """Draw noise levels in (0, start], [B]: shifted logit-normal, stretched, reflected near 0, a tenth uniform."""
    share = np.clip((num_tokens - FEW_TOKENS) / (MANY_TOKENS - FEW_TOKENS), 0.0, 1.0)
    mean = LOW_MEAN + share * (HIGH_MEAN - LOW_MEAN)
    low, high = (1 / (1 + math.exp(-(mean + deviation))) for deviation in (LOW_QUANTILE, HIGH_QUANTILE))
    drawn = 1 / (1 + np.exp(-(mean + rng.standard_normal(batch_size))))
    stretched = (drawn - low) / (high - low)
    least = 1e-3
    stretched = np.clip(np.where(stretched < least, 2 * least - stretched, stretched), 0.0, 1.0)
    uniform = least + (1 - least) * rng.random(batch_size)
    levels = np.where(rng.random(batch_size) < UNIFORM_SHARE, uniform, stretched)
    return torch.from_numpy(np.clip(levels, LEAST_SIGMA, start).astype(np.float32))


def stream_mask(num_given: int, block_size: int, tokens_per_frame: int) -> Tensor:
    """Show tokens what a stream shows them: their own block, those before it and the first frame, additive [N, N].

    Args:
        num_given: Latent frames before the last block, the first of which is the sink.
    """
    frames = torch.arange(num_given + block_size)
    block = torch.where(frames < SINK_FRAMES, -1, (frames - SINK_FRAMES) // block_size)
    block = block.repeat_interleave(tokens_per_frame)
    return torch.where(block[:, None] >= block, 0.0, float("-inf"))


def add_adapter(network: Refiner, rank: int) -> None:
    """Put adapters of a rank beside the layers that LAYERS names, by peft; all else is frozen.

    Raises:
        ValueError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(f"adapters need peft: pip install -e '.[lora]' ({error})") from None
    layers = [name for name, _ in network.named_modules() if re.fullmatch(LAYERS, name)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), network)


def new_refiner(refining: RefiningConfig) -> Refiner:
    """Draw a refiner; where all of it is trained it begins with no velocity, so with its input but for the noise."""
    refiner = Refiner(refining.network)
    if refining.rank is None:
        for parameter in refiner.proj_out.parameters():
            nn.init.zeros_(parameter)
    return refiner


class RefinerStage:
    """Batches of half-noised clips and the velocity loss."""

    def __init__(self, config: StageConfig, network: Refiner, pairs: RefinerPairs) -> None:
        """Prepare the stage; adapters are trained in place of weights where the config has a rank."""
        assert config.refining is not None
        self.name, self.config, self.refining = config.stage, config, config.refining
        sizes = network.config
        pairs.check(sizes.in_channels, sizes.caption_channels, sizes.memory_channels)
        self.model, self.pairs = network.train().requires_grad_(True), pairs
        if self.refining.rank is not None:
            add_adapter(self.model, self.refining.rank)
        self.optimizer = MasterOptimizer(self.model, config.optimizer, _is_block_matrix)

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch's clips, without the first frames."""
        stride = self.model.config.vae_scale_factors[0]
        return float(self.config.batch_size * (self.config.num_latent_frames - 1) * stride)

    def share_out(self, cluster: Cluster) -> None:
        """Let processes share the network."""
        cluster.share(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step."""
        config, refining, size = self.config, self.refining, self.refining.block_size
        num_blocks = 1 + int(rng.integers((config.num_latent_frames - SINK_FRAMES) // size))
        num_given = SINK_FRAMES + (num_blocks - 1) * size
        batch = self.pairs.draw(config.batch_size, num_given + size, refining.degraded_share, rng)
        batch = batch.to(self.model.device)
        tokens = batch.target[0, 0, 0].numel()
        noise = refining.sigmas[0]
        level = refiner_sigmas(config.batch_size, size * tokens, noise, rng).to(batch.target.device)
        given, truth = batch.target[:, :, :num_given], batch.target[:, :, num_given:]
        if num_given > SINK_FRAMES and rng.random() < refining.rough_history:
            given = torch.cat([given[:, :, :SINK_FRAMES], batch.made[:, :, SINK_FRAMES:num_given]], 2)
        start = (1 - noise) * batch.made[:, :, num_given:] + noise * torch.randn_like(truth)
        share = (level / noise)[:, None, None, None, None]
        sigmas = torch.cat([level.new_zeros(len(level), num_given), level[:, None].expand(-1, size)], 1)
        text = self.model.encode_text(batch.text, batch.text_mask)
        frames = torch.arange(num_given + size, device=truth.device)
        height, width = truth.shape[-2:]
        table = video_rotary(self.model.config, frames, height, width, refining.fps)
        mask = stream_mask(num_given, size, tokens).to(truth.device)
        noisy = torch.cat([given, (1 - share) * truth + share * start], 2)
        memory = batch.memory if self.model.config.memory_channels else None
        shown = (
            None if memory is None else torch.cat([0 * memory[:, :, :num_given], memory[:, :, num_given:]], 2)
        )
        velocity = self.model(noisy, sigmas, text, table, mask=mask, memory=shown)[:, :, num_given:]
        error = (velocity - (start - truth) / noise).square()
        loss = (error * _weight(shown, num_given)).mean()
        loss.backward()
        return {"loss": float(loss.detach())}

    def finished(self) -> tuple[Refiner, Adapter | None]:
        """The network with its EMA weights, adapters merged in, whole; and the adapters apart, where it has some."""
        weights = {name: whole(tensor) for name, tensor in self.model.state_dict().items()}
        weights |= self.optimizer.ema_state()
        adapter = None if self.refining.rank is None else _taken_out(weights)
        network = Refiner(self.model.config)
        network.load_state_dict(weights)
        network.sigmas = self.refining.sigmas
        return network.float().eval(), adapter


def _weight(memory: Tensor | None, num_given: int) -> Tensor | float:
    """How much an error counts in each cell of a block, broadcastable to [B, C, T, h, w]."""
    if memory is None:
        return 1.0
    return UNSEEN_WEIGHT + (1 - UNSEEN_WEIGHT) * memory[:, -1:, num_given:] ** SHARPNESS


def _is_block_matrix(name: str, parameter: nn.Parameter | Tensor) -> bool:
    return name.startswith("transformer_blocks.") and parameter.ndim == 2 and "scale_shift" not in name


def _taken_out(weights: dict[str, Any]) -> Adapter:
    """Merge peft's adapters into the weights beside them, under the layers' own names; returns the adapters."""
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for name in [name for name in weights if ".lora_A." in name]:
        layer, _, _ = name.partition(".lora_A.")
        down, up = weights.pop(name), weights.pop(name.replace(".lora_A.", ".lora_B."))
        layers[layer] = down, up
        base = f"{layer}.base_layer"
        # The rank is peft's alpha too, so that the product is added as it is.
        weights[f"{layer}.weight"] = weights.pop(f"{base}.weight") + up @ down
        if f"{base}.bias" in weights:
            weights[f"{layer}.bias"] = weights.pop(f"{base}.bias")
    return Adapter(1.0, layers)


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
