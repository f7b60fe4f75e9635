"""Depth stage of the pocket: a small network learns the depth of single pictures, for worlds that begin with one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.vae.depth import FAR, DepthNetwork
from training.optimizer import MasterOptimizer, OptimizerConfig
from training.pocket.views import RgbdViews

EDGE_WEIGHT = 1.0
"""Weight of the L1 error of differences between neighbours, at full size and of averages over 4x4 pixels."""
RECOLOURED_SHARE = 0.7
"""Share of pictures whose hues are turned and whose brightness and contrast change."""
TEXTURED_SHARE = 0.6
"""Share of pictures over which noise is laid: drawn places are smooth, and photos have textures that are no shapes."""


class DepthStage:
    """Pictures with exact depth and the error of the logarithm of its inverse."""

    name = "depth"

    def __init__(
        self,
        model: DepthNetwork,
        views: Sequence[RgbdViews],
        batch_size: int = 8,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        self.model, self.views, self.batch_size = model, views, batch_size
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = MasterOptimizer(self.model, optimizer or OptimizerConfig())
        counts = np.array([len(part.color) for part in views], float)
        self._shares = counts / counts.sum()

    @property
    def frames_per_step(self) -> float:
        """Pictures of a batch."""
        return float(self.batch_size)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step on a batch of pictures."""
        pictures, truth = self.batch(rng)
        told = self.model(pictures.to(self.model.conv_in.weight.dtype)).float()
        error = told - truth
        coarse = functional.avg_pool2d(error[:, None], 4)[:, 0]
        loss = error.abs().mean() + EDGE_WEIGHT * (_steps(error) + _steps(coarse))
        loss.backward()
        solid = truth > np.log(2 * FAR)
        ratio = (told.detach().exp() - FAR) / (truth.exp() - FAR).clamp_min(FAR)
        off = (ratio - 1).abs()[solid]
        return {"loss": float(loss.detach()), "median_error": float(off.median())}

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw pictures [N, 3, H, W] in [-1, 1] and log(inverse depth + FAR), [N, H, W]; half of them are mirrored."""
        pictures, truths = [], []
        for source in rng.choice(len(self.views), self.batch_size, p=self._shares):
            views = self.views[source]
            number = int(rng.integers(len(views.color)))
            color, inverse = np.array(views.color[number]), views.inverse_depth[number].astype(np.float32)
            if rng.random() < 0.5:
                color, inverse = color[:, ::-1], inverse[:, ::-1]
            if rng.random() < RECOLOURED_SHARE:
                color = recoloured(np.ascontiguousarray(color), rng)
            if rng.random() < TEXTURED_SHARE:
                color = textured(color, rng)
            pictures.append(color)
            truths.append(np.log(inverse + np.float32(FAR)))
        color = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return color, torch.from_numpy(np.stack(truths))

    def finished_model(self) -> DepthNetwork:
        """The EMA weights in fp32."""
        model = DepthNetwork(self.model.config)
        model.load_state_dict(self.optimizer.ema_state(), strict=False)
        return model.float().eval()


def _steps(values: Tensor) -> Tensor:
    """Mean absolute difference between neighbours of [N, H, W]."""
    return values.diff(dim=-1).abs().mean() + values.diff(dim=-2).abs().mean()


def recoloured(color: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture [H, W, 3] with its hues turned, its channels changed round, and other brightness and contrast."""
    hue = cv2.cvtColor(color, cv2.COLOR_RGB2HSV_FULL)
    hue[..., 0] += np.uint8(rng.integers(256))
    turned = np.asarray(cv2.cvtColor(hue, cv2.COLOR_HSV2RGB_FULL))[..., rng.permutation(3)]
    level, contrast = rng.normal(0, 12), np.exp(rng.normal(0, 0.15))
    return np.clip((turned.astype(np.float32) - 127.5) * contrast + 127.5 + level, 0, 255).astype(np.uint8)


def textured(color: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture [H, W, 3] under noise like the textures of photos, in brightness and often in hue, now and then out of focus."""
    size = color.shape[:2]
    shade = np.exp(rng.uniform(0.03, 0.3) * _noise(size, rng.uniform(0.6, 1.8), rng))
    drawn = color * shade[..., None]
    if rng.random() < 0.5:
        drawn += _noise(size, rng.uniform(1.0, 1.8), rng)[..., None] * rng.normal(0, 14, 3).astype(np.float32)
    picture = np.clip(drawn, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    return picture


def _noise(size: tuple[int, int], power: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise [H, W] of deviation 1 whose amplitude falls with the frequency to the power of `power`, as it does in photos."""
    height, width = size
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    falling = np.maximum(np.hypot(down, across), 1 / max(size)) ** -power
    spectrum = rng.standard_normal((2, *falling.shape))
    noise = np.fft.irfft2((spectrum[0] + 1j * spectrum[1]) * falling, size)
    return (noise / noise.std()).astype(np.float32)
