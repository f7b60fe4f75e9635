"""The refiner's graphs as functions of plain tensors: what is computed once per text, once per block, and in every pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.files.refiner import CACHES
from engine.session.refiner import OWN, TEXT
from model.refiner import Refiner, RefinerConfig
from model.refiner.rotary import rotate, video_rotary
from model.refiner.state import SINK_FRAMES, attention_mask, sink_frame, write_ring
from model.refiner.transformer import RefinerBlock, text_bias


@dataclass(frozen=True)
class Sizes:
    """What a refiner's graphs are made for."""

    grid: tuple[int, int]
    """Rows and columns of a latent frame."""
    fps: float
    block_size: int
    """Latent frames refined at a time."""
    window: int
    """Latent frames seen besides."""
    half_state: bool = False
    """Whether keys and values are kept in float16, which halves the state, and not in float32."""

    @property
    def state_dtype(self) -> torch.dtype:
        """Precision of keys and values in the state."""
        return torch.float16 if self.half_state else torch.float32

    @property
    def tokens(self) -> int:
        """Tokens of a latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def history(self) -> int:
        """Latent frames of the ring buffers."""
        return self.window - SINK_FRAMES


def _part(refiner: Refiner, **modules: nn.Module) -> Refiner:
    """Make a refiner of only some modules, so that a graph holds no weights it does not use."""
    part = copy.copy(refiner)
    part._modules = dict(modules)
    return part


def _blocks_part(refiner: Refiner, blocks: range) -> tuple[Refiner, list[RefinerBlock]]:
    own = [refiner.blocks()[index] for index in blocks]
    # A dictionary keeps the blocks' numbers in the names of the graph's layers.
    numbered = nn.ModuleDict({str(i): block for i, block in zip(blocks, own, strict=True)})
    return _part(refiner, transformer_blocks=numbered), own


def _groups(tensors: tuple[Tensor, ...], parts: tuple[str, ...]) -> list[tuple[Tensor, ...]]:
    """Split tensors into those of each block."""
    return [tensors[i : i + len(parts)] for i in range(0, len(tensors), len(parts))]


class CaptionGraph(nn.Module):
    """Text and its mask to captions and an additive mask."""

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.model = _part(refiner, caption_projection=refiner.caption_projection)

    def forward(self, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.caption_projection(text), text_bias(text_mask)


class TextGraph(nn.Module):
    """Captions to the text keys and values of some blocks."""

    def __init__(self, refiner: Refiner, blocks: range) -> None:
        super().__init__()
        self.model, self.own = _blocks_part(refiner, blocks)

    def forward(self, captions: Tensor) -> tuple[Tensor, ...]:
        pairs = [block.attn2.keys_values(captions) for block in self.own]
        return tuple(tensor for pair in pairs for tensor in pair)


class PositionsGraph(nn.Module):
    """Where a block of latents and the sink stand: rotary tables, attention mask, rotated sink keys."""

    def __init__(self, config: RefinerConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes

    def forward(self, num_frames: Tensor, *sink_keys: Tensor) -> tuple[Tensor, ...]:
        config, sizes = self.config, self.sizes
        frames = num_frames + torch.arange(sizes.block_size)
        cos, sin = video_rotary(config, frames, *sizes.grid, sizes.fps)
        sink = video_rotary(config, sink_frame(num_frames, sizes.history), *sizes.grid, sizes.fps)
        mask = attention_mask(num_frames, sizes.history, sizes.block_size, sizes.tokens)
        return cos, sin, mask, *(rotate(key, sink, config.rope_type) for key in sink_keys)


class EmbedGraph(nn.Module):
    """Noisy latents, their sigma, and what the memory shows where the refiner reads one, to tokens, time and modulation."""

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        own = {"proj_in": refiner.proj_in, "time_embed": refiner.time_embed}
        if refiner.memory_embedder is not None:
            own["memory_embedder"] = refiner.memory_embedder
        self.model = _part(refiner, **own)

    def forward(
        self, latents: Tensor, sigma: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.embed(latents, sigma, memory)


class HeadGraph(nn.Module):
    """Tokens and time to velocity."""

    def __init__(self, refiner: Refiner, grid: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.grid = _part(refiner, proj_out=refiner.proj_out), grid

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        return self.model.head(hidden, time, self.grid)


class BlocksGraph(nn.Module):
    """Tokens through some blocks; gives also their own keys, before rotation, and values."""

    def __init__(self, refiner: Refiner, blocks: range) -> None:
        super().__init__()
        self.model, self.own = _blocks_part(refiner, blocks)

    def forward(
        self,
        hidden: Tensor,
        modulation: Tensor,
        text_bias: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        kept: list[Tensor] = []
        for block, given in zip(self.own, _groups(tensors, TEXT + CACHES), strict=True):
            text_key, text_value, sink_key, sink_value, history_key, history_value = (
                tensor.float() for tensor in given
            )
            prefix = ((sink_key, history_key), (sink_value, history_value))
            hidden, own = block(
                hidden, modulation, (cos, sin), (text_key, text_value), text_bias, prefix, mask
            )
            kept += [own.raw_keys, own.values]
        return hidden, *kept


class CommitGraph(nn.Module):
    """The state of some blocks after a block of latents, whose keys and values are given."""

    def __init__(self, config: RefinerConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes

    def forward(self, num_frames: Tensor, cos: Tensor, sin: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        after: list[Tensor] = []
        started, tokens = num_frames > 0, self.sizes.tokens
        for given in _groups(tensors, OWN + CACHES):
            key, value, sink_key, sink_value, history_key, history_value = given
            rotated = rotate(key, (cos, sin), self.config.rope_type)
            kept = self.sizes.state_dtype
            after += [
                torch.where(started, sink, new[:, :, : SINK_FRAMES * tokens].to(kept))
                for sink, new in ((sink_key, key), (sink_value, value))
            ]
            after += [
                torch.where(started, write_ring(ring, new.to(kept), num_frames, tokens), ring)
                for ring, new in ((history_key, rotated), (history_value, value))
            ]
        return tuple(after)
