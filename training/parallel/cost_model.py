"""What the paper's stages need of a cluster: memory of a GPU, speed, days; estimates, whose formulas docs/cluster.md shows.

Letters: L blocks, of which A are softmax blocks; C width, D head width; T latent frames of S tokens, N = T S; P parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

from model.config import ModelConfig, sana_wm
from model.refiner import Refiner, RefinerConfig
from model.world_model import WorldModel
from training.stages.config import StageConfig
from training.stages.presets import paper_stages
from training.stages.table import STAGES

GIB = float(1 << 30)
DAY_S = 86400.0


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it."""

    memory_gib: float
    peak: float
    """Dense bfloat16 operations a second."""


GPUS = {
    "a100": Gpu(80e9 / GIB, 312e12),
    "h100": Gpu(80e9 / GIB, 989e12),
    "h200": Gpu(141e9 / GIB, 989e12),
}
STATE_BYTES = 24
"""Of a trained parameter, shared by all GPUs, float32: itself, its gradient, master, average, and Adam's two memories."""
FROZEN_BYTES = 4
WHOLE_BYTES = 12
"""Of a trained parameter, in every process before it is shared out: itself, master and average."""
KEPT_BYTES = 265
"""Over C, of a token in a block: what the backward pass needs, in bfloat16 and, in scans and norms, float32 (measured)."""
REFINER_TEXT = 1024
"""Tokens of the refiner's text."""
USABLE = 0.9
"""Share of a GPU's memory that can be filled; the rest goes to the driver, to buffers of a moment and to gaps between blocks."""
PAPER_DAYS = {
    "autoencoder-swap": 3.5,
    "framewise-gdn": 2.75,
    "hybrid-attention": 2.0,
    "minute-camera": 8.0,
    "best-clips": 2.5,
}
"""On 64 H100, of the stages that the paper gives days for."""


@dataclass(frozen=True)
class Layout:
    """A cluster and how it is used."""

    num_gpus: int
    gpu: Gpu
    utilisation: float = 0.3
    """Share of the peak that is assumed to be reached, operations that are computed twice included."""
    recompute: bool = True
    """Whether a block's activations are computed again instead of being kept."""


@dataclass(frozen=True)
class StageCost:
    """One stage on a cluster."""

    stage: str
    context_parallel: int
    gpus_used: int
    """Groups that would have no clip of a step's batch stand idle."""
    batches_per_group: int
    """Computed one after another in a step."""
    state_gib: float
    """Parameters, gradients, master weights, EMA and the optimiser's memories: this GPU's part."""
    gathered_gib: float
    """Parameters that are whole for a moment, and gradients before they are summed."""
    activations_gib: float
    memory_gib: float
    fits: bool
    petaflop_per_step: float
    """Of all GPUs together."""
    tokens_per_s: float
    """Of one GPU: tokens of the clips that are trained on."""
    step_s: float
    days: float
    paper_days: float | None
    """What the paper says for 64 H100."""
    paper_utilisation: float | None
    """Share of the peak of 64 H100 that the paper's days come to, counted as here."""


@cache
def num_parameters(config: ModelConfig) -> tuple[int, int]:
    """Count the parameters of one delta-net block, the larger kind, and of the whole network, from its layers' shapes."""
    with torch.device("meta"):
        model = WorldModel(config)
    counts = [sum(p.numel() for p in block.parameters()) for block in model.blocks]
    return max(counts), sum(p.numel() for p in model.parameters())


@cache
def refiner_parameters(config: RefinerConfig, rank: int | None) -> tuple[int, int, int]:
    """Count the parameters of one block, of the whole refiner, and those that are trained."""
    with torch.device("meta"):
        model = Refiner(config)
    block, every = (
        sum(p.numel() for p in part.parameters()) for part in (model.transformer_blocks[0], model)
    )
    width, text = config.hidden_size, config.cross_attention_dim
    # Two matrices for each of six products of width x width, two that read the text, and two of the feed-forward layer.
    sides = 6 * 2 * width + 2 * (text + width) + 2 * 5 * width
    return block, every, every if rank is None else config.num_layers * rank * sides


def refiner_operations(
    config: RefinerConfig, num_frames: int, tokens_per_frame: int, text_length: int
) -> float:
    """Multiplications and additions of one clip's forward pass, its text included."""
    width, tokens = config.hidden_size, num_frames * tokens_per_frame
    token = 28 * width**2 + 4 * width * (tokens + text_length)
    text = 4 * text_length * width * config.cross_attention_dim
    return float(config.num_layers * (tokens * token + text))


def forward_operations(config: ModelConfig, num_frames: int, seen: float = 1.0) -> float:
    """Multiplications and additions of one clip's forward pass.

    A token costs 48 C^2 in a block's matrices (24 of C x C), 14 C D in the scans of a delta-net block (three erasures, two
    updates, two readings) and 4 C text_length in cross-attention; a softmax block 8 N^2 C for its two paths.

    Args:
        seen: Share of all pairs of tokens that softmax blocks look at; next to nothing where they see a window only.
    """
    width, head = config.hidden_size, config.head_dim
    tokens = num_frames * config.tokens_per_frame
    num_softmax = sum(config.is_softmax(layer) for layer in range(config.num_layers))
    token = 48 * width**2 + 4 * width * config.text_length
    linear = tokens * (config.num_layers * token + (config.num_layers - num_softmax) * 14 * width * head)
    return linear + num_softmax * 8.0 * tokens**2 * width * seen


def seen_share(stage: StageConfig, num_sharing: int = 1) -> float:
    """Share of all pairs of tokens that softmax blocks look at in whole clips.

    Args:
        num_sharing: Processes with equal runs of a clip's frames; of the pairs of the last, which sees most, where several.
    """
    return 1 - 1 / (2 * num_sharing) if STAGES[stage.stage].mode == "chunk_causal" else 1.0


def step_operations(
    stage: StageConfig, config: ModelConfig, recompute: bool, num_sharing: int = 1
) -> tuple[float, float]:
    """Operations of one clip in a step: those that the GPUs of a clip share, and those that each of them does.

    A backward pass costs two forward passes, and one more where activations are computed again. In self-forcing the student
    makes its clip whole on every GPU: half its steps and one commit for each chunk; every few steps it learns from the
    teacher, who is asked with and without text, and from the critic.

    Args:
        num_sharing: Where several, what is shared is counted as if each did as much as the last of them.
    """
    whole = forward_operations(config, stage.num_latent_frames, seen_share(stage, num_sharing))
    learning = (4 if recompute else 3) * whole
    distillation = stage.distillation
    if stage.refining is not None:
        # Windows are cut at random behind the first frame, so a clip is half as long as the longest.
        frames = (stage.num_latent_frames + 1 + stage.refining.block_size) / 2
        network, length = stage.refining.network, REFINER_TEXT
        whole = refiner_operations(network, math.ceil(frames), config.tokens_per_frame, length)
        # Of frozen matrices no gradient is computed, but what passes through them is.
        return (3 + recompute if stage.refining.rank is None else 2 + recompute) * whole, 0.0
    streamed = forward_operations(config, stage.num_latent_frames, seen=0.0)
    if distillation is not None and STAGES[stage.stage].is_quantised:
        return learning + whole, (len(distillation.timesteps) + 1) * streamed
    if distillation is None or not STAGES[stage.stage].is_distribution_matching:
        return learning, 0.0
    rollout = ((len(distillation.timesteps) + 1) / 2 + 1) * streamed
    turns = 1.0 / distillation.generator_every
    return learning + turns * 3 * whole, (1 + turns) * rollout + turns * 3 * streamed


def paper_costs(layout: Layout) -> list[StageCost]:
    """Estimate what each of the paper's stages needs with the released network.

    Raises:
        ValueError: The GPUs do not divide into groups that share a clip.
    """
    return [stage_cost(stage, sana_wm(), layout) for stage in paper_stages().values()]


def stage_cost(stage: StageConfig, config: ModelConfig, layout: Layout) -> StageCost:
    """Estimate what a stage needs.

    Raises:
        ValueError: The GPUs do not divide into groups that share a clip, or there are none.
    """
    sharing = stage.context_parallel
    if layout.num_gpus < 1 or layout.num_gpus % sharing:
        raise ValueError(
            f"{layout.num_gpus} GPUs do not divide into groups of {sharing}, by which {stage.stage} shares its clips; "
            "name a multiple"
        )
    groups = min(layout.num_gpus // sharing, stage.batch_size)
    batches = math.ceil(stage.batch_size / groups)
    used = groups * sharing
    shared, repeated = step_operations(stage, config, layout.recompute)
    slowest = step_operations(stage, config, layout.recompute, sharing)[0] / sharing + repeated
    step_s = batches * slowest / (layout.utilisation * layout.gpu.peak)
    state, gathered, activations = memory_bytes(stage, config, used, batches, layout.recompute)
    total = (state + gathered + activations) / GIB
    tokens = stage.batch_size * stage.num_latent_frames * config.tokens_per_frame
    paper_days = PAPER_DAYS.get(stage.stage)
    return StageCost(
        stage=stage.stage,
        context_parallel=sharing,
        gpus_used=used,
        batches_per_group=batches,
        state_gib=state / GIB,
        gathered_gib=gathered / GIB,
        activations_gib=activations / GIB,
        memory_gib=total,
        fits=total < USABLE * layout.gpu.memory_gib,
        petaflop_per_step=batches * groups * (shared + sharing * repeated) / 1e15,
        tokens_per_s=tokens / used / step_s,
        step_s=step_s,
        days=step_s * stage.loop.num_steps / DAY_S,
        paper_days=paper_days,
        paper_utilisation=None if paper_days is None else _implied(stage, config, paper_days),
    )


def _networks(stage: StageConfig) -> tuple[int, int]:
    """How many networks a stage trains, and how many it only asks."""
    if STAGES[stage.stage].is_quantised:
        return 1, 1
    return (2, 1) if STAGES[stage.stage].is_distribution_matching else (1, 0)


def state_bytes(stage: StageConfig, config: ModelConfig, num_processes: int) -> float:
    """Bytes of one process's part of the state: all networks, gradients, master weights, EMA and Adam's memories."""
    if stage.refining is not None:
        _, every, learning = refiner_parameters(stage.refining.network, stage.refining.rank)
        return (
            STATE_BYTES * learning + FROZEN_BYTES * every * (stage.refining.rank is not None)
        ) / num_processes
    trained, frozen = _networks(stage)
    return (trained * STATE_BYTES + frozen * FROZEN_BYTES) * num_parameters(config)[1] / num_processes


def whole_bytes(stage: StageConfig, config: ModelConfig) -> float:
    """Bytes that every process holds before anything is shared out: whole networks, master weights and EMA."""
    if stage.refining is not None:
        _, every, learning = refiner_parameters(stage.refining.network, stage.refining.rank)
        return WHOLE_BYTES * learning + FROZEN_BYTES * every * (stage.refining.rank is not None)
    trained, frozen = _networks(stage)
    return (trained * WHOLE_BYTES + frozen * FROZEN_BYTES) * num_parameters(config)[1]


def memory_bytes(
    stage: StageConfig, config: ModelConfig, num_gpus: int, batches: int, recompute: bool
) -> tuple[float, float, float]:
    """Bytes on one GPU: state, what is gathered for a moment, activations of one clip's share."""
    block, parameters = num_parameters(config)
    num_layers, width = config.num_layers, config.hidden_size
    if stage.refining is not None:
        network = stage.refining.network
        block, parameters, _ = refiner_parameters(network, stage.refining.rank)
        num_layers, width = network.num_layers, network.hidden_size
    state = state_bytes(stage, config, num_gpus)
    rest = parameters - num_layers * block
    # bfloat16: two blocks and all that is no block. Gradients: a block in bfloat16 and its sum in float32.
    gathered = 2.0 * (2 * block + rest) + 6.0 * block
    if batches > 1:
        # Until the last batch of a step gradients are added up before they are shared out, in float32.
        gathered += 4.0 * parameters
    held = math.ceil(stage.num_latent_frames / stage.context_parallel) * config.tokens_per_frame
    kept = float(KEPT_BYTES * held * width)
    inputs = 2.0 * held * width
    activations = num_layers * inputs + kept if recompute else num_layers * kept
    if stage.context_parallel > 1:
        # Keys and values of all frames, of both paths.
        activations += 4 * 2.0 * stage.num_latent_frames * config.tokens_per_frame * width
    return state, gathered, activations


def _implied(stage: StageConfig, config: ModelConfig, days: float) -> float:
    shared, _ = step_operations(stage, config, recompute=True)
    operations = shared * stage.batch_size * stage.loop.num_steps
    return operations / (64 * GPUS["h100"].peak * days * DAY_S)
