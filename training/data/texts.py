"""What a clip's caption is to a model: a row of a table that is learned with it, or the words as a language model reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from training.checkpoint import load_state, save_state

MOST_CAPTIONS = 1000
"""Of a table. Each has tokens of its own to learn, and with more of them no clip comes often enough to do so."""
Encode = Callable[[str], tuple[Tensor, Tensor]]
"""A caption to its tokens [L, D] and mask [L]."""


class Texts(Protocol):
    """What captions are to a model."""

    @property
    def num_scenes(self) -> int:
        """Rows of the table that the model has for them."""
        ...

    @property
    def identity(self) -> str:
        """Names what captions become."""
        ...

    def row(self, caption: str) -> int:
        """Row of a caption in that table."""
        ...

    def tokens(self, caption: str) -> tuple[Tensor, Tensor] | None:
        """Tokens [L, D] and mask [L] that stand in place of a row, where there are any."""
        ...


class CaptionTable:
    """Each caption as a row of the model's own table."""

    def __init__(self, captions: Iterable[str]) -> None:
        """Number the captions, in an order that does not depend on who comes first.

        Raises:
            ValueError: There are too many of them.
        """
        self.rows = {caption: row for row, caption in enumerate(sorted(set(captions)))}
        if len(self.rows) > MOST_CAPTIONS:
            raise ValueError(
                f"the clips have {len(self.rows)} captions and a table learns at most {MOST_CAPTIONS}; name a language model's "
                "folder with --text-encoder"
            )

    @property
    def num_scenes(self) -> int:
        return len(self.rows)

    @property
    def identity(self) -> str:
        return json.dumps(list(self.rows))

    def row(self, caption: str) -> int:
        return self.rows[caption]

    def tokens(self, caption: str) -> None:
        return None


class EncodedTexts:
    """Captions as a language model reads them, each read once and kept in a folder."""

    num_scenes = 1
    """A row that nobody reads: a model has one at least."""

    def __init__(self, folder: Path, encode: Encode) -> None:
        """Prepare; the folder belongs to one way of reading."""
        self.folder, self.encode = folder, encode

    @property
    def identity(self) -> str:
        return self.folder.name

    def row(self, caption: str) -> int:
        return 0

    def tokens(self, caption: str) -> tuple[Tensor, Tensor]:
        """Read a caption, or what was kept of it.

        Raises:
            ValueError: A kept file is damaged, or the disk is full.
        """
        path = self.folder / f"{hashlib.sha256(caption.encode()).hexdigest()[:16]}.safetensors"
        if not path.exists():
            tokens, mask = self.encode(caption)
            save_state(path, {"caption": caption, "tokens": tokens.half(), "mask": mask.to(torch.uint8)})
        tree = load_state(path)
        return tree["tokens"].float(), tree["mask"].float()
