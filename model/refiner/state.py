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
        tokens, history = self.tokens_per_frame, self.history
        count = blocks[0].values.shape[2] // tokens
        if not history:
            raise ValueError("the state keeps no history; begin it with one latent frame or more")
        kept = min(count, history)
        frames = torch.arange(count - kept, count, device=self.num_frames.device)
        slots = (self.num_frames.long() - SINK_FRAMES + frames) % history
        after = dict(self.tensors)
        after[NUM_FRAMES] = self.num_frames + count
        for layer, own in enumerate(blocks):
            for name, new in (("key", own.keys), ("value", own.values)):
                key = f"blocks.{layer}.history_{name}"
                ring = self.tensors[key].unflatten(2, (history, tokens))
                newest = new.unflatten(2, (count, tokens))[:, :, -kept:]
                after[key] = ring.index_copy(2, slots, newest).flatten(2, 3)
        return RefinerState(after)

    def sink_frame(self) -> Tensor:
        """Where the sink stands now: just before the oldest latent frame of the history, float32 [1]."""
        held = (self.num_frames - SINK_FRAMES).clamp(max=self.history)
        return self.num_frames - held - SINK_FRAMES

    def prefix(self, config: RefinerConfig, sink_table: RotaryTable, num_frames: int) -> Prefix:
        """Gather what a block of `num_frames` latent frames sees besides itself; the sink's keys are rotated here, once."""
        keys, values = [], []
        for layer in range(config.num_layers):
            name = f"blocks.{layer}."
            sink = rotate(self.tensors[name + "sink_key"], sink_table, config.rope_type)
            keys.append((sink, self.tensors[name + "history_key"]))
            values.append((self.tensors[name + "sink_value"], self.tensors[name + "history_value"]))
        return Prefix(tuple(keys), tuple(values), self._mask(num_frames))

    def _mask(self, num_frames: int) -> Tensor | None:
        """Hide the slots of the ring that nothing was written to yet."""
        held, history = self.num_frames - SINK_FRAMES, self.history
        if not torch.compiler.is_compiling() and float(held) >= history:
            # Fused kernels are faster without a mask.
            return None
        slots = torch.arange(history, dtype=torch.float32, device=held.device)
        visible = torch.nn.functional.pad(slots < held, (SINK_FRAMES, num_frames), value=True)
        mask = torch.where(visible, 0.0, float("-inf"))
        return mask.repeat_interleave(self.tokens_per_frame)[None, None, None]
