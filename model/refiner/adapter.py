"""Low-rank adapters of a refiner (LoRA): read, written and merged; the files are those of the library `peft`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

PREFIX, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
"""Of the names in peft's files, around a layer's own."""
SCALE = "scale"
"""Metadata that says what the product of the two matrices is multiplied by; 1 where it is missing."""


@dataclass(frozen=True)
class Adapter:
    """What is added to some layers: W + scale * up @ down."""

    scale: float
    layers: Mapping[str, tuple[Tensor, Tensor]]
    """By the layer's name: down [rank, in] and up [out, rank]."""

    def tensors(self) -> dict[str, Tensor]:
        """Name the matrices as peft does."""
        named: dict[str, Tensor] = {}
        for layer, (down, up) in self.layers.items():
            named |= {f"{PREFIX}{layer}{DOWN}": down, f"{PREFIX}{layer}{UP}": up}
        return named


def read_adapter(path: Path) -> Adapter:
    """Read an adapter's file.

    Raises:
        ValueError: It cannot be read, or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            scale = float((file.metadata() or {}).get(SCALE, "1"))
            names = set(file.keys())
            layers = {
                name.removeprefix(PREFIX).removesuffix(DOWN): (
                    file.get_tensor(name),
                    file.get_tensor(name.removesuffix(DOWN) + UP),
                )
                for name in sorted(names)
                if name.endswith(DOWN)
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"cannot read the adapter {path} ({error}); name a LoRA of a refiner") from None
    if not layers or 2 * len(layers) != len(names):
        raise ValueError(
            f"{path} holds other tensors than pairs of low-rank matrices; name a LoRA of a refiner"
        )
    return Adapter(scale, layers)


@torch.no_grad()
def merge_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Add an adapter to the weights of a network, which need not be the one it was trained on.

    Raises:
        ValueError: The network lacks a layer, or has it in another size.
    """
    for name, (down, up) in adapter.layers.items():
        try:
            weight = model.get_submodule(name).get_parameter("weight")
        except AttributeError:
            raise ValueError(f"the adapter changes {name}, which the refiner lacks; take another") from None
        if weight.shape != (len(up), down.shape[1]):
            raise ValueError(
                f"the adapter changes {name} as {len(up)}x{down.shape[1]}, the refiner has {list(weight.shape)}; take another"
            )
        weight.add_((adapter.scale * up.float() @ down.float()).to(weight.device, weight.dtype))
