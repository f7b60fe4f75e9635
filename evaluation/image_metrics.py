"""How like two pictures are: PSNR, SSIM, gradient magnitudes, FLIP and LPIPS, each open or missing with a reason.

PSNR and GMSD need nothing but the base install; SSIM is scikit-image's, FLIP is its authors' flip-evaluator, LPIPS is its
authors' lpips, whose AlexNet comes from torchvision's download.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
SSIM_WINDOW_PX = 11
SHOWN_WIDTH_PX = 1280
"""Width that a picture is thought to be shown at, for FLIP."""
SHOWN_PX_PER_DEG = 67.0
"""Of visual angle: FLIP's own default, a desktop display at arm's length."""
GMSD_STABILITY = 170.0
"""Of the published measure, for pictures of 0 to 255."""
REMEDY = "run pip install -e '.[eval]' in a clone"


@dataclass(frozen=True)
class Measure:
    """A measure of two pictures [H, W, 3] in bytes: the truth, then what is held against it."""

    name: str
    unit: str
    higher_is_better: bool
    compare: Callable[[Frames, Frames], float]


class MeasureMissing(Exception):
    """A measure that this installation cannot take; its message is one sentence for the user."""


def psnr(truth: Frames, picture: Frames) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = np.square(truth.astype(np.float64) - picture.astype(np.float64)).mean()
    return float(10 * np.log10(255.0**2 / max(error, 1e-3)))


def gmsd(truth: Frames, picture: Frames) -> float:
    """Gradient magnitude similarity deviation: 0 where edges agree, about 0.35 where nothing does.

    Pictures are halved first, as its authors do.
    """
    first, second = (_gradient(_luma(image)) for image in (truth, picture))
    similarity = (2 * first * second + GMSD_STABILITY) / (first**2 + second**2 + GMSD_STABILITY)
    return float(similarity.std())


def _luma(image: Frames) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = grey.shape
    return np.asarray(cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.float32)


def _gradient(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the Prewitt gradient."""
    kernel = np.repeat(np.array([[1.0, 0.0, -1.0]], np.float32) / 3, 3, 0)
    across = cv2.filter2D(grey, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    down = cv2.filter2D(grey, -1, kernel.T, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)


def open_measures(names: Sequence[str]) -> tuple[list[Measure], list[str]]:
    """Open measures by name.

    Returns:
        Those that can be taken here, and for each other one sentence why not.

    Raises:
        ValueError: A name is unknown.
    """
    found, missing = [], []
    for name in dict.fromkeys(names):
        if name not in OPENERS:
            raise ValueError(f"there is no measure called {name!r}; choose from {', '.join(OPENERS)}")
        try:
            found.append(OPENERS[name]())
        except MeasureMissing as reason:
            missing.append(str(reason))
    return found, missing


def _open_psnr() -> Measure:
    return Measure("psnr", "dB", True, psnr)


def _open_gmsd() -> Measure:
    return Measure("gmsd", "", False, gmsd)


def _open_ssim() -> Measure:
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        raise MeasureMissing(f"SSIM needs scikit-image, which is not installed; {REMEDY}") from None

    def compare(truth: Frames, picture: Frames) -> float:
        window = min(SSIM_WINDOW_PX, (min(truth.shape[:2]) - 1) // 2 * 2 + 1)
        likeness = structural_similarity(truth, picture, win_size=window, channel_axis=2, data_range=255)
        return float(np.asarray(likeness))

    return Measure("ssim", "", True, compare)


def _open_flip() -> Measure:
    try:
        import flip_evaluator
    except ImportError:
        raise MeasureMissing(f"FLIP needs flip-evaluator, which is not installed; {REMEDY}") from None

    def compare(truth: Frames, picture: Frames) -> float:
        first, second = (image.astype(np.float32) / 255.0 for image in (truth, picture))
        seen = {"ppd": SHOWN_PX_PER_DEG * truth.shape[1] / SHOWN_WIDTH_PX}
        return float(flip_evaluator.evaluate(first, second, "LDR", applyMagma=False, parameters=seen)[1])

    return Measure("flip", "", False, compare)


def _open_lpips() -> Measure:
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Its linear heads lie in the package; torchvision fetches AlexNet, unless torch's hub folder has it.
            network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
    except (ImportError, RuntimeError, AttributeError):
        # torchvision beside a torch of another build fails with one of the latter two.
        raise MeasureMissing(
            "LPIPS needs lpips and a torchvision that fits torch; run pip install lpips torchvision, or do without it"
        ) from None
    except OSError:
        raise MeasureMissing(
            "LPIPS needs the weights of AlexNet, which could not be fetched; put alexnet-owt-7be5be79.pth into "
            "the folder hub/checkpoints of torch's cache, or do without it"
        ) from None

    @torch.no_grad()
    def compare(truth: Frames, picture: Frames) -> float:
        first, second = (
            torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for image in (truth, picture)
        )
        return float(network(first, second))

    return Measure("lpips", "", False, compare)


OPENERS: dict[str, Callable[[], Measure]] = {
    "psnr": _open_psnr,
    "ssim": _open_ssim,
    "gmsd": _open_gmsd,
    "flip": _open_flip,
    "lpips": _open_lpips,
}
