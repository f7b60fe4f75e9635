"""One block of the world model: what every token passes between its embedding and the velocity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import SelfAttention, SequenceContext, State
from model.config import ModelConfig
from model.cross_attention import CrossAttention
from model.embedding import modulate
from model.feedforward import FeedForward
from model.scene_memory import SceneMemory


class Block(nn.Module):
    """Self-attention, Pluecker term, the scene's memory where there is one, cross-attention, feed-forward."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.scale_shift_table = nn.Parameter(torch.randn(6, size) / size**0.5)
        self.attn = SelfAttention(config, layer)
        self.plucker_proj = nn.Linear(size, size)
        if config.scene_units:
            self.memory = SceneMemory(config)
        self.cross_attn = CrossAttention(config)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: Tensor,
        text_mask: Tensor,
        plucker: Tensor,
        memory: Tensor | None,
        context: SequenceContext,
        state: State | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Transform tokens x [B, T, S, C].

        Args:
            modulation: [B, T, 6, C].
            text: [B, L, C].
            plucker: [B, T, S, C].
            memory: Keys and values of the scene for this block, [B, 2, U, C].
        """
        table = (self.scale_shift_table + modulation).to(x.dtype)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = table.chunk(6, dim=2)
        attended, after = self.attn(modulate(x, shift_a, scale_a), context, state)
        x = torch.addcmul(x, gate_a, attended.to(x.dtype))
        x = x + self.plucker_proj(plucker)
        if memory is not None:
            x = x + self.memory(x.flatten(1, 2), memory[:, 0], memory[:, 1]).view_as(x)
        x = x + self.cross_attn(x.flatten(1, 2), text, text_mask).view_as(x)
        history = None if state is None else state["ffn_history"]
        fed, last = self.mlp(modulate(x, shift_f, scale_f), context.grid, context.timeline, history)
        if context.keep_state:
            after["ffn_history"] = last
        return torch.addcmul(x, gate_f, fed.to(x.dtype)), after
