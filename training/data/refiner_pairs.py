"""Pairs to train a refiner on: what a first stage made of clips, and the clips themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.checkpoint import load_state, save_state

FILES_HELD = 128
"""In memory: a clip of the released sizes takes 7 MB."""
SUFFIX = ".pairs.safetensors"


@dataclass(frozen=True)
class PairBatch:
    """Some clips, B of T latent frames."""

    made: Tensor
    """By the first stage along the same cameras, [B, C, T, h, w]; latent frame 0 is the target's."""
    target: Tensor
    """Of the video, [B, C, T, h, w]."""
    text: Tensor
    """What the refiner reads, [B, L, D]."""
    text_mask: Tensor
    """1 for tokens that count, [B, L]."""
    memory: Tensor | None = None
    """What the spatial memory showed the first stage, for refiners that read it, [B, M, T, h, w]."""

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on a device."""
        return PairBatch(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


def save_pairs(path: Path, batch: PairBatch) -> None:
    """Write clips as float16, whole or not at all."""
    save_state(path, {name: tensor.half() for name, tensor in batch.tensors().items()})


class RefinerPairs:
    """The pairs of a folder, in files of some clips each."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._read = lru_cache(FILES_HELD)(load_state)

    @classmethod
    def find(cls, folders: Sequence[Path]) -> RefinerPairs:
        """List the files of some folders.

        Raises:
            ValueError: There are none.
        """
        files = [file for folder in folders for file in sorted(folder.glob(f"*{SUFFIX}"))]
        if not files:
            raise ValueError(f"{folders[0]} holds no *{SUFFIX} files; leave --data out to make pairs here")
        return cls(files)

    def check(self, channels: int, text_dim: int, memory_channels: int = 0) -> None:
        """Refuse pairs that a refiner cannot read, by the first of them.

        Args:
            memory_channels: Of the memory that it reads; pairs may have none.

        Raises:
            ValueError: Latents, text or memory are of another size.
        """
        first = load_state(self.files[0])
        found = (first["target"].shape[1], first["text"].shape[2])
        if found != (channels, text_dim):
            raise ValueError(
                f"{self.files[0]} has latents of {found[0]} channels and text of {found[1]} numbers a token, the refiner reads "
                f"{channels} and {text_dim}; make pairs with its own text, and name their folder with --data"
            )
        if memory_channels and "memory" in first and first["memory"].shape[1] != memory_channels:
            raise ValueError(
                f"{self.files[0]} shows a memory of {first['memory'].shape[1]} channels, the refiner reads {memory_channels}; "
                "make pairs of its own first stage"
            )

    def draw(self, batch_size: int, num_frames: int, degraded: float, rng: np.random.Generator) -> PairBatch:
        """Take the first latent frames of random clips, and windows from anywhere behind: a stream's sink never moves on.

        Args:
            num_frames: Latent frames, the first included.
            degraded: Chance that a clip of less detail stands for what the first stage made.

        Raises:
            ValueError: A clip is shorter than that.
        """
        parts: list[dict[str, Tensor]] = []
        for number in rng.integers(len(self.files), size=batch_size):
            tree = self._read(self.files[number])
            clip = int(rng.integers(len(tree["target"])))
            length = tree["target"].shape[2]
            if length < num_frames:
                raise ValueError(
                    f"{self.files[number]} has clips of {length} latent frames and the stage takes {num_frames}; make longer ones"
                )
            start = int(rng.integers(length - num_frames + 1))
            window = [0, *range(start + 1, start + num_frames)]
            part = {name: tree[name][clip].float() for name in ("text", "text_mask")}
            part |= {
                name: tree[name][clip, :, window].float()
                for name in ("made", "target", "memory")
                if name in tree
            }
            if rng.random() < degraded:
                part["made"] = without_detail(part["target"])
            parts.append(part)
        return PairBatch(**{name: torch.stack([part[name] for part in parts]) for name in parts[0]})


def without_detail(latents: Tensor) -> Tensor:
    """Halve and double the grid of latents [C, T, h, w]."""
    frames = latents.transpose(0, 1)
    height, width = frames.shape[-2:]
    small = functional.interpolate(frames, (max(1, height // 2), max(1, width // 2)), mode="area")
    return functional.interpolate(small, (height, width), mode="bilinear").transpose(0, 1)
