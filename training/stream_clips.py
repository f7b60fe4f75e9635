"""Clips of a stream as batches: cut to length, posed from their first frame, seen through the model's own lens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import ModelConfig
from training.configs import Cut
from training.data.clip import Clip, ClipRejected, ClipSource
from training.data.latents import WindowBatch, draw_window, pack_windows, side_by_side
from training.data.stream import ClipStream
from training.data.texts import Texts


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
