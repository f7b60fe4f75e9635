"""The refiner's network: the video path of the LTX-2 transformer. Attribute names follow the release.

Letters in comments and shapes: B batch, T latent frames, S tokens a frame, N = T * S, C width, h heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.refiner.config import RefinerConfig
from model.refiner.layers import EPS, Attention, FeedForward, normalise
from model.refiner.rotary import RotaryTable

MAX_TIMESTEP = 1000.0
"""Of sigma 1."""
HIDDEN_TEXT = -10000.0
"""Added to the scores of text tokens that do not count."""
TIME_CHANNELS = 256
"""Sines and cosines of a timestep."""


class KeysValues(NamedTuple):
    """One block's keys and values of some tokens."""

    raw_keys: Tensor
    """Before rotation, [B, h, N, D]."""
    keys: Tensor
    """After rotation, [B, h, N, D]."""
    values: Tensor
    """[B, h, N, D]."""


@dataclass(frozen=True)
class TextContext:
    """What cross-attention reads, computed once per text."""

    keys: tuple[Tensor, ...]
    """Per block, [B, h, L, D]."""
    values: tuple[Tensor, ...]
    """Per block, [B, h, L, D]."""
    bias: Tensor | None
    """Additive mask [B, 1, 1, L]; None where every token counts."""


@dataclass(frozen=True)
class Prefix:
    """What self-attention sees besides the tokens at hand, the same for every pass over one block of latents."""

    keys: tuple[tuple[Tensor, ...], ...]
    """Per block, runs of rotated keys [B, h, *, D]."""
    values: tuple[tuple[Tensor, ...], ...]
    """Per block, the values of the same runs."""
    mask: Tensor | None
    """Additive, over prefix and own tokens, broadcastable to [B, h, N, keys]; None shows everything."""


def text_bias(mask: Tensor) -> Tensor:
    """Turn a mask of text tokens [B, L], 1 for those that count, into an additive one, [B, 1, 1, L]."""
    return (HIDDEN_TEXT * (1 - mask))[:, None, None]


class _TimestepMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_CHANNELS, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(x)))


class TimeEmbedding(nn.Module):
    """Noise levels to the blocks' modulation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": _TimestepMlp(width)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """Embed sigmas [B, T], 0 to 1, as the head's [B, T, C] and the blocks' [B, T, 6, C]."""
        half = TIME_CHANNELS // 2
        exponents = torch.arange(half, dtype=torch.float32, device=sigmas.device) / half
        angles = (MAX_TIMESTEP * sigmas.float())[..., None] * torch.exp(-math.log(10000.0) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear.weight.dtype)
        embedded = self.emb["timestep_embedder"](waves)
        return embedded, self.linear(functional.silu(embedded)).unflatten(-1, (6, -1))


class CaptionProjection(nn.Module):
    """Text to the network's width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        """Project [B, L, channels] to [B, L, C]."""
        return self.linear_2(functional.gelu(self.linear_1(text), approximate="tanh"))


class RefinerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.attn1 = Attention(width, heads, config.rope_type, config.gated_attn)
        self.attn2 = Attention(width, heads, config.rope_type, config.gated_attn)
        self.ff = FeedForward(width)

    def read_text(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Turn captions [B, L, C] into keys and values of cross-attention, [B, h, L, D] each."""
        return self.attn2.keys_values(captions)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        table: RotaryTable,
        text: tuple[Tensor, Tensor],
        text_bias: Tensor | None,
        prefix: tuple[Sequence[Tensor], Sequence[Tensor]],
        mask: Tensor | None,
    ) -> tuple[Tensor, KeysValues]:
        """Run one block.

        Args:
            x: [B, T, S, C].
            modulation: [B, T or 1, 6, C].
            table: Of the tokens at hand.
            text: Keys and values, [B, h, L, D] each.
            prefix: Runs of keys, rotated, and of values, to see beside the tokens' own.
            mask: As in `Prefix`.

        Returns:
            [B, T, S, C], and the tokens' own keys and values.
        """
        grid = x.shape[1:3]
        parts = (self.scale_shift_table + modulation).unsqueeze(2).unbind(-2)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = parts
        normed = (normalise(x) * (1 + scale) + shift).flatten(1, 2)
        raw_keys, values = self.attn1.keys_values(normed)
        keys = self.attn1.rotate(raw_keys, table)
        queries = self.attn1.rotate(self.attn1.queries(normed), table)
        attended = self.attn1(normed, queries, [*prefix[0], keys], [*prefix[1], values], mask)
        x = x + attended.unflatten(1, grid) * gate
        normed = normalise(x).flatten(1, 2)
        attended = self.attn2(normed, self.attn2.queries(normed), [text[0]], [text[1]], text_bias)
        x = x + attended.unflatten(1, grid)
        x = x + self.ff(normalise(x) * (1 + ff_scale) + ff_shift) * ff_gate
        return x, KeysValues(raw_keys, keys, values)


def _difference(memory: Tensor, latents: Tensor) -> Tensor:
    """By how much a memory's encoding differs from latents, where it covers them, and its coverage; zeros where it has none."""
    encoding, coverage = memory[:, :-1], memory[:, -1:]
    return torch.cat([(encoding - latents) * coverage, coverage], 1)


def _as_tokens(grid: Tensor) -> Tensor:
    """Turn [B, C, T, H, W] into [B, T, S, C]."""
    return grid.permute(0, 2, 3, 4, 1).flatten(2, 3)


class RefinerTransformer(nn.Module):
    """Noisy latents, their noise levels and a text to velocities."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.proj_in = nn.Linear(config.in_channels, width)
        self.caption_projection = CaptionProjection(config.caption_channels, width)
        self.time_embed = TimeEmbedding(width)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.transformer_blocks = nn.ModuleList(RefinerBlock(config) for _ in range(config.num_layers))
        self.proj_out = nn.Linear(width, config.out_channels)
        self.memory_embedder: nn.Linear | None = None
        if config.memory_channels:
            # Without a bias, so that a memory of zeros is none.
            self.memory_embedder = nn.Linear(config.memory_channels, width, bias=False)
            nn.init.zeros_(self.memory_embedder.weight)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.proj_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.proj_in.weight.device

    def blocks(self) -> list[RefinerBlock]:
        """List the blocks, with their type."""
        return [cast("RefinerBlock", block) for block in self.transformer_blocks]

    def encode_text(self, text: Tensor, mask: Tensor) -> TextContext:
        """Compute every block's text keys and values; they depend on nothing else.

        Args:
            text: As the connectors give it, [B, L, caption_channels].
            mask: 1 for tokens that count, [B, L].
        """
        captions = self.caption_projection(text.to(self.device, self.dtype))
        pairs = [block.read_text(captions) for block in self.blocks()]
        mask = mask.to(self.device, self.dtype)
        bias = None if bool((mask == 1).all()) else text_bias(mask)
        return TextContext(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs), bias)

    def embed(
        self, latents: Tensor, sigmas: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embed latents [B, C, T, H, W] and sigmas [B, T or 1].

        Args:
            memory: What a spatial memory shows of the frames, encoding and coverage, [B, memory_channels, T, H, W]; None shows
                nothing, as zeros do.

        Returns:
            Tokens [B, T, S, C], time [B, T or 1, C] for the head, modulation [B, T or 1, 6, C] for the blocks.

        Raises:
            ValueError: There is a memory, and the network reads none.
        """
        tokens = self.proj_in(_as_tokens(latents.to(self.dtype)))
        if memory is not None:
            if self.memory_embedder is None:
                raise ValueError("this refiner reads no spatial memory; leave `memory` out")
            shown = _difference(memory.to(self.device, self.dtype), latents.to(self.dtype))
            tokens = tokens + self.memory_embedder(_as_tokens(shown))
        return tokens, *self.time_embed(sigmas)

    def head(self, x: Tensor, time: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn tokens [B, T, S, C] into velocities [B, C, T, H, W], grid being (H, W)."""
        shift, scale = (self.scale_shift_table + time[:, :, None]).unsqueeze(2).unbind(-2)
        normed = functional.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift
        return self.proj_out(normed).permute(0, 3, 1, 2).unflatten(-1, grid)

    def forward(
        self,
        latents: Tensor,
        sigmas: Tensor,
        text: TextContext,
        table: RotaryTable,
        prefix: Prefix | None = None,
        mask: Tensor | None = None,
        kept: list[KeysValues] | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity of some latent frames.

        Args:
            latents: Noisy, [B, C, T, H, W].
            sigmas: Noise level of each latent frame, 0 to 1, [B, T], or one for all, [B, 1].
            text: From `encode_text`.
            table: Rotary positions of the frames' tokens.
            prefix: Tokens to see besides.
            mask: Additive, over the tokens at hand, where there is no prefix, [N, N].
            kept: Takes each block's own keys and values.
            memory: As `embed` takes it.

        Returns:
            [B, C, T, H, W]; the clean latents are latents - sigma * velocity.
        """
        x, time, modulation = self.embed(latents, sigmas, memory)
        for index, block in enumerate(self.blocks()):
            seen = ((), ()) if prefix is None else (prefix.keys[index], prefix.values[index])
            x, own = block(
                x,
                modulation,
                table,
                (text.keys[index], text.values[index]),
                text.bias,
                seen,
                mask if prefix is None else prefix.mask,
            )
            if kept is not None:
                kept.append(own)
        height, width = latents.shape[-2:]
        return self.head(x, time, (height, width))
