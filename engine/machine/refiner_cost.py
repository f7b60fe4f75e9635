"""What the refiner costs: operations, bytes moved and memory, by arithmetic from its sizes. Nothing is measured or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RefinerPrecision = Literal["nvfp4", "fp8", "bf16"]
BITS: Mapping[RefinerPrecision, float] = {"nvfp4": 4.5, "fp8": 8.0, "bf16": 16.0}
"""Per weight of the blocks' products, scales included."""
HALF_BYTES = 2
"""Of a key, a value, or a weight outside the blocks' products."""
TIME_CHANNELS = 256


@dataclass(frozen=True)
class RefinerSizes:
    """Sizes of the transformer and of its stream; the defaults are the released ones at 720p."""

    hidden_size: int = 4096
    num_layers: int = 48
    latent_channels: int = 128
    text_dim: int = 3840
    text_length: int = 1024
    """Tokens, registers included."""
    tokens_per_frame: int = 22 * 40
    block_size: int = 3
    """Latent frames refined at a time."""
    window: int = 11
    """Latent frames seen besides, the sink included."""
    num_steps: int = 3
    """Euler steps; one pass more commits."""

    @property
    def num_passes(self) -> int:
        """Of the transformer per block of latents."""
        return self.num_steps + 1

    @property
    def product_weights(self) -> int:
        """Weights of the blocks' products: two attentions of four, and a feed-forward of four times the width."""
        return self.num_layers * 16 * self.hidden_size**2

    @property
    def other_parameters(self) -> int:
        """All else: embeddings, time, captions, head, and the blocks' biases, norms and tables."""
        width = self.hidden_size
        per_block = 8 * width + 4 * width + 5 * width + 6 * width
        embed = self.latent_channels * width + width
        time = TIME_CHANNELS * width + width + width * width + width + 6 * width * width + 6 * width
        captions = self.text_dim * width + width + width * width + width
        head = width * self.latent_channels + self.latent_channels + 2 * width
        return self.num_layers * per_block + embed + time + captions + head


@dataclass(frozen=True)
class RefinerCost:
    """The cost of one block of latents in one precision of the blocks' products."""

    precision: RefinerPrecision
    product_operations: float
    """Of the blocks' products, in that precision, all passes."""
    attention_operations: float
    """Of softmax attention, in bf16, all passes."""
    other_operations: float
    """Of embedding and head, in bf16, all passes."""
    text_operations: float
    """Of captions and text keys and values: once per text, not per block of latents."""
    product_bytes: float
    """Weights of the blocks' products."""
    other_bytes: float
    """All other weights."""
    state_bytes: int
    """Keys and values of the sink and the history."""
    text_bytes: int
    """Text keys and values."""
    working_bytes: int
    """Keys and values of one layer side by side, and the widest activations."""
    num_passes: int

    @property
    def moved_bytes(self) -> float:
        """Read and written per block: every pass reads all weights, the state and the text; the commit writes the state."""
        per_pass = self.product_bytes + self.other_bytes + self.state_bytes + self.text_bytes
        return self.num_passes * per_pass + self.state_bytes

    @property
    def memory_bytes(self) -> float:
        """Held at once, for one state: a snapshot costs another `state_bytes`."""
        weights = self.product_bytes + self.other_bytes
        return weights + self.state_bytes + self.text_bytes + self.working_bytes

    def compute_ms(self, operations_per_s: Mapping[str, float]) -> float:
        """Milliseconds per block at a card's peaks, by precision."""
        half = (self.attention_operations + self.other_operations) / operations_per_s["bf16"]
        return 1e3 * (self.product_operations / operations_per_s[self.precision] + half)

    def memory_ms(self, bytes_per_s: float) -> float:
        """Milliseconds per block at a card's memory bandwidth."""
        return 1e3 * self.moved_bytes / bytes_per_s


def refiner_cost(precision: RefinerPrecision, sizes: RefinerSizes | None = None) -> RefinerCost:
    """Count one block of latents.

    Raises:
        ValueError: The precision is not known.
    """
    if precision not in BITS:
        raise ValueError(f"no cost is known in {precision!r}; use {', '.join(BITS)}")
    sizes = sizes or RefinerSizes()
    width, layers, passes = sizes.hidden_size, sizes.num_layers, sizes.num_passes
    tokens = sizes.block_size * sizes.tokens_per_frame
    keys = (sizes.window + sizes.block_size) * sizes.tokens_per_frame
    text = sizes.text_length
    # Cross-attention's keys and values are the text's, so 14 of a block's 16 squares are used in every pass.
    products = 2 * 14 * tokens * width**2 * layers
    attention = 2 * 2 * tokens * (keys + text) * width * layers
    ends = 2 * 2 * tokens * sizes.latent_channels * width
    time = 2 * (TIME_CHANNELS * width + 7 * width**2)
    captions = 2 * text * (sizes.text_dim * width + width**2)
    return RefinerCost(
        precision,
        product_operations=float(passes * products),
        attention_operations=float(passes * attention),
        other_operations=float(passes * (ends + time)),
        text_operations=float(captions + 2 * 2 * text * width**2 * layers),
        product_bytes=sizes.product_weights * BITS[precision] / 8,
        other_bytes=float(sizes.other_parameters * HALF_BYTES),
        state_bytes=2 * layers * sizes.window * sizes.tokens_per_frame * width * HALF_BYTES,
        text_bytes=2 * layers * text * width * HALF_BYTES,
        working_bytes=(2 * keys + 6 * tokens) * width * HALF_BYTES,
        num_passes=passes,
    )


def missing_memory(cost: RefinerCost, free_bytes: float, beside_bytes: float = 0.0) -> float:
    """Say how many bytes a GPU lacks to hold the refiner, 0 where it fits.

    Args:
        free_bytes: Of the GPU's memory.
        beside_bytes: What the first stage and the decoder hold on the same GPU.
    """
    return max(0.0, cost.memory_bytes + beside_bytes - free_bytes)
