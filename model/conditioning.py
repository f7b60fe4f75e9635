"""What latents are generated from, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.camera import relative_poses, window_frames
from model.precision import full_precision


@dataclass(frozen=True)
class Conditioning:
    """Text and cameras of T latent frames.

    Cameras come in one of two forms. A clip from its first frame on (`start_frame` is None) has one camera per video
    frame, N = F = 1 + temporal_stride * (T - 1), poses in any common frame. Part of a rollout has them in packed windows
    (`camera.window_frames`), N = temporal_stride * T, poses relative to video frame 0.
    """

    text: Tensor
    """[B, L, text_dim]."""
    text_mask: Tensor
    """1 for real tokens, [B, L]."""
    c2w: Tensor
    """Camera-to-world, OpenCV axes, metres, [B, N, 4, 4]."""
    intrinsics: Tensor
    """fx, fy, cx, cy in frame pixels, [B, N, 4]."""
    start_frame: Tensor | None = None
    """Absolute index of the first latent frame, int64 [B]; or of each one, [B, T], where they jump."""
    memory: Tensor | None = None
    """What a spatial memory shows of the latent frames, for models that read one, [B, memory_channels, T, H, W]: the
    encoding of its rendering and the share of each cell that it covers. None is a memory that holds nothing: zeros."""

    def pack(self, num_latent_frames: int, temporal_stride: int) -> Conditioning:
        """Give a clip the packed form; what has it stays.

        Raises:
            ValueError: There are fewer cameras than video frames.
        """
        if self.start_frame is not None:
            return self
        needed = 1 + temporal_stride * (num_latent_frames - 1)
        if min(self.c2w.shape[1], self.intrinsics.shape[1]) < needed:
            raise ValueError(
                f"{num_latent_frames} latent frames need the cameras of {needed} video frames; {self.c2w.shape[1]} "
                f"poses and {self.intrinsics.shape[1]} intrinsics were given"
            )
        order = window_frames(num_latent_frames, temporal_stride, self.c2w.shape[1])
        with full_precision(self.c2w):
            poses = relative_poses(self.c2w)[:, order]
        start = torch.zeros(len(poses), dtype=torch.int64, device=poses.device)
        return replace(self, c2w=poses, intrinsics=self.intrinsics[:, order], start_frame=start)

    def frame_index(self, num_latent_frames: int) -> Tensor:
        """Absolute index of every latent frame, int64 [B, T]; the form must be packed."""
        assert self.start_frame is not None
        if self.start_frame.ndim == 2:
            return self.start_frame
        return self.start_frame[:, None] + torch.arange(num_latent_frames, device=self.start_frame.device)


def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
    """Join conditionings of one form along the batch axis."""
    starts = [part.start_frame for part in parts if part.start_frame is not None]
    memories = [part.memory for part in parts if part.memory is not None]
    return Conditioning(
        text=torch.cat([part.text for part in parts]),
        text_mask=torch.cat([part.text_mask for part in parts]),
        c2w=torch.cat([part.c2w for part in parts]),
        intrinsics=torch.cat([part.intrinsics for part in parts]),
        start_frame=torch.cat(starts) if starts else None,
        memory=torch.cat(memories) if memories else None,
    )
