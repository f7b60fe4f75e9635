"""The engine bundle: a folder with `bundle.json` and the graphs it names.

Whatever could be wrong with a bundle is found when it is opened, so that nothing is checked in the loop.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import SpecMismatch
from engine.files.git_lfs import check_fetched

SPEC_FILE = "bundle.json"
MAX_SPEC_BYTES = 4 << 20
MAX_STATE_BYTES = 16 << 30
"""Of all state tensors together, or of all decoder caches; the full model's state is about 1 GB."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Also the rule for file names, so that none of them can lead out of the bundle."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1, le=16384)]
Text = Annotated[str, Field(max_length=4096)]


STEP_INPUTS = ("latents", "timesteps", "c2w", "intrinsics", "start_frame", "text", "text_mask")
"""Inputs of a step graph, before the state tensors; models that read a spatial memory have `MEMORY` after them."""
MEMORY = "memory"
GUIDE_INPUTS = ("guide_color", "guide_coverage", "guide_inverse_depth")
"""Inputs of a decoder that is shown the memory's rendering, after the latent: uint8 [R, H, W, 3], float32 [R, H, W] twice."""
CPU = "cpu"
"""Target of bundles for ONNX Runtime; any other target is a GPU's compute capability, such as sm120."""
OUT = "_out"
"""Appended to a state tensor's or cache's name where a graph gives it back."""


class TensorSpec(BaseModel):
    """One named tensor that the session carries from call to call; it starts as zeros."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=1 << 24)], ...], Field(max_length=8)]
    dtype: Literal["float32", "float16", "int64", "int32", "uint8"]

    @property
    def num_bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count * np.dtype(self.dtype).itemsize

    def zeros(self) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)


class LayerGroup(BaseModel):
    """Layers that run in one precision, by one rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Text
    """Over the names of the model's layers, `*` for anything; those of the decoder begin with `decoder/`."""
    precision: Text
    why: Text
    num_layers: Annotated[int, Field(ge=1)]
    weight_bytes: Annotated[int, Field(ge=0)]
    """Scales included."""


class ModelSpec(BaseModel):
    """What a session needs to know of a model, whatever runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    model: dict[str, Any]
    """The ModelConfig, for the record; sessions do not read it."""
    weights_sha256: Sha256
    latent_channels: Size
    latent_height: Size
    latent_width: Size
    frame_height: Size
    frame_width: Size
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    temporal_stride: Annotated[int, Field(ge=1, le=64)]
    """Video frames per latent frame (after the first, which is one video frame)."""
    spatial_stride: Annotated[int, Field(ge=1, le=256)]
    chunk_size: Annotated[int, Field(ge=1, le=256)]
    """Latent frames per chunk."""
    first_chunk_size: Annotated[int, Field(ge=1, le=257)]
    """1: the world's latent frame is only committed. chunk_size + 1: it opens the first generated chunk."""
    timesteps: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(min_length=1, max_length=256)
    ]
    """The step schedule, strictly decreasing, without the final 0."""
    memory_channels: Annotated[int, Field(ge=0, le=16384)] = 0
    """Channels of what the spatial memory shows of a latent frame: its encoding, then its coverage; 0 for models without."""
    state: Annotated[tuple[TensorSpec, ...], Field(max_length=4096)]
    decoder_caches: Annotated[tuple[TensorSpec, ...], Field(max_length=4096)]
    text_dim: Size

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if any(b >= a for a, b in pairwise(self.timesteps)):
            raise ValueError(f"timesteps must decrease, got {list(self.timesteps)}")
        if self.first_chunk_size not in (1, self.chunk_size + 1):
            raise ValueError(f"first_chunk_size must be 1 or chunk_size + 1, got {self.first_chunk_size}")
        latent_size = self.latent_height * self.spatial_stride, self.latent_width * self.spatial_stride
        if latent_size != (self.frame_height, self.frame_width):
            raise ValueError("frame size must be latent size times spatial_stride")
        for tensors in (self.state, self.decoder_caches):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ValueError("two state tensors have the same name")
            if sum(tensor.num_bytes for tensor in tensors) > MAX_STATE_BYTES:
                raise ValueError(f"the state is larger than {MAX_STATE_BYTES} bytes")
        return self

    @property
    def frames_per_chunk(self) -> int:
        """Video frames a chunk adds."""
        return self.chunk_size * self.temporal_stride


class EngineSpec(ModelSpec):
    """A bundle as stored in `bundle.json`: a model and the graphs that were made of it."""

    format_version: Literal[1, 2]
    """2 where a spatial memory is read, which earlier versions know nothing of."""
    step_graphs: Annotated[dict[str, Name], Field(max_length=16)]
    """File of the step graph for each number of latent frames, the number written as a string."""
    decoder_graph: Name
    encoder_graph: Name | None = None
    """Makes a latent frame of R video frames; None where pictures are encoded elsewhere."""
    depth_graph: Name | None = None
    """Tells the inverse depth of one picture; None where the decoder alone tells depth."""
    precision: dict[str, Text]
    target: Text
    builder: Text
    files: Annotated[dict[Name, Sha256], Field(min_length=1, max_length=1024)]
    """SHA-256 of every file of the bundle but `bundle.json` itself."""
    layer_groups: Annotated[tuple[LayerGroup, ...], Field(max_length=1024)] = ()
    """Precision by layer, where not all layers share one."""
    activation_scales: Text = ""
    """Where the scales of 8 and 4 bit activations come from: measured, or nominal."""
    notes: Text = ""

    @model_validator(mode="after")
    def _check_graphs(self) -> Self:
        if missing := {str(self.chunk_size), str(self.first_chunk_size)} - self.step_graphs.keys():
            raise ValueError(f"no step graph for {sorted(missing)[0]} latent frames")
        graphs = {self.decoder_graph, *self.step_graphs.values()}
        graphs |= {graph for graph in (self.encoder_graph, self.depth_graph) if graph is not None}
        if unlisted := graphs - self.files.keys():
            raise ValueError(f"{sorted(unlisted)[0]} is not listed in files")
        if self.memory_channels and (
            self.encoder_graph is None or self.memory_channels != self.latent_channels + 1
        ):
            raise ValueError(
                "a model that reads a spatial memory needs an encoder, and one channel more than the latents"
            )
        return self

    @property
    def is_plan(self) -> bool:
        """Whether the graphs are plans for a GPU, and no graphs that ONNX Runtime could read."""
        return self.target != CPU

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of weights by precision, where the layers' precisions are known."""
        total: Counter[str] = Counter()
        for group in self.layer_groups:
            total[group.precision] += group.weight_bytes
        return dict(total)


class Playable(Protocol):
    """A model that a session can be opened on: a bundle, or weights without one."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def sha256(self) -> str:
        """Names model, weights and precision."""
        ...


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened and found whole."""

    path: Path
    spec: EngineSpec
    sha256: str
    """Of `bundle.json`, which holds the hash of every other file, as it would be without a depth graph. No walk reads that one,
    so saved walks fit the bundle even when it learns to tell depth better."""

    def step_graph(self, num_latent_frames: int) -> Path:
        return self.path / self.spec.step_graphs[str(num_latent_frames)]

    @property
    def file_bytes(self) -> dict[str, int]:
        """Size of each file."""
        return {name: (self.path / name).stat().st_size for name in self.spec.files}

    @property
    def decoder_graph(self) -> Path:
        return self.path / self.spec.decoder_graph


def open_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """Open the bundle in the folder `path`, or say in one sentence why not.

    Args:
        verify: Compare the SHA-256 of every file; without it only their presence is checked.
    """
    folder = Path(path)
    spec, sha256 = _read_spec(folder)
    for name, expected in spec.files.items():
        file = folder / name
        if not file.is_file() or file.is_symlink():
            raise SpecMismatch(f"the bundle {folder} lacks its file {name}; export or fetch the bundle again")
        check_fetched(file)
        if verify and hash_file(file) != expected:
            raise SpecMismatch(
                f"the file {file} is not the one its bundle was made with; export or fetch the bundle again"
            )
    return Bundle(folder, spec, sha256)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_problem(error: ValidationError) -> str:
    """Return the first complaint of a validation as `field: reason`."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{where[:80]}: {reason}" if where else reason


def _read_spec(folder: Path) -> tuple[EngineSpec, str]:
    file = folder / SPEC_FILE
    check_fetched(file)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_SPEC_BYTES + 1)
    except FileNotFoundError as error:
        raise SpecMismatch(
            f"there is no bundle in {folder} ({SPEC_FILE} is missing); make one with `flaneur export onnx`"
        ) from error
    except OSError as error:
        raise SpecMismatch(f"cannot read {file}: {error.strerror}; name the folder of a bundle") from error
    if len(raw) > MAX_SPEC_BYTES:
        raise SpecMismatch(f"{file} is larger than {MAX_SPEC_BYTES} bytes, so it is no bundle of ours")
    try:
        spec = EngineSpec.model_validate_json(raw)
    except ValidationError as error:
        raise SpecMismatch(
            f"{file} cannot be used ({first_problem(error)}); export the bundle again with this version"
        ) from error
    return spec, hashlib.sha256(raw if spec.depth_graph is None else _without_depth(raw)).hexdigest()


def _without_depth(raw: bytes) -> bytes:
    """`bundle.json` as it is written for the same bundle without a depth graph."""
    values = json.loads(raw)
    del values["files"][values["depth_graph"]]
    values["depth_graph"] = None
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
