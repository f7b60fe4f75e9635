"""The numbers that define a world model; needs no tensor library.

Presets are functions. `sana_wm` gives the released 2.66 B model, `pocket` the small world shipped here, `tiny` one
for tests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

MAX_LAYERS, MAX_WIDTH = 1000, 1 << 16
"""Beyond this a config is damaged or hostile."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a world model and to lay out its rollout state."""

    name: str
    """What checkpoints and bundles call the model."""
    in_channels: int
    """Latent channels C, in and out."""
    hidden_size: int
    """Width of the token stream."""
    num_heads: int
    """Attention heads, in self- and cross-attention alike."""
    num_layers: int
    """Transformer blocks."""
    mlp_ratio: float
    """Feed-forward inner width over `hidden_size`, before the gate doubles it."""
    softmax_every_n: int
    """Block i is a softmax block when (i + 1) is a multiple of this; the others are frame-wise gated delta nets."""
    text_dim: int
    """Width of the text (or scene) tokens that cross-attention reads."""
    text_length: int
    """Tokens of the stored null caption."""
    chunk_size: int
    """Latent frames made by one step."""
    first_chunk_size: int
    """Latent frames of chunk 0, the conditioning frame included."""
    num_cached_chunks: int
    """Past chunks that a softmax block keeps, the sink included."""
    sink: bool
    """Whether softmax blocks keep chunk 0 for ever, in place of the oldest recent chunk."""
    temporal_stride: int
    """Video frames per latent frame (after the first)."""
    spatial_stride: int
    """Pixels per latent cell, along each side."""
    frame_height: int
    """Pixels."""
    frame_width: int
    """Pixels."""
    conv_kernel: int = 4
    """Taps of the causal short convolution on keys."""
    temporal_kernel: int = 3
    """Taps of the feed-forward temporal convolution; only 3 is defined."""
    rope_theta: float = 1e4
    """Base of the rotary frequencies."""
    downscale_gdn: bool = False
    """Whether delta-net blocks shrink q, k, v that the ray transform lengthened."""
    downscale_softmax: bool = False
    """The same for softmax blocks."""
    camera_softmax_scale: Literal["head_dim", "padded"] = "head_dim"
    """Width behind the camera path's softmax scale: the head's own, or the head padded to a kernel size."""
    key_scale: Literal["frame", "head", "none"] = "frame"
    """Delta-net keys are multiplied by 1/sqrt(D S), 1/sqrt(D) or 1; only "frame" keeps long rollouts stable."""
    linear_attention: bool = False
    """Whether delta-net blocks neither erase nor forget: the cumulative linear attention that stage 1 of training replaces."""
    truncate_timesteps: bool = True
    """Whether timesteps lose their fraction before they are embedded."""
    translation_scale: float = 1.0
    """Multiplies the translations of relative poses before anything else sees them."""
    write_limit: float = 0.0
    """Greatest sum of beta |k|^2 over a frame's tokens in delta-net blocks, to which write strengths are lowered. It bounds
    what a frame erases: above an eigenvalue of 2 the state grows without end. 0 = no limit."""
    memory_channels: int = 0
    """Channels of what a spatial memory shows of each latent frame: its encoding, as many as `in_channels`, and its coverage.
    They are embedded beside the noisy latents by a projection that starts at zero (GEN3C, arXiv 2503.03751). 0 = no memory."""

    def __post_init__(self) -> None:
        for name, largest in (
            ("num_layers", MAX_LAYERS),
            ("num_heads", MAX_WIDTH),
            ("hidden_size", MAX_WIDTH),
        ):
            if not 1 <= getattr(self, name) <= largest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 1 and {largest}")
        if self.hidden_size % self.num_heads or self.head_dim % 8:
            raise ValueError(
                f"hidden_size {self.hidden_size} over num_heads {self.num_heads} must give a head width that is a "
                "multiple of 8; change one of them"
            )
        if self.frame_height % self.spatial_stride or self.frame_width % self.spatial_stride:
            raise ValueError(
                f"frames of {self.frame_width}x{self.frame_height} do not divide by spatial_stride "
                f"{self.spatial_stride}; choose multiples of it"
            )
        if self.num_cached_chunks < (2 if self.sink else 1):
            raise ValueError(
                f"num_cached_chunks is {self.num_cached_chunks}; use at least 1, or 2 with a sink, so that one recent "
                "chunk is kept"
            )
        if self.temporal_kernel != 3:
            raise ValueError(f"temporal_kernel is {self.temporal_kernel}; only 3 is defined")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def inner_size(self) -> int:
        """Feed-forward width after the gate."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def latent_height(self) -> int:
        return self.frame_height // self.spatial_stride

    @property
    def latent_width(self) -> int:
        return self.frame_width // self.spatial_stride

    @property
    def tokens_per_frame(self) -> int:
        """Tokens S of one latent frame."""
        return self.latent_height * self.latent_width

    @property
    def plucker_channels(self) -> int:
        """Channels of a latent frame's packed map: six of each of its video frames."""
        return 6 * self.temporal_stride

    @property
    def sink_frames(self) -> int:
        """Latent frames in a softmax block's sink."""
        return self.first_chunk_size if self.sink else 0

    @property
    def window_frames(self) -> int:
        """Latent frames in a softmax block's window of recent chunks."""
        if self.sink:
            return (self.num_cached_chunks - 1) * self.chunk_size
        return (self.num_cached_chunks - 1) * self.chunk_size + max(self.chunk_size, self.first_chunk_size)

    def chunk_ranges(self, num_frames: int) -> list[tuple[int, int]]:
        """Cut a clip's latent frames into chunks, the conditioning chunk first; a short remainder joins the last."""
        borders = [0, *range(self.first_chunk_size, num_frames, self.chunk_size)]
        if len(borders) > 1 and num_frames - borders[-1] < min(self.chunk_size, self.first_chunk_size):
            borders.pop()
        return list(zip(borders, [*borders[1:], num_frames], strict=True))

    def for_grid(self, height: int, width: int) -> ModelConfig:
        """The same model on another latent grid; weights fit every grid."""
        if (height, width) == (self.latent_height, self.latent_width):
            return self
        stride = self.spatial_stride
        return replace(self, frame_height=height * stride, frame_width=width * stride)

    def is_softmax(self, layer: int) -> bool:
        return (layer + 1) % self.softmax_every_n == 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from `to_dict` output; unknown or missing keys are an error."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown model config keys {unknown}; it was written by another version, or edited"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"incomplete model config: {error}; export or train the model again") from None


def sana_wm() -> ModelConfig:
    """The released SANA-WM: 704x1280 at 16 fps, streaming in chunks of three latent frames."""
    return ModelConfig(
        name="sana_wm",
        in_channels=128,
        hidden_size=2240,
        num_heads=20,
        num_layers=20,
        mlp_ratio=3.0,
        softmax_every_n=4,
        text_dim=2304,
        text_length=300,
        chunk_size=3,
        first_chunk_size=4,
        num_cached_chunks=2,
        sink=True,
        temporal_stride=8,
        spatial_stride=32,
        frame_height=704,
        frame_width=1280,
    )


def pocket() -> ModelConfig:
    """The small world: 320x192 with a spatial memory, one latent frame (four video frames) a step, for two CPU cores."""
    return ModelConfig(
        name="pocket",
        in_channels=96,
        hidden_size=192,
        num_heads=6,
        num_layers=4,
        mlp_ratio=2.0,
        softmax_every_n=2,
        text_dim=128,
        text_length=4,
        chunk_size=1,
        first_chunk_size=1,
        num_cached_chunks=5,
        sink=True,
        temporal_stride=4,
        spatial_stride=32,
        frame_height=192,
        frame_width=320,
        translation_scale=0.1,
        write_limit=1.9,
        memory_channels=97,
    )


def tiny() -> ModelConfig:
    """A model small enough for tests, with both block kinds; it reads no spatial memory."""
    return replace(
        pocket(),
        name="tiny",
        in_channels=4,
        hidden_size=32,
        num_heads=2,
        num_layers=3,
        mlp_ratio=2.0,
        softmax_every_n=3,
        text_dim=32,
        text_length=5,
        num_cached_chunks=3,
        temporal_stride=2,
        spatial_stride=8,
        frame_height=16,
        frame_width=24,
        memory_channels=0,
    )
