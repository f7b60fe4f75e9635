"""What each convolution of the LTX-2 decoder costs: operations, bytes, and which of the two bounds it on a card.

Counts for one chunk of latent frames; no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.machine.memory_plan import CONV_TAPS, PAST, DecoderSizes, DenoiserSizes

BYTES = {"bf16": 2.0, "fp8": 1.0}
"""Of a weight or an activation that a convolution reads; what it writes is 16 bit."""
ELEMENTWISE_PASSES = 9
"""Activations read or written between two convolutions where nothing is fused: norm (read, write), SiLU (read, write), joining
with the past (read, write), padding (read, write), and half of a residual sum."""


@dataclass(frozen=True)
class DecoderLayer:
    """One convolution, or several of the same shape, for one chunk."""

    name: str
    count: int
    operations: float
    weight_bytes: float
    """Read once for every latent frame."""
    product_bytes: float
    """Activations that convolutions read and write."""
    elementwise_bytes: float
    """Activations that everything between convolutions reads and writes, where nothing is fused."""

    def compute_ms(self, operations_per_s: float) -> float:
        return 1e3 * self.operations / operations_per_s

    def memory_ms(self, bytes_per_s: float, fused: bool) -> float:
        moved = self.weight_bytes + self.product_bytes + (0.0 if fused else self.elementwise_bytes)
        return 1e3 * moved / bytes_per_s

    def bound_ms(self, operations_per_s: float, bytes_per_s: float, fused: bool) -> float:
        """Time that no kernel could beat; what is not fused runs between convolutions, one after the other."""
        products = max(self.compute_ms(operations_per_s), self.memory_ms(bytes_per_s, fused=True))
        return products if fused else products + 1e3 * self.elementwise_bytes / bytes_per_s


def decoder_layers(
    precision: str = "bf16", denoiser: DenoiserSizes | None = None, decoder: DecoderSizes | None = None
) -> list[DecoderLayer]:
    """Count a chunk's convolutions, those of one shape together, in running order.

    Args:
        precision: Of what convolutions read, bf16 or fp8.
    """
    sizes, vae = denoiser or DenoiserSizes(), decoder or DecoderSizes()
    shapes: dict[tuple[int, int, int, int], int] = {}
    for shape in vae.convolutions():
        shapes[shape] = shapes.get(shape, 0) + 1
    return [_layer(shape, count, precision, sizes) for shape, count in shapes.items()]


def _layer(
    shape: tuple[int, int, int, int], count: int, precision: str, sizes: DenoiserSizes
) -> DecoderLayer:
    given, made, stage, frames = shape
    cells = sizes.tokens * 4**stage
    times = count * sizes.chunk_size
    read, written = given * (frames + PAST) * cells, made * frames * cells
    return DecoderLayer(
        name=f"{given} to {made} at {frames} x {sizes.grid[0] << stage} x {sizes.grid[1] << stage}",
        count=count,
        operations=2.0 * CONV_TAPS * given * made * frames * cells * times,
        weight_bytes=CONV_TAPS * given * made * BYTES[precision] * times,
        product_bytes=(read * BYTES[precision] + written * BYTES["bf16"]) * times,
        elementwise_bytes=ELEMENTWISE_PASSES * given * frames * cells * BYTES["bf16"] * times,
    )


def minute_s(
    layers: list[DecoderLayer],
    operations_per_s: Mapping[str, float],
    bytes_per_s: float,
    precision: str,
    fused: bool,
    chunk_s: float,
) -> float:
    """Return the least time for the pictures of a minute, seconds."""
    peak = operations_per_s[precision]
    return 60 / chunk_s * sum(layer.bound_ms(peak, bytes_per_s, fused) for layer in layers) / 1e3
