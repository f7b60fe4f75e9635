"""Batches of clips, from walks or from a stream: cut to length, posed from their first frame, in the model's own frame size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.conditioning import Conditioning
from model.config import ModelConfig
from training.data.clip import Clip, ClipRejected, ClipSource
from training.data.latents import LatentWalk, pack_windows
from training.data.stream import ClipStream
from training.data.texts import Texts

Cut = Literal["front", "anywhere"]
"""Latents of a clip that is longer than a stage wants: those it begins with, or its first and some from anywhere behind."""


class ClipBatches(Protocol):
    """What a stage asks of its data."""

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        """Draw clips of `num_latent_frames` latents, the conditioning one in front included."""
        ...

    def seek(self, number: int) -> None:
        """Go on with the clip of this number, counted over all epochs, where clips come in an order."""
        ...

    def position(self) -> dict[str, Any]:
        """Where the data stands, as JSON values; empty where random numbers alone decide what comes."""
        ...

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Go back to what `position` gave.

        Raises:
            ValueError: The data is not what it was.
        """
        ...


class WalkClips:
    """Clips of walks: a place's first frame, then a window from anywhere along a walk, in the place's own coordinates."""

    def __init__(self, walks: Sequence[LatentWalk]) -> None:
        if not walks:
            raise ValueError("there are no walks to draw clips from; make some with `flaneur train pocket`")
        self.walks = walks

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        shortest = min(len(walk.latents) for walk in self.walks)
        if num_latent_frames > shortest:
            raise ValueError(
                f"clips of {num_latent_frames} latent frames do not fit walks of {shortest}; make longer walks or shorter clips"
            )
        return draw_windows(self.walks, batch_size, num_latent_frames - 1, rng)

    def seek(self, number: int) -> None:
        """Do nothing: walks come in no order."""

    def position(self) -> dict[str, Any]:
        return {}

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Do nothing: walks come in no order."""


@dataclass(frozen=True)
class WindowBatch:
    """The first latent of each walk and a window of n latents from anywhere along it; B samples."""

    scene: Tensor
    """Row in the scene table, int64 [B]."""
    latents: Tensor
    """Clean, [B, C, 1 + n, H, W] float32; frame 0 is the walk's first."""
    c2w: Tensor
    """Relative poses in packed windows, [B, (1 + n) * R, 4, 4]."""
    intrinsics: Tensor
    """[B, (1 + n) * R, 4]."""
    frame_index: Tensor
    """Absolute latent frame, int64 [B, 1 + n]."""
    text: Tensor | None = None
    """What stands in place of the scenes' rows in the table, [B, L, D] float32; None where the table is read."""
    text_mask: Tensor | None = None
    """1 for real tokens, [B, L]."""
    memory: Tensor | None = None
    """What a spatial memory shows of the latent frames, as `Conditioning` has it, [B, M, 1 + n, H, W]; None shows nothing."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is there, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def conditioning(self, text: Tensor, text_mask: Tensor, part: slice = slice(None)) -> Conditioning:
        """Join cameras with tokens [B, L, D] and their mask [B, L]; of a part of the latent frames, where it is given."""
        index = self.frame_index[:, part]
        start, _, _ = part.indices(self.frame_index.shape[1])
        stride = self.c2w.shape[1] // self.frame_index.shape[1]
        packed = slice(start * stride, (start + index.shape[1]) * stride)
        memory = None if self.memory is None else self.memory[:, :, part]
        return Conditioning(text, text_mask, self.c2w[:, packed], self.intrinsics[:, packed], index, memory)

    def to(self, device: torch.device) -> WindowBatch:
        """The same batch on a device."""
        return WindowBatch(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


MAX_INDEX_SHIFT = 2000
"""Half of the windows pretend to lie later in a walk than they do, by up to this many latent frames, so that rotary
positions of long sessions are familiar."""


def draw_window(num_latents: int, length: int, rng: np.random.Generator) -> tuple[slice, Tensor]:
    """Choose `length` latents in a row behind the first one of a clip, and the indices [1 + length] that they are told."""
    start = int(rng.integers(1, num_latents - length + 1))
    shift = int(rng.integers(MAX_INDEX_SHIFT)) if rng.random() < 0.5 and start > 1 else 0
    index = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(start, start + length) + shift])
    return slice(start, start + length), index


def side_by_side(batches: Sequence[WindowBatch]) -> WindowBatch:
    """Put clips of one length into one batch."""
    parts = [batch.tensors() for batch in batches]
    return WindowBatch(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def draw_windows(
    walks: Sequence[LatentWalk], batch_size: int, length: int, rng: np.random.Generator
) -> WindowBatch:
    """Cut one window of `length` latents out of each of `batch_size` random walks."""
    picks = [walks[i] for i in rng.integers(len(walks), size=batch_size)]
    latents, poses, index = [], [], []
    for walk in picks:
        window, told = draw_window(len(walk.latents), length, rng)
        latents.append(torch.cat([walk.latents[:1], walk.latents[window]]))
        poses.append(torch.cat([walk.c2w[:1], walk.c2w[window]]).flatten(0, 1))
        index.append(told)
    c2w = torch.stack(poses)
    return WindowBatch(
        scene=torch.tensor([walk.scene for walk in picks]),
        latents=torch.stack(latents).float().transpose(1, 2).contiguous(),
        c2w=c2w,
        intrinsics=torch.stack([walk.intrinsics for walk in picks])[:, None].expand(-1, c2w.shape[1], -1),
        frame_index=torch.stack(index),
    )


class FittingClips:
    """The clips of a source that a model can be trained on; the others are rejected, each with its reason."""

    def __init__(self, source: ClipSource, config: ModelConfig, num_latent_frames: int) -> None:
        self.source, self.config, self.num_latent_frames = source, config, num_latent_frames
        self.name, self.left_out = source.name, source.left_out

    def __len__(self) -> int:
        return len(self.source)

    def label(self, index: int) -> str:
        return self.source.label(index)

    def __getitem__(self, index: int) -> Clip:
        """Read one clip.

        Raises:
            ClipRejected: Its latents are of another size than the model's, or too few.
            ValueError: It is damaged.
        """
        clip = self.source[index]
        check_fits(clip, self.config, self.num_latent_frames)
        return clip


def check_fits(clip: Clip, config: ModelConfig, num_latent_frames: int) -> None:
    """Hold a clip against what a model is trained on.

    Raises:
        ClipRejected: Its latents are of another size than the model's, or too few.
    """
    if clip.latents is None:
        raise ClipRejected(f"{clip.name} has no latents; encode its set first")
    wanted = (config.in_channels, config.latent_height, config.latent_width)
    if (clip.latents.shape[1:], clip.temporal_stride) != (wanted, config.temporal_stride):
        raise ClipRejected(
            f"{clip.name} has latents of {_size(clip.latents.shape[1:], clip.temporal_stride)}, but {config.name} takes "
            f"{_size(wanted, config.temporal_stride)}"
        )
    if len(clip.latents) < num_latent_frames:
        raise ClipRejected(
            f"{clip.name} has {len(clip.latents)} latents, and the stage takes {num_latent_frames} of a clip"
        )


def _size(shape: tuple[int, ...], stride: int) -> str:
    return f"{'x'.join(map(str, shape))} for {stride} frames"


class StreamClips:
    """Batches of a stream's next clips; where it stands is kept with the stage that draws them."""

    def __init__(self, stream: ClipStream, config: ModelConfig, texts: Texts, cut: Cut) -> None:
        """Prepare.

        Args:
            stream: Of `FittingClips`.
            cut: Which part of a longer clip is taken.
        """
        self.stream, self.config, self.texts, self.cut = stream, config, texts, cut
        self.following: Iterator[Clip] | None = None

    def draw(self, batch_size: int, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        """Take the next clips of the stream.

        Args:
            rng: Says where longer clips are cut.
        """
        if self.following is None:
            self.following = iter(self.stream)
        clips = islice(self.following, batch_size)
        return side_by_side([self._window(clip, num_latent_frames, rng) for clip in clips])

    def _window(self, clip: Clip, num_latent_frames: int, rng: np.random.Generator) -> WindowBatch:
        assert clip.latents is not None, "clips without latents do not fit"
        if self.cut == "front":
            taken, index = np.arange(num_latent_frames), torch.arange(num_latent_frames)
        else:
            window, index = draw_window(len(clip.latents), num_latent_frames - 1, rng)
            taken = np.concatenate([[0], np.arange(window.start, window.stop)])
        stride = clip.temporal_stride
        poses = torch.from_numpy(pack_windows(clip.c2w, stride)[taken])
        lenses = torch.from_numpy(pack_lenses(clip, self.config)[taken])
        text = self.texts.tokens(clip.caption)
        return WindowBatch(
            scene=torch.tensor([self.texts.row(clip.caption)]),
            latents=torch.from_numpy(clip.latents[taken]).float().transpose(0, 1)[None].contiguous(),
            c2w=poses.flatten(0, 1)[None],
            intrinsics=lenses.flatten(0, 1)[None],
            frame_index=index[None],
            text=None if text is None else text[0][None],
            text_mask=None if text is None else text[1][None],
        )

    def seek(self, number: int) -> None:
        """Go on with the clip of this number, counted over all epochs."""
        self.stream.seek(number)
        self.following = None

    def position(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Go back to a position; an empty one is that of a stage that was begun on other data, and starts this from its front.

        Raises:
            ValueError: It was saved with other data or another seed.
        """
        if position:
            self.stream.load_state_dict(dict(position))
        self.following = None


def pack_lenses(clip: Clip, config: ModelConfig) -> NDArray[np.float32]:
    """Arrange a clip's lenses as `pack_windows` does its poses, [T, R, 4], in pixels of the model's frame."""
    width, height = clip.frame_size
    across, down = config.frame_width / width, config.frame_height / height
    lenses = clip.intrinsics * np.array([across, down, across, down])
    stride = clip.temporal_stride
    first = np.repeat(lenses[:1], stride, 0)[None]
    return np.concatenate([first, lenses[1:].reshape(-1, stride, 4)]).astype(np.float32)
