"""Clips encoded once: one file per video and autoencoder, named after the content of both.

A file holds latents, poses and lens; what it was made from need not be there any more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import SpecMismatch
from engine.files.bundle import first_problem
from engine.files.tensor_file import TensorFile, TensorFileKind, encode_tensors, write_tensors
from training.data.clip import Clip, LeftOut

KIND = TensorFileKind(
    noun="encoded clip",
    suffix=".latents",
    metadata_key="flaneur_clip",
    max_file_bytes=1 << 30,
    where_from="`flaneur data encode` makes them",
)
Text = Annotated[str, Field(max_length=10_000)]
Pixels = Annotated[int, Field(gt=0, le=1 << 16)]


class ClipInfo(BaseModel):
    """What a file says of its clip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: Text
    source: Text
    scene: Text
    caption: Text
    width: Pixels
    height: Pixels
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    autoencoder: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """Tag of the autoencoder whose latents these are."""


class LatentCache:
    """A folder of encoded clips that all belong to one autoencoder."""

    def __init__(self, folder: Path, tag: str) -> None:
        """Prepare the cache; `tag`, eight hex digits, names the autoencoder."""
        self.folder, self.tag = folder, tag

    def path(self, content: str) -> Path:
        """Where the clip of some content lies; `content` is part of a file name."""
        return self.folder / f"{content}.{self.tag}{KIND.suffix}"

    def clip(self, content: str, encode: Callable[[], Clip]) -> Clip:
        """Return an encoded clip, from its file where there is one.

        Args:
            content: Identifies the video, such as its hash.
            encode: Makes the clip with its latents; called only when there is no file.

        Raises:
            ValueError: The video or the file is damaged, or the disk is full.
        """
        path = self.path(content)
        if path.exists():
            return read_clip(path)
        clip = encode()
        write_clip(path, clip, self.tag)
        return clip


class CachedClips:
    """The encoded clips of a folder as a source."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.paths = sorted(folder.glob(f"[!.]*{KIND.suffix}"))
        self.left_out: list[LeftOut] = []

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Clip:
        return read_clip(self.paths[index])

    def label(self, index: int) -> str:
        return str(self.paths[index])


def write_clip(path: Path, clip: Clip, tag: str) -> None:
    """Write an encoded clip; the file appears whole or not at all."""
    assert clip.latents is not None, "only encoded clips are kept"
    width, height = clip.frame_size
    info = ClipInfo(
        name=clip.name,
        source=clip.source,
        scene=clip.scene,
        caption=clip.caption,
        width=width,
        height=height,
        fps=clip.fps,
        autoencoder=tag,
    )
    arrays = {"latents": clip.latents, "c2w": clip.c2w, "intrinsics": clip.intrinsics}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, encode_tensors(arrays, KIND, info.model_dump_json()), KIND)


def read_clip(path: Path) -> Clip:
    """Read an encoded clip.

    Raises:
        ValueError: It is damaged, in one sentence.
    """
    try:
        with TensorFile(path, KIND) as file:
            info = ClipInfo.model_validate_json(file.description())
            types = {name: span.dtype for name, span in file.spans().items()}
            if types != {"latents": "F16", "c2w": "F64", "intrinsics": "F64"}:
                raise file.not_laid_out()
            arrays = file.arrays(types)
    except ValidationError as error:
        raise ValueError(
            f"{path} describes no clip ({first_problem(error)}); delete it to encode again"
        ) from error
    except SpecMismatch as error:
        raise ValueError(f"{error}; delete it to encode again") from error
    return Clip(
        name=info.name,
        source=info.source,
        scene=info.scene,
        caption=info.caption,
        c2w=arrays["c2w"],
        intrinsics=arrays["intrinsics"],
        frame_size=(info.width, info.height),
        fps=info.fps,
        latents=arrays["latents"],
    )
