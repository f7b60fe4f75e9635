"""How fast a chunk could be at a card's published peaks: an estimate from operations and bytes, no measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from engine.files.bundle import STEP_INPUTS
from engine.machine.cards import Card, find_card
from engine.machine.refiner_cost import RefinerCost, refiner_cost
from export.onnx import step_inputs
from export.quantization.layers import DECODER_RULES, Low, precision_of
from export.sources import PRESETS
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.decoders import new_decoder
from model.rollout import RolloutState, state_shapes
from model.sampler import STREAMING_TIMESTEPS
from model.world_model import WorldModel

BITS = {"nvfp4": 4.5, "fp8": 8.0, "bf16": 16.0, "fp32": 32.0}
"""Per weight, block scales included."""
NUM_STEPS = {"sana-wm": len(STREAMING_TIMESTEPS), "pocket": 1}
"""Denoising steps per chunk; one pass more commits it."""
WINDOWED = "aten._scaled_dot_product_flash_attention_for_cpu"
REFINED = "sana-wm"
"""The preset that a refiner was trained for."""
USED_BY_PARENT = (".t_conv", ".conv_k", ".conv_k_cam")
"""Modules that only hold weights; what multiplies by them is the module around."""
ASSUMPTIONS = (
    "dense tensor-core peaks at boost clock, products accumulated in fp32; fp32 products run as TF32",
    "every pass reads all weights and the whole state once, and a commit writes the state once",
    "whatever lies between products never leaves the chip, and costs nothing",
    "operations and memory traffic overlap perfectly, and nothing is ever launched late",
)


PUBLISHED = {
    "rtx5090": (
        ("4 steps and sink, whole minute", "39 s"),
        ("the same in NVFP4", "34 s"),
        ("of which the denoiser", "8 s"),
        ("of which the decoder", "26 s"),
    )
}
"""What SANA-WM's authors report for 60 s of video; the decoder is the rest, and no refiner is in it."""


@dataclass(frozen=True)
class Row:
    """One precision of one part, for one chunk."""

    part: str
    precision: str
    operations: float
    num_bytes: float
    """Weights of this precision; the state stands in the row `state`."""
    compute_ms: float
    memory_ms: float


@dataclass(frozen=True)
class Roofline:
    """The bound of one model on one card."""

    card: str
    model: str
    precision: str
    passes: int
    """Of the denoiser per chunk, the commit included."""
    rows: tuple[Row, ...]
    part_ms: dict[str, float]
    """Per part the larger of all its compute and all its memory time."""
    chunk_s: float
    """Seconds of video that a chunk is."""

    @property
    def bound_ms(self) -> float:
        """The time per chunk that no kernel could beat."""
        return sum(self.part_ms.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain values for JSON."""
        return {"estimate": True, "bound_ms": self.bound_ms, "assumptions": ASSUMPTIONS, **asdict(self)}


def roofline(model: str, card: str, low: Low, fps: float = 16.0, refiner: bool = False) -> Roofline:
    """Count a preset's chunk and divide by a card's peaks.

    Args:
        refiner: Count the released refiner too, by `engine.machine.refiner_cost`.

    Raises:
        ValueError: The card or the preset is not known.
    """
    if model not in PRESETS:
        raise ValueError(f"a speed model takes the sizes of {' or '.join(PRESETS)}, not {model!r}")
    if refiner and model != REFINED:
        raise ValueError(f"the refiner goes with {REFINED}; {model} has none")
    if low == "int8":
        raise ValueError("no peaks are known for int8; estimate nvfp4, fp8 or bf16")
    config, peaks = PRESETS[model](), find_card(card)
    with FakeTensorMode():
        step, decode = _count_step(config, low), _count_decoder(config)
    passes = NUM_STEPS[model] + 1
    rows, part_ms = [], {}
    for part, counts, times, state_passes in (
        ("denoiser", step, passes, passes + 1),
        ("decoder", decode, config.chunk_size, 2 * config.chunk_size),
    ):
        own = [
            _row(part, name, counts, times, peaks) for name in sorted(counts.operations | counts.weight_bytes)
        ]
        carried = counts.state_bytes * state_passes
        own.append(Row(part, "state", 0.0, carried, 0.0, 1e3 * carried / peaks.bytes_per_s))
        rows += own
        part_ms[part] = max(sum(row.compute_ms for row in own), sum(row.memory_ms for row in own))
    if refiner:
        own = refiner_rows(refiner_cost(low), peaks)
        rows += own
        part_ms["refiner"] = max(sum(row.compute_ms for row in own), sum(row.memory_ms for row in own))
    chunk_s = config.chunk_size * config.temporal_stride / fps
    return Roofline(peaks.title, model, low, passes, tuple(rows), part_ms, chunk_s)


@dataclass(frozen=True)
class _Counts:
    operations: Counter[str]
    weight_bytes: Counter[str]
    state_bytes: int


def refiner_rows(cost: RefinerCost, card: Card) -> list[Row]:
    """One block of latents, which is one chunk: the blocks' products, all else in bf16, and what is carried."""
    half = cost.attention_operations + cost.other_operations
    carried = (cost.num_passes + 1) * cost.state_bytes + cost.num_passes * cost.text_bytes
    rows = (
        (cost.precision, cost.product_operations, cost.num_passes * cost.product_bytes),
        ("bf16", half, cost.num_passes * cost.other_bytes),
        ("state", 0.0, float(carried)),
    )
    return [
        Row(
            "refiner",
            precision,
            operations,
            size,
            1e3 * operations / card.operations_per_s[precision] if operations else 0.0,
            1e3 * size / card.bytes_per_s,
        )
        for precision, operations, size in rows
    ]


def _row(part: str, precision: str, counts: _Counts, times: int, card: Card) -> Row:
    operations, size = counts.operations[precision] * times, counts.weight_bytes[precision] * times
    compute_ms = 1e3 * operations / card.operations_per_s[precision]
    return Row(part, precision, operations, size, compute_ms, 1e3 * size / card.bytes_per_s)


def _count_step(config: ModelConfig, low: Low) -> _Counts:
    model = WorldModel(config).eval()
    # Counts go to modules that are called; `step` is no call of its module.
    model.forward = cast(Any, model.step)
    inputs = step_inputs(config, config.chunk_size)
    names = list(state_shapes(config))
    state = RolloutState(dict(zip(names, inputs[-len(names) :], strict=True)))
    memory = inputs[len(STEP_INPUTS)] if config.memory_channels else None
    operations: Counter[str] = Counter()
    with _counting(model) as found:
        latents, timesteps, c2w, intrinsics, start, text, mask = inputs[: len(STEP_INPUTS)]
        model(latents, timesteps, Conditioning(text, mask, c2w, intrinsics, start, memory), state)
    for layer, by_operator in found().items():
        for operator, count in by_operator.items():
            name = f"{layer}.scores" if operator == WINDOWED else layer
            operations[precision_of(name, low)] += count
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        # Tables and norms belong to no product; they are few, and fp32.
        is_product = parameter.ndim > 1 and not layer.endswith("norm") and "table" not in name
        if layer.endswith(USED_BY_PARENT):
            layer = layer.rpartition(".")[0]
        precision = precision_of(layer, low) if is_product else "fp32"
        sizes[precision] += int(parameter.numel() * BITS[precision] / 8)
    carried = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors.values())
    return _Counts(operations, sizes, carried)


def _count_decoder(config: ModelConfig) -> _Counts:
    decoder = new_decoder(config)
    grid = (config.latent_height, config.latent_width)
    caches = [torch.zeros(shape) for _, shape in decoder.cache_spec(*grid)]  # type: ignore[operator]
    shown: tuple[torch.Tensor, ...] = ()
    if config.memory_channels:
        guide = (config.temporal_stride, config.frame_height, config.frame_width)
        shown = (torch.zeros(*guide, 3, dtype=torch.uint8), torch.zeros(guide), torch.zeros(guide))
    with _counting(decoder) as found:
        decoder(torch.zeros(1, config.in_channels, 1, *grid), *shown, *caches)
    precision = precision_of("decoder", "bf16", DECODER_RULES)
    total = sum(count for by_operator in found().values() for count in by_operator.values())
    weights = sum(p.numel() for name, p in decoder.named_parameters() if ".decoder." in f".{name}")
    state = sum(cache.numel() * cache.element_size() for cache in caches)
    return _Counts(
        Counter({precision: total}), Counter({precision: int(weights * BITS[precision] / 8)}), state
    )


@contextmanager
def _counting(module: nn.Module) -> Iterator[Callable[[], dict[str, dict[str, int]]]]:
    """Count operations by the innermost module that does them; yields what returns them after the block."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mode = FlopCounterMode(display=False, custom_mapping={attention: _attention_operations})

    def found() -> dict[str, dict[str, int]]:
        prefix = type(module).__name__
        totals = {
            name.removeprefix(prefix).removeprefix("."): {str(key): count for key, count in counts.items()}
            for name, counts in mode.get_flop_counts().items()
            if name.startswith(prefix)
        }
        own = {name: dict(counts) for name, counts in totals.items()}
        for name, counts in totals.items():
            parents = [
                other for other in totals if other != name and (not other or name.startswith(other + "."))
            ]
            if parents:
                parent = own[max(parents, key=len)]
                for operator, count in counts.items():
                    parent[operator] -= count
        return {name: {key: count for key, count in counts.items() if count} for name, counts in own.items()}

    with torch.no_grad(), mode:
        yield found


def _attention_operations(q: Any, k: Any, v: Any, *_args: Any, out_shape: Any = None, **_kwargs: Any) -> int:
    """Two products for every pair of query and key; shapes [B, h, N, D]."""
    batch, heads, queries, width = q
    return 2 * batch * heads * queries * k[2] * (width + v[3])
