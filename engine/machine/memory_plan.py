"""What a model takes on a device, from the shapes of its tensors, before any of them is read.

Weights, state and caches are exact; working memory is counted in activations, fitted to measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from engine.machine.refiner_cost import RefinerSizes, refiner_cost

PlanPrecision = Literal["bf16", "fp8", "nvfp4", "fp32"]
"""Of the large linear layers; the rest of the denoiser and the decoder are 16 bit, or 32 with fp32."""
BITS: Mapping[str, float] = {"nvfp4": 4.5, "fp8": 8.0, "bf16": 16.0, "fp32": 32.0}
"""Per weight of the large layers, block scales included."""
PLANNED: tuple[PlanPrecision, ...] = ("bf16", "fp8", "nvfp4")
CARD_GIB = (8, 12, 16, 24, 32, 80)
CONTEXT_BYTES = 640 << 20
"""Driver, libraries and their workspaces on a GPU; an estimate until it is measured."""
FRAME_BYTES = 4
"""Of a number of a picture before it becomes bytes."""
STEP_ACTIVATIONS: Mapping[int, float] = {2: 27.0, 4: 34.0}
"""Token streams [N, C] in float32 that live at once in a pass, by bytes of a weight; measured: 26.5 to 27.6, 32.9 to 41.7."""
DECODER_ACTIVATIONS = 6.3
"""Of the decoder's last stage, [8, 8h, 8w, C], that live at once; measured: 6.3."""
FRAME_COPIES = 2.75
"""Pictures in float32 that live at once when they become bytes."""
CONV_TAPS, PAST = 27, 2
"""Weights of a 3x3x3 convolution for each pair of channels, and the past frames it keeps."""


@dataclass(frozen=True)
class DenoiserSizes:
    """Sizes of a world model and of its stream; the defaults are the released ones at 720p."""

    in_channels: int = 128
    hidden_size: int = 2240
    num_heads: int = 20
    num_layers: int = 20
    mlp_ratio: float = 3.0
    softmax_every_n: int = 4
    text_dim: int = 2304
    text_length: int = 300
    chunk_size: int = 3
    first_chunk_size: int = 4
    num_cached_chunks: int = 2
    temporal_stride: int = 8
    spatial_stride: int = 32
    frame_height: int = 704
    frame_width: int = 1280
    conv_kernel: int = 4

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DenoiserSizes:
        """Read the sizes out of a ModelConfig's `to_dict`."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    @property
    def inner_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def grid(self) -> tuple[int, int]:
        return self.frame_height // self.spatial_stride, self.frame_width // self.spatial_stride

    @property
    def tokens(self) -> int:
        """Of one latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def num_softmax(self) -> int:
        return self.num_layers // self.softmax_every_n

    @property
    def large_weights(self) -> int:
        """Weights of the layers that are stored in the precision asked for; see `export/quantization/layers.py`."""
        width = self.hidden_size
        return self.num_layers * (9 * width**2 + 3 * width * self.inner_size)

    @property
    def num_weights(self) -> int:
        """All numbers of a checkpoint."""
        width, heads, inner = self.hidden_size, self.num_heads, self.inner_size
        block = 17 * width**2 + 23 * width + 2 * heads * (width + 1) + 2 * heads + 1
        block += 3 * width * inner + 22 * inner
        convolutions = 2 * self.conv_kernel * width * (self.num_layers - self.num_softmax)
        ends = 2 * width * self.in_channels + width + self.in_channels + 2 * width
        time = 256 * width + width + width**2 + width + 6 * width**2 + 6 * width
        text = self.text_length * self.text_dim + self.text_dim * width + width + width**2 + 2 * width
        rays = 6 * self.temporal_stride * width + width + 4 * width
        return self.num_layers * block + convolutions + ends + time + text + rays

    def state_bytes(self, width: int) -> int:
        """Of the rollout state: caches and histories of `width` bytes a number, delta-net states in float32."""
        frame = self.tokens * self.hidden_size
        cached = self.first_chunk_size + (self.num_cached_chunks - 1) * self.chunk_size
        num_delta = self.num_layers - self.num_softmax
        delta = num_delta * (2 * self.hidden_size // self.num_heads + 1) * self.hidden_size
        frames = 4 * cached * self.num_softmax + (self.conv_kernel - 1) * num_delta + self.num_layers
        return frames * frame * width + (delta + 1) * 4


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of the causal LTX-2 decoder; the defaults are the released ones."""

    latent_channels: int = 128
    widths: tuple[int, ...] = (1024, 512, 256, 128)
    """Channels from the latent to the pixels."""
    num_blocks: tuple[int, ...] = (5, 5, 5, 5)
    """Residual blocks of each stage."""
    growth: int = 8
    """Cells that an upsampler makes of one."""
    out_channels: int = 48

    @classmethod
    def of(cls, latent_channels: int, block_channels: Sequence[int], layers: Sequence[int]) -> DecoderSizes:
        """Read the sizes out of an autoencoder's config, whose lists go from the pixels to the latent."""
        inner = tuple(channels // 2 for channels in block_channels[::-1])
        return cls(latent_channels, (block_channels[-1], *inner), tuple(layers[::-1]))

    def convolutions(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield each convolution, in running order: channels in and out, stage, and frames of a latent frame there."""
        yield self.latent_channels, self.widths[0], 0, 1
        for stage, (width, count) in enumerate(zip(self.widths, self.num_blocks, strict=True)):
            if stage:
                before = self.widths[stage - 1]
                yield before, width * self.growth, stage - 1, 2 ** (stage - 1)
            for _ in range(2 * count):
                yield width, width, stage, 2**stage
        last = len(self.widths) - 1
        yield self.widths[-1], self.out_channels, last, 2**last

    @property
    def num_weights(self) -> int:
        return sum(given * CONV_TAPS * made + made for given, made, _, _ in self.convolutions())

    def num_cached(self, grid: tuple[int, int]) -> int:
        """Numbers in the caches for a latent grid of rows and columns."""
        return sum(given * PAST * grid[0] * grid[1] * 4**stage for given, _, stage, _ in self.convolutions())

    def last_activation(self, grid: tuple[int, int]) -> int:
        """Numbers in the widest of its layers, the last stage's."""
        last = len(self.widths) - 1
        return self.widths[-1] * 2**last * grid[0] * grid[1] * 4**last


@dataclass(frozen=True)
class Part:
    """One line of a plan."""

    name: str
    num_bytes: int
    note: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """What lies on the device at once while a world is walked through."""

    precision: PlanPrecision
    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)

    def fits(self, num_bytes: float) -> bool:
        return self.num_bytes <= num_bytes


def memory_plan(
    precision: PlanPrecision = "bf16",
    refiner: bool = False,
    denoiser: DenoiserSizes | None = None,
    decoder: DecoderSizes | None = None,
    context_bytes: int = CONTEXT_BYTES,
) -> MemoryPlan:
    """Add up a model's memory.

    Args:
        refiner: Count the released second stage too.
        context_bytes: Of the driver and libraries.

    Raises:
        ValueError: The refiner has no such precision.
    """
    if refiner and precision == "fp32":
        raise ValueError(f"the refiner is not planned in fp32; use {', '.join(PLANNED)}")
    sizes, vae = denoiser or DenoiserSizes(), decoder or DecoderSizes()
    width = 4 if precision == "fp32" else 2
    large = sizes.large_weights * BITS[precision] / 8
    weights = int(large + (sizes.num_weights - sizes.large_weights) * width)
    parts = [Part("denoiser, weights", weights, f"{sizes.num_weights / 1e9:.2f} billion")]
    if precision in ("fp8", "nvfp4"):
        parts.append(
            Part("denoiser, plan of the first chunk", weights, "TensorRT: used once, holds all weights again")
        )
    tokens = sizes.first_chunk_size * sizes.tokens
    frames = sizes.temporal_stride * sizes.frame_height * sizes.frame_width * 3
    step = int(STEP_ACTIVATIONS[width] * tokens * sizes.hidden_size * 4)
    decoding = max(
        FRAME_COPIES * frames * FRAME_BYTES, DECODER_ACTIVATIONS * vae.last_activation(sizes.grid) * width
    )
    parts += [
        Part("rollout state", 2 * sizes.state_bytes(2 if precision == "bf16" else 4), "read and written"),
        Part("denoiser, working memory", step),
        Part("decoder, weights", vae.num_weights * width, "LTX-2, without its encoder"),
        Part("decoder, caches", 2 * vae.num_cached(sizes.grid) * width, "read and written"),
        Part("decoder, working memory", int(decoding) + frames),
    ]
    if refiner:
        parts += _refiner_parts(precision, sizes)
    parts.append(Part("driver and libraries", context_bytes, "estimate"))
    return MemoryPlan(precision, tuple(parts))


def _refiner_parts(precision: PlanPrecision, sizes: DenoiserSizes) -> list[Part]:
    assert precision != "fp32"
    cost = refiner_cost(precision, RefinerSizes(tokens_per_frame=sizes.tokens))
    return [
        Part("refiner, weights", int(cost.product_bytes + cost.other_bytes)),
        Part("refiner, cache", 2 * cost.state_bytes + cost.text_bytes, "read and written, and the text's"),
        Part("refiner, working memory", cost.working_bytes),
    ]


def fitting(
    num_bytes: float, refiner: bool = False, denoiser: DenoiserSizes | None = None
) -> list[PlanPrecision]:
    """Return the precisions in which a model fits into a device's memory."""
    return [precision for precision in PLANNED if memory_plan(precision, refiner, denoiser).fits(num_bytes)]


def planned_sizes(model: str, frame_size: tuple[int, int] | None = None) -> DenoiserSizes:
    """Return the sizes of a model by name, for frames of a width and height.

    Raises:
        ValueError: There is no such model to plan, or its latents do not divide such frames.
    """
    sizes = DenoiserSizes()
    if model != "sana-wm":
        raise ValueError(f"memory is planned for sana-wm, not for {model!r}; the pocket plays in 2 GB")
    if frame_size is None:
        return sizes
    width, height = frame_size
    if width % sizes.spatial_stride or height % sizes.spatial_stride:
        raise ValueError(
            f"frames of {width}x{height} do not divide by {sizes.spatial_stride}; choose multiples of it"
        )
    return replace(sizes, frame_width=width, frame_height=height)


def check_precision(name: str) -> PlanPrecision:
    """Return a precision that memory is planned in.

    Raises:
        ValueError: It is none.
    """
    for precision in get_args(PlanPrecision):
        if name == precision:
            return precision
    raise ValueError(f"no memory plan is known in {name!r}; use {', '.join(PLANNED)}")


OFF_DEVICE = (
    "text encoders (Gemma-2-2B, Gemma-3-12B): a world file holds the encoded prompt, so they are never on the device",
    "the autoencoder's encoder: a world file holds its first latent frame",
    "snapshots for rewinding: host memory, one rollout state and one set of caches each",
)
"""What a walk needs no device memory for."""
DOWNLOADS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "to play": (("SANA-WM_streaming/sana_dit", 10.7), ("SANA-WM_streaming/ltx2_causal_vae", 2.0)),
    "to make worlds of photos": (("gemma-2-2b-it", 5.2),),
    "for the refiner": (("refiner_diffusers", 38.0), ("gemma3_12b, to encode its prompts", 46.0)),
}
"""GB, as the release states its folders; network weights in float32 are counted from their shapes."""


def check_memory(plan: MemoryPlan, free_bytes: int, device: str) -> None:
    """Refuse a model that a device cannot hold.

    Raises:
        ValueError: It needs more than is free; the sentence says how much.
    """
    if plan.fits(free_bytes):
        return
    raise ValueError(
        f"the model needs about {plan.num_bytes / 2**30:.1f} GiB in {plan.precision} and {device} has "
        f"{free_bytes / 2**30:.1f} GiB free; make the world smaller, close other programs, or see "
        "`flaneur doctor --model sana-wm`"
    )
