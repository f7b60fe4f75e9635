"""The layout of a recording: records, their checksums, and what each kind holds.

An 8-byte magic, then records of

    u32 length | u32 CRC-32 of the length | msgpack payload | 16-byte BLAKE2b

each digest covering the digest before it, the length and the payload, so that records can be neither altered
nor exchanged. The first record is the header, the last (absent after a crash) the end. The length has its own
checksum, so that a damaged length is told from a cut file: a cut file gives back the chunks before the cut, a
damaged one is refused.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Annotated, Literal

import msgpack
from pydantic import BaseModel, ConfigDict, Field

SUFFIX = ".flaneur"
MAGIC = b"\x89FLANEUR"
INTENT_COLUMNS = (
    *("time_s", "forward", "strafe", "rise", "yaw", "pitch", "roll"),
    *("look_yaw_rad", "look_pitch_rad", "run", "level"),
)
"""One intent: when (clock of the walk), the six axes in [-1, 1], the mouse's turn, keys held as 0 or 1."""
LATENT_AXES = 4
"""Of kept latents, [C, T, H, W]."""
MAX_RECORD_BYTES = 64 << 20
MAX_CHUNKS = 1 << 20
MAX_CHUNK_FRAMES = 4096
MAX_CHUNK_INTENTS = 65536
MAX_STEPS = 256
LENGTH = struct.Struct("<II")
DIGEST_BYTES = 16

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
OptionalSha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Word = Annotated[str, Field(max_length=256)]
Bytes = Annotated[bytes, Field(max_length=MAX_RECORD_BYTES)]


class RecordingHeader(BaseModel):
    """What a walk was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["header"] = "header"
    format_version: Literal[1, 2] = 2
    """Version 1 knew no `num_steps`; its chunks were all made with the whole schedule."""
    app_version: Word
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    backend: Word
    engine: Word
    """Name of the bundle, or `holodeck`."""
    identity: Word
    """The session's: equal identities, seeds and tracks give equal rollouts."""
    device: Word
    weights_sha256: OptionalSha256
    world: Word
    world_sha256: OptionalSha256
    key_map: Word
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    start_c2w: Annotated[tuple[float, ...], Field(min_length=16, max_length=16)]
    """Row-major pose of the world's first frame, in the world's own frame."""
    start_intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
    """fx, fy, cx, cy of the first frame, in pixels of the output frame."""


class ChunkRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["chunk"] = "chunk"
    index: Annotated[int, Field(ge=0, lt=MAX_CHUNKS)]
    latched_s: float
    intents: Bytes
    c2w: Bytes
    intrinsics: Bytes
    latents_sha256: Sha256
    latents: Bytes | None
    latents_shape: Annotated[list[Annotated[int, Field(ge=1, le=65536)]], Field(max_length=LATENT_AXES)]
    num_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Denoising steps the chunk was made with; None for the whole schedule."""


class EndRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["end"] = "end"
    num_chunks: int


def pack(record: BaseModel, digest: bytes) -> tuple[bytes, bytes]:
    """Return a record's bytes and its digest, which continues that of the record before."""
    payload = msgpack.packb(record.model_dump())
    assert isinstance(payload, bytes)
    field = length_field(len(payload))
    digest = chain(digest + field + payload)
    return field + payload + digest, digest


def length_field(length: int) -> bytes:
    """Return a length with its checksum, 8 bytes."""
    return LENGTH.pack(length, zlib.crc32(length.to_bytes(4, "little")))


def chain(data: bytes) -> bytes:
    """Return the digest of the digest before and the bytes it covers."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
