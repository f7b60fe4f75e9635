"""Text connectors: all hidden states of the text encoder to the text the refiner reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.refiner.config import ConnectorConfig
from model.refiner.layers import EPS, Attention, FeedForward, normalise
from model.refiner.rotary import RotaryTable, text_rotary

TEXT_GAIN = 8.0
"""Range to which each hidden state is scaled."""


def normalise_hidden_states(hidden_states: Tensor, mask: Tensor) -> Tensor:
    """Centre each layer's hidden states and divide them by their range, over valid tokens and all channels.

    Args:
        hidden_states: [B, L, D, layers].
        mask: 1 for valid tokens, [B, L].

    Returns:
        [B, L, D * layers], channel-major; zero where there is no token.
    """
    valid = (mask > 0)[:, :, None, None]
    count = mask.gt(0).sum(-1).view(-1, 1, 1, 1) * hidden_states.shape[2]
    mean = hidden_states.masked_fill(~valid, 0.0).sum((1, 2), keepdim=True) / (count + EPS)
    lowest = hidden_states.masked_fill(~valid, float("inf")).amin((1, 2), keepdim=True)
    highest = hidden_states.masked_fill(~valid, float("-inf")).amax((1, 2), keepdim=True)
    scaled = TEXT_GAIN * (hidden_states - mean) / (highest - lowest + EPS)
    return scaled.masked_fill(~valid, 0.0).flatten(2)


class ConnectorBlock(nn.Module):
    """Self-attention and feed-forward over text tokens."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        width, heads = config.caption_channels, config.video_connector_num_attention_heads
        self.attn1 = Attention(width, heads, config.rope_type, config.video_gated_attn)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, table: RotaryTable) -> Tensor:
        """Run one block over x [B, L, D]."""
        normed = normalise(x)
        queries = self.attn1.rotate(self.attn1.queries(normed), table)
        keys, values = self.attn1.keys_values(normed)
        x = x + self.attn1(normed, queries, [self.attn1.rotate(keys, table)], [values])
        return x + self.ff(normalise(x))


class Connector(nn.Module):
    """Blocks over the prompt's tokens, moved to the front, and learned registers behind them."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        registers = torch.empty(config.video_connector_num_learnable_registers, config.caption_channels)
        self.learnable_registers = nn.Parameter(nn.init.uniform_(registers, -1, 1))
        self.transformer_blocks = nn.ModuleList(
            ConnectorBlock(config) for _ in range(config.video_connector_num_layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Connect x [B, L, D]; mask [B, L] is 1 for valid tokens."""
        length, valid = x.shape[1], mask > 0
        order = torch.argsort((~valid).int(), dim=1, stable=True)
        front = torch.gather(x, 1, order[..., None].expand_as(x))
        position = torch.arange(length, device=x.device)
        registers = self.learnable_registers[position % len(self.learnable_registers)].to(x.dtype)
        is_token = position < valid.sum(1, keepdim=True)
        x = torch.where(is_token[..., None], front, registers)
        table = text_rotary(self.config, length, x.device)
        for block in self.transformer_blocks:
            x = block(x, table)
        return normalise(x)


class TextConnectors(nn.Module):
    """The connectors' video side."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        size = config.caption_channels
        self.text_proj_in = nn.Linear(size * config.text_proj_in_factor, size, bias=False)
        self.video_connector = Connector(config)

    @torch.no_grad()
    def forward(self, hidden_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a prompt's hidden states into the refiner's text.

        Args:
            hidden_states: Of every layer, embeddings first, [B, L, D, layers].
            mask: 1 for valid tokens, [B, L].

        Returns:
            Text [B, L, D], and its mask [B, L]: all ones, for registers stand where there were no tokens.
        """
        wanted = (self.config.caption_channels, self.config.text_proj_in_factor)
        if hidden_states.ndim != 4 or tuple(hidden_states.shape[2:]) != wanted:
            raise ValueError(
                f"hidden states have the shape {tuple(hidden_states.shape)}; the connectors read [B, L, {wanted[0]}, {wanted[1]}]"
            )
        if hidden_states.shape[:2] != mask.shape:
            raise ValueError(
                f"the mask has the shape {tuple(mask.shape)}; give one number for each of {tuple(hidden_states.shape[:2])} tokens"
            )
        packed = normalise_hidden_states(hidden_states, mask).to(self.text_proj_in.weight.dtype)
        text = self.video_connector(self.text_proj_in(packed), mask)
        return text, torch.ones_like(mask)
