"""What one block of latents hands to the next: named tensors of a size that never grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.refiner.config import RefinerConfig
from model.refiner.rotary import RotaryTable, rotate
from model.refiner.transformer import KeysValues, Prefix

NUM_FRAMES = "num_frames"
"""State tensor that counts the latent frames committed, the sink included; the next block begins at this index."""
SINK_FRAMES = 1
"""Leading latent frames that stay visible for ever, as stage 1 made them."""


def state_shapes(config: RefinerConfig, tokens_per_frame: int, history: int) -> dict[str, tuple[int, ...]]:
    """List every state tensor's shape, without the batch axis, in the order graphs take them.

    Args:
        tokens_per_frame: Latent pixels of a frame.
        history: Latent frames of the ring buffers.
    """
    heads, width = config.num_attention_heads, config.attention_head_dim
    shapes: dict[str, tuple[int, ...]] = {NUM_FRAMES: ()}
    for layer in range(config.num_layers):
        for part, frames in (("sink", SINK_FRAMES), ("history", history)):
            for name in ("key", "value"):
                shapes[f"blocks.{layer}.{part}_{name}"] = (heads, frames * tokens_per_frame, width)
    return shapes


@dataclass(frozen=True)
class RefinerState:
    """The memory of a refined stream; never changed in place.

    Sink keys are kept before rotation, for the sink moves along; history keys after it. Latent frame p of the history stands
    in slot (p - 1) mod history of its ring buffer.
    """

    tensors: Mapping[str, Tensor]
    """By name, each [1, ...]; names and shapes are `state_shapes`, `num_frames` is float32."""

    @property
    def num_frames(self) -> Tensor:
        """Latent frames committed, the sink included, float32 [1]."""
        return self.tensors[NUM_FRAMES]

    @property
    def tokens_per_frame(self) -> int:
        """Latent pixels of a frame."""
        return self.tensors["blocks.0.sink_key"].shape[2] // SINK_FRAMES

    @property
    def history(self) -> int:
        """Latent frames that the ring buffers hold."""
        return self.tensors["blocks.0.history_key"].shape[2] // self.tokens_per_frame

    @classmethod
    def start(cls, sinks: list[KeysValues], history: int) -> RefinerState:
        """Begin with the sink's keys and values of every block, and an empty history of some latent frames."""
        first = sinks[0].values
        tokens = first.shape[2] // SINK_FRAMES
        tensors: dict[str, Tensor] = {
            NUM_FRAMES: torch.full((1,), float(SINK_FRAMES), dtype=torch.float32, device=first.device)
        }
        for layer, sink in enumerate(sinks):
            tensors[f"blocks.{layer}.sink_key"] = sink.raw_keys
            tensors[f"blocks.{layer}.sink_value"] = sink.values
            for name in ("key", "value"):
                empty = first.new_zeros(1, first.shape[1], history * tokens, first.shape[3])
                tensors[f"blocks.{layer}.history_{name}"] = empty
        return cls(tensors)

    def append(self, blocks: list[KeysValues]) -> RefinerState:
        """Write the keys and values of some refined latent frames over the oldest of the history."""
        if not self.history:
            raise ValueError("the state keeps no history; begin it with one latent frame or more")
        count = blocks[0].values.shape[2] // self.tokens_per_frame
        after = dict(self.tensors)
        after[NUM_FRAMES] = self.num_frames + count
        for layer, own in enumerate(blocks):
            for name, new in (("key", own.keys), ("value", own.values)):
                key = f"blocks.{layer}.history_{name}"
                after[key] = write_ring(self.tensors[key], new, self.num_frames, self.tokens_per_frame)
        return RefinerState(after)

    def prefix(self, config: RefinerConfig, sink_table: RotaryTable, count: int) -> Prefix:
        """Gather what a block of `count` latent frames sees besides itself; the sink's keys are rotated here, once."""
        keys, values = [], []
        for layer in range(config.num_layers):
            name = f"blocks.{layer}."
            sink = rotate(self.tensors[name + "sink_key"], sink_table, config.rope_type)
            keys.append((sink, self.tensors[name + "history_key"]))
            values.append((self.tensors[name + "sink_value"], self.tensors[name + "history_value"]))
        mask = None
        if torch.compiler.is_compiling() or float(self.num_frames) < SINK_FRAMES + self.history:
            # Fused kernels are faster without a mask, so a full ring has none.
            mask = attention_mask(self.num_frames, self.history, count, self.tokens_per_frame)
        return Prefix(tuple(keys), tuple(values), mask)


def sink_frame(num_frames: Tensor, history: int) -> Tensor:
    """Say at which latent frame the sink stands: just before the oldest of the history, float32 [1].

    Args:
        num_frames: Latent frames committed, the sink included, float32 [1].
        history: Latent frames of the ring buffers.
    """
    held = (num_frames - SINK_FRAMES).clamp(min=0, max=history)
    return (num_frames - held - SINK_FRAMES).clamp(min=0)


def attention_mask(num_frames: Tensor, history: int, count: int, tokens_per_frame: int) -> Tensor:
    """Hide the slots of the ring that nothing was written to yet.

    Before anything was committed, only the first of the latent frames at hand is shown: the sink, to itself.

    Returns:
        Additive [1, 1, 1, keys], over the tokens of the sink, the ring and `count` latent frames.
    """
    started = num_frames > 0
    slots = torch.arange(history, dtype=torch.float32, device=num_frames.device)
    own = started | (torch.arange(count, device=num_frames.device) < SINK_FRAMES)
    visible = torch.cat([started.expand(SINK_FRAMES), slots < num_frames - SINK_FRAMES, own])
    mask = torch.where(visible, 0.0, float("-inf"))
    return mask[:, None].expand(-1, tokens_per_frame).flatten()[None, None, None]


def write_ring(ring: Tensor, new: Tensor, num_frames: Tensor, tokens_per_frame: int) -> Tensor:
    """Return the ring [1, h, history * S, D] with the newest latent frames of new [1, h, T * S, D] over its oldest."""
    history, count = ring.shape[2] // tokens_per_frame, new.shape[2] // tokens_per_frame
    kept = min(count, history)
    frames = torch.arange(count - kept, count, device=ring.device)
    slots = (num_frames.long() - SINK_FRAMES + frames) % history
    newest = new.unflatten(2, (count, tokens_per_frame))[:, :, -kept:]
    return ring.unflatten(2, (history, tokens_per_frame)).index_copy(2, slots, newest).flatten(2, 3)
