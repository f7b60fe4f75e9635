"""The refiner's streaming loop: per block three Euler steps against a sink and a window of refined latents, then a commit."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from model.precision import wide_dtype
from model.refiner.rotary import RotaryTable, video_rotary
from model.refiner.state import SINK_FRAMES, RefinerState, sink_frame
from model.refiner.transformer import KeysValues, Prefix, RefinerTransformer, TextContext

SIGMAS = (0.909375, 0.725, 0.421875, 0.0)
"""Noise levels of the distilled schedule: where a block starts, and what each Euler step leads to."""
BLOCK_SIZE = 3
"""Latent frames refined at a time, as trained."""
WINDOW = 11
"""Latent frames that a block sees besides its own, as trained."""
SEED = 42
"""Of the noise where no generator is given."""


class Refiner(RefinerTransformer):
    """The second stage: the transformer and its streaming loop."""

    sigmas: tuple[float, ...] = SIGMAS
    """Where a block starts, and what each step leads to; those of the release, unless the weights' file says others."""

    def begin(self, latent: Tensor, text: TextContext, fps: float, history: int) -> RefinerState:
        """Start a stream from the first latent frame, which is never refined.

        Args:
            latent: As stage 1 made it, [1, C, 1, H, W].
            text: From `encode_text`.
            fps: Video frames per second.
            history: Latent frames of refined history to keep.
        """
        kept: list[KeysValues] = []
        first = torch.zeros(SINK_FRAMES, device=self.device)
        table = self._table(first, latent, fps)
        self(latent, self._sigma(0.0), text, table, kept=kept)
        return RefinerState.start(kept, history)

    def step(
        self,
        latents: Tensor,
        noise: Tensor,
        text: TextContext,
        state: RefinerState,
        fps: float,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, RefinerState]:
        """Refine the latent frames that follow `state`, and commit them; the same work for every block of a size.

        Args:
            latents: As stage 1 made them, [1, C, T, H, W].
            noise: Unit Gaussian of the same shape.
            text, fps: As in `begin`.
            memory: What a spatial memory shows of these latent frames, for refiners that read one,
                [1, memory_channels, T, H, W]. The commit is not shown it, so that a state is one of latents alone.

        Returns:
            The refined latents [1, C, T, H, W], float32 at least, and the state after them.
        """
        refined, table, prefix = self.denoise(latents, noise, text, state, fps, memory)
        kept: list[KeysValues] = []
        self(refined, self._sigma(0.0), text, table, prefix, kept=kept)
        return refined, state.append(kept)

    def denoise(
        self,
        latents: Tensor,
        noise: Tensor,
        text: TextContext,
        state: RefinerState,
        fps: float,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, RotaryTable, Prefix]:
        """Refine as `step` does, without the commit; returns also what a commit of the block would see."""
        num_frames = latents.shape[2]
        frames = state.num_frames + torch.arange(num_frames, device=self.device)
        table = self._table(frames, latents, fps)
        sink_table = self._table(sink_frame(state.num_frames, state.history), latents, fps)
        prefix = state.prefix(self.config, sink_table, num_frames)
        wide = wide_dtype(self.dtype)
        x = (1 - self.sigmas[0]) * latents.to(wide) + self.sigmas[0] * noise.to(wide)
        for sigma, following in pairwise(self.sigmas):
            velocity = self(x, self._sigma(sigma), text, table, prefix, memory=memory)
            x = x + (following - sigma) * velocity.to(wide)
        return x, table, prefix

    @torch.no_grad()
    def refine(
        self,
        latents: Tensor,
        text: Tensor,
        text_mask: Tensor,
        *,
        fps: float,
        block_size: int = BLOCK_SIZE,
        window: int = WINDOW,
        generator: torch.Generator | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Refine a clip of latents; one block over all of them is the offline form.

        Args:
            latents: From stage 1, [1, C, T, H, W].
            text: As the connectors give it, [1, L, caption_channels].
            text_mask: 1 for tokens that count, [1, L].
            fps: Video frames per second.
            block_size: Latent frames refined at a time; the last block may be shorter.
            window: Latent frames that a block sees besides its own: the first, and the newest refined ones.
            generator: Of the noise, drawn block by block in the precision of the weights; seed 42 where none is given.
            memory: What a spatial memory shows of all latent frames, [1, memory_channels, T, H, W]; None shows nothing.

        Returns:
            [1, C, T, H, W] like `latents`; latent frame 0 is unchanged.

        Raises:
            ValueError: A shape or number cannot be used.
        """
        self._check(latents, text, text_mask, fps, block_size, window)
        if memory is not None:
            self._check_memory(latents, memory)
        if generator is None:
            generator = torch.Generator(self.device).manual_seed(SEED)
        clip = latents.to(self.device)
        starts = range(SINK_FRAMES, clip.shape[2], block_size)
        context = self.encode_text(text, text_mask)
        # No block ever looks back further than the last one can.
        history = min(window, starts[-1]) - SINK_FRAMES
        state = self.begin(clip[:, :, :SINK_FRAMES], context, fps, history)
        parts = [clip[:, :, :SINK_FRAMES]]
        for start in starts:
            block = clip[:, :, start : start + block_size]
            shown = None if memory is None else memory[:, :, start : start + block_size]
            noise = torch.randn(
                block.shape, generator=generator, device=generator.device, dtype=self.dtype
            ).to(self.device)
            if start == starts[-1]:
                refined, _, _ = self.denoise(block, noise, context, state, fps, shown)
            else:
                refined, state = self.step(block, noise, context, state, fps, shown)
            parts.append(refined.to(clip.dtype))
        return torch.cat(parts, dim=2).to(latents.device)

    def _sigma(self, sigma: float) -> Tensor:
        return torch.full((1, 1), sigma, dtype=torch.float32, device=self.device)

    def _table(self, frames: Tensor, latents: Tensor, fps: float) -> RotaryTable:
        return video_rotary(self.config, frames, latents.shape[-2], latents.shape[-1], fps)

    def _check_memory(self, latents: Tensor, memory: Tensor) -> None:
        wanted = (1, self.config.memory_channels, *latents.shape[2:])
        if memory.shape != wanted:
            raise ValueError(f"memory has the shape {tuple(memory.shape)}; give {wanted}, or none")

    def _check(
        self, latents: Tensor, text: Tensor, text_mask: Tensor, fps: float, block_size: int, window: int
    ) -> None:
        channels, width = self.config.in_channels, self.config.caption_channels
        if latents.ndim != 5 or latents.shape[:2] != (1, channels) or latents.shape[2] <= SINK_FRAMES:
            raise ValueError(
                f"latents have the shape {tuple(latents.shape)}; give [1, {channels}, T, H, W] with two latent frames or more"
            )
        if text.ndim != 3 or text.shape[0] != 1 or text.shape[2] != width:
            raise ValueError(
                f"text has the shape {tuple(text.shape)}; give [1, L, {width}] as the connectors do"
            )
        if text_mask.shape != text.shape[:2]:
            raise ValueError(
                f"text_mask has the shape {tuple(text_mask.shape)}; give {tuple(text.shape[:2])}, one number a token"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}; give the video's frames per second")
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block needs one latent frame or more")
        if window <= SINK_FRAMES:
            raise ValueError(
                f"window is {window}; it holds the first latent frame and one refined frame or more, so give at least "
                f"{SINK_FRAMES + 1}"
            )
