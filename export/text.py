"""Prompts as the models read them: hidden states of a Gemma-2 behind an instruction, or all those of a Gemma-3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from model.refiner import load_connectors
from model.weight_files import check_fetched

PREAMBLE_KEY = "chi_prompt"
"""Under which the released `config.yaml` lists the lines of the instruction."""
TEXT_LENGTH = 1024
"""Tokens, registers included."""
ENCODER = "gemma-3-12b-it"
ENCODER_FOLDERS = ("text_encoder", "gemma3_12b", ENCODER)
"""Names of the text encoder's folder in the releases, beside the connectors' or one folder above."""


class TextEncoder:
    """A decoder-only language model and its tokenizer; the last hidden state, after the final norm, is the text."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @property
    def width(self) -> int:
        """Numbers per token."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def num_hidden_states(self) -> int:
        """Embeddings and the output of each layer."""
        return int(self.model.config.get_text_config().num_hidden_layers) + 1

    @torch.no_grad()
    def encode(self, prompt: str, length: int, preamble: str = "") -> tuple[Tensor, Tensor]:
        """Encode a prompt to exactly `length` tokens.

        With a preamble the prompt follows it, is padded on the right to the preamble's length + `length` - 2, and the first
        token and the last `length` - 1 are kept: what remains has read the instruction but does not repeat it.

        Returns:
            Hidden states [length, width] float32, and mask [length] float32, 1 for real tokens.
        """
        total = length
        if preamble:
            total = len(self.tokenizer.encode(preamble)) + length - 2
        tokens = self.tokenizer(
            [preamble + prompt],
            max_length=total,
            padding="max_length",
            padding_side="right",
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens["attention_mask"]
        hidden = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        kept = [0, *range(total - length + 1, total)]
        return hidden[0, kept].float(), mask[0, kept].float()

    @torch.no_grad()
    def all_hidden_states(self, prompt: str, length: int) -> tuple[Tensor, Tensor]:
        """Encode a prompt, without an instruction, to exactly `length` tokens, padded on the left.

        Returns:
            Hidden states [1, length, width, states] float32, the last after the final norm, and mask [1, length] float32.
        """
        tokens = self.tokenizer(
            [prompt.strip()],
            max_length=length,
            padding="max_length",
            padding_side="left",
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        mask = tokens["attention_mask"]
        outputs = self.model(input_ids=tokens["input_ids"], attention_mask=mask, output_hidden_states=True)
        return torch.stack(outputs.hidden_states, dim=-1).float(), mask.float()


def load_text_encoder(
    folder: Path, dtype: torch.dtype = torch.bfloat16, name: str = "gemma-2-2b-it"
) -> TextEncoder:
    """Load a Gemma and its tokenizer from a folder; nothing is fetched, and no code of the folder is run.

    Args:
        name: What belongs there, for the remedy.

    Raises:
        ValueError: A file is missing or damaged.
    """
    for file in folder.iterdir() if folder.is_dir() else ():
        check_fetched(file)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
        if loading["missing_keys"]:
            raise ValueError(f"{len(loading['missing_keys'])} tensors are missing")
    except Exception as error:
        # The library raises whatever the file at fault happens to provoke.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"cannot load the text encoder in {folder}: {reason.rstrip('.')}; fetch {name} into that folder"
        ) from None
    return TextEncoder(model, tokenizer)


def read_preamble(path: Path) -> str:
    """Find the instruction in the released `config.yaml`, wherever it stands there; its lines are joined by newlines.

    Raises:
        ValueError: The file is unreadable or holds none.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"cannot read {path}: {reason}; give the config.yaml that came with the weights"
        ) from None
    lines = _find(values, PREAMBLE_KEY)
    if isinstance(lines, str):
        return lines
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"{path} has no {PREAMBLE_KEY}; give the config.yaml that came with the weights")
    return "\n".join(lines)


def _find(node: Any, key: str) -> Any:
    if isinstance(node, Mapping) and key in node:
        return node[key]
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := _find(child, key)) is not None), None)


@dataclass(frozen=True)
class RefinerTextFolders:
    """Where the parts lie that turn a prompt into the refiner's text."""

    connectors: Path
    """A folder that holds `connectors/`, or the first release's file."""
    text_encoder: Path


def find_text_folders(refiner: Path) -> RefinerTextFolders:
    """Find connectors and text encoder from a release's refiner folder, or its single file.

    Raises:
        ValueError: One of them is not there.
    """
    home = refiner.parent if refiner.is_file() else refiner
    if not refiner.is_file() and not (refiner / "connectors" / "config.json").is_file():
        raise ValueError(f"{refiner} holds no connectors/config.json; name the release's refiner folder")
    for folder in (parent / name for parent in (home, home.parent) for name in ENCODER_FOLDERS):
        if (folder / "config.json").is_file():
            return RefinerTextFolders(refiner, folder)
    raise ValueError(f"{home} has no text encoder; put {ENCODER} into {home / ENCODER_FOLDERS[0]}")


@torch.no_grad()
def encode_refiner_text(
    prompt: str,
    folders: RefinerTextFolders,
    length: int = TEXT_LENGTH,
    dtype: torch.dtype = torch.bfloat16,
) -> NDArray[np.float32]:
    """Encode a prompt for the refiner: [length, D], every token of which counts.

    The text encoder is gone before the connectors are read; the values are those that float16 holds, as world files do.

    Args:
        dtype: Precision of the text encoder; the connectors run in float32.

    Raises:
        ValueError: A file is missing or damaged, or the two do not fit.
    """
    encoder = load_text_encoder(folders.text_encoder, dtype, ENCODER)
    width, states = encoder.width, encoder.num_hidden_states
    hidden_states, mask = encoder.all_hidden_states(prompt, length)
    del encoder
    connectors = load_connectors(folders.connectors, torch.float32).model
    wanted = (connectors.config.caption_channels, connectors.config.text_proj_in_factor)
    if (width, states) != wanted:
        raise ValueError(
            f"the text encoder in {folders.text_encoder} gives {states} hidden states of {width} numbers, the connectors read "
            f"{wanted[1]} of {wanted[0]}; fetch {ENCODER}"
        )
    text, _ = connectors(hidden_states, mask)
    return text[0].half().float().numpy()
