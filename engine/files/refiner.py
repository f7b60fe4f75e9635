"""An exported refiner: a folder with `refiner.json` and the graphs it names.

The graphs split the transformer into segments of blocks, so that each can be built within the memory of one machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import SpecMismatch
from engine.files.bundle import (
    MAX_SPEC_BYTES,
    MAX_STATE_BYTES,
    Bundle,
    LayerGroup,
    Name,
    Sha256,
    Size,
    TensorSpec,
    Text,
    first_problem,
    hash_file,
)
from engine.files.git_lfs import check_fetched

REFINER_FILE = "refiner.json"
FOLDER = "refiner"
"""Of a bundle's refiner, inside the bundle's folder."""
NUM_FRAMES = "num_frames"
"""State tensor that counts the latent frames committed, float32 [1]; it starts as zero."""
CACHES = ("sink_key", "sink_value", "history_key", "history_value")
"""State tensors of each block, named `blocks.{i}.` and one of these."""


class Segment(BaseModel):
    """The graphs of some successive blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_block: Annotated[int, Field(ge=0)]
    num_blocks: Annotated[int, Field(ge=1)]
    text_graph: Name
    """Captions to the blocks' text keys and values, once per text."""
    blocks_graph: Name
    """Tokens through the blocks, against their text, sinks and histories; gives also the tokens' own keys and values."""
    commit_graph: Name
    """Own keys and values into the state; it has no weights."""

    @property
    def blocks(self) -> range:
        """Indices of the blocks."""
        return range(self.first_block, self.first_block + self.num_blocks)


class RefinerSpec(BaseModel):
    """Everything a session needs to know about a refiner, as stored in `refiner.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1]
    model: dict[str, Any]
    """The RefinerConfig the graphs were made from, for the record."""
    weights_sha256: Sha256
    latent_channels: Size
    latent_height: Size
    latent_width: Size
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    """Rotary positions are seconds, so the frame rate is part of the graphs."""
    block_size: Annotated[int, Field(ge=1, le=256)]
    """Latent frames refined at a time."""
    window: Annotated[int, Field(ge=2, le=1024)]
    """Latent frames that a block sees besides its own: the first, and the newest refined ones."""
    sigmas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=2, max_length=256)]
    """Noise levels: where a block starts, and what each Euler step leads to; strictly decreasing to 0."""
    text_dim: Size
    memory_channels: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """Of what a spatial memory shows of a latent frame, which the embed graph reads beside the latents; 0 where it reads none."""
    by_default: bool = True
    """Whether chunks are refined where nobody says otherwise; where not, `--refiner on`, F7 or the settings switch it on."""
    caption_graph: Name
    """Text and mask to captions and an additive mask, once per text."""
    positions_graph: Name
    """Rotary tables, attention mask and rotated sinks, once per block of latents."""
    embed_graph: Name
    """Noisy latents, sigma and the memory, where it is read, to tokens, time and modulation."""
    head_graph: Name
    """Tokens and time to velocity."""
    segments: Annotated[tuple[Segment, ...], Field(min_length=1, max_length=1024)]
    state: Annotated[tuple[TensorSpec, ...], Field(max_length=4096)]
    precision: Text
    target: Text
    builder: Text
    files: Annotated[dict[Name, Sha256], Field(min_length=1, max_length=4096)]
    """SHA-256 of every file of the folder but `refiner.json` itself."""
    layer_groups: Annotated[tuple[LayerGroup, ...], Field(max_length=1024)] = ()
    """Precision by layer, where not all layers share one."""
    activation_scales: Text = ""
    """Where the scales of 8 and 4 bit activations come from: measured, or nominal."""
    notes: Text = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sigmas[-1] != 0 or any(b >= a for a, b in pairwise(self.sigmas)):
            raise ValueError(f"sigmas must decrease to 0, got {list(self.sigmas)}")
        if unlisted := set(self.graphs) - self.files.keys():
            raise ValueError(f"{sorted(unlisted)[0]} is not listed in files")
        blocks = [block for segment in self.segments for block in segment.blocks]
        if blocks != list(range(len(blocks))):
            raise ValueError("the segments must hold every block once and in order")
        names = [NUM_FRAMES, *(f"blocks.{block}.{cache}" for block in blocks for cache in CACHES)]
        if [tensor.name for tensor in self.state] != names:
            raise ValueError("the state must be the frame count, then each block's sink and history")
        if sum(tensor.num_bytes for tensor in self.state) > MAX_STATE_BYTES:
            raise ValueError(f"the state is larger than {MAX_STATE_BYTES} bytes")
        return self

    @property
    def graphs(self) -> tuple[str, ...]:
        """Files of all graphs."""
        shared = (self.caption_graph, self.positions_graph, self.embed_graph, self.head_graph)
        own = ((s.text_graph, s.blocks_graph, s.commit_graph) for s in self.segments)
        return (*shared, *(name for names in own for name in names))

    @property
    def use(self) -> str:
        """When it refines, in words."""
        if self.by_default:
            return "refines unless it is switched off"
        return "is an option: --refiner on, F7 or the settings switch it on"


@dataclass(frozen=True)
class RefinerFolder:
    """An exported refiner that was opened and found whole."""

    path: Path
    spec: RefinerSpec
    sha256: str
    """Of `refiner.json`, which holds the hash of every other file."""


def bundled_refiner(bundle: Bundle) -> Path | None:
    """Return the folder of a bundle's refiner, None where it has none."""
    folder = bundle.path / FOLDER
    return folder if (folder / REFINER_FILE).is_file() else None


def open_refiner(path: str | Path, verify: bool = True) -> RefinerFolder:
    """Open the exported refiner in the folder `path`.

    Args:
        verify: Compare the SHA-256 of every file; without it only their presence is checked.

    Raises:
        SpecMismatch: It is not whole, or not of this version.
    """
    folder = Path(path)
    file = folder / REFINER_FILE
    check_fetched(file)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        raise SpecMismatch(
            f"cannot read {file}: {error.strerror}; name the folder of an exported refiner"
        ) from error
    if len(raw) > MAX_SPEC_BYTES:
        raise SpecMismatch(f"{file} is larger than {MAX_SPEC_BYTES} bytes; export the refiner again")
    try:
        spec = RefinerSpec.model_validate_json(raw)
    except ValidationError as error:
        raise SpecMismatch(
            f"{file} cannot be used ({first_problem(error)}); export the refiner again with this version"
        ) from error
    for name, expected in spec.files.items():
        part = folder / name
        if not part.is_file() or part.is_symlink():
            raise SpecMismatch(f"the refiner {folder} lacks its file {name}; export or fetch it again")
        check_fetched(part)
        if verify and hash_file(part) != expected:
            raise SpecMismatch(f"{part} is not the file its refiner was made with; export or fetch it again")
    return RefinerFolder(folder, spec, hashlib.sha256(raw).hexdigest())
