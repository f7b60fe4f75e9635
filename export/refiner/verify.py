"""An exported refiner held against PyTorch, block after block of latents, on made-up latents and text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.files.refiner import RefinerFolder
from engine.session.refiner import GraphRunner, RefinerStream
from model.refiner import Refiner
from model.refiner.state import SINK_FRAMES

FULL_BOUND = 1e-4
"""Of relative differences where the state is float32: sums in another order differ by about 1e-5."""
HALF_BOUND = 5e-3
"""Where keys and values are kept in float16, which has 11 bits."""
TEXT_LENGTH = 32


@dataclass(frozen=True)
class RefinerReport:
    """Largest differences, each beside the largest value."""

    latents: tuple[float, ...]
    """Of refined latents, per block."""
    state: float
    """Of any state tensor after any block."""
    bound: float

    @property
    def passed(self) -> bool:
        """Whether all differences are within the bound; NaN is not."""
        return all(error <= self.bound for error in (*self.latents, self.state))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"passed": self.passed, **asdict(self)}


@torch.no_grad()
def verify_refiner(
    folder: RefinerFolder, runner: GraphRunner, refiner: Refiner, num_blocks: int = 4, seed: int = 0
) -> RefinerReport:
    """Refine the same latents by the graphs and by PyTorch; four blocks fill the ring and write over its oldest.

    Args:
        runner: Runs the folder's graphs.
        refiner: The network they were exported from, in float32.
    """
    spec = folder.spec
    rng = np.random.default_rng(seed)
    shape = (1, spec.latent_channels, spec.block_size, spec.latent_height, spec.latent_width)
    text = rng.standard_normal((TEXT_LENGTH, spec.text_dim), np.float32)
    mask = (np.arange(TEXT_LENGTH) >= TEXT_LENGTH // 4).astype(np.float32)
    stream = RefinerStream(spec, runner, text, mask)
    context = refiner.encode_text(torch.from_numpy(text)[None], torch.from_numpy(mask)[None])
    first = rng.standard_normal(shape, np.float32)[:, :, :SINK_FRAMES]
    stream.begin(first[0, :, 0])
    state = refiner.begin(torch.from_numpy(first), context, spec.fps, spec.window - SINK_FRAMES)
    latent_errors, state_errors = [], []
    for _ in range(num_blocks):
        latents, noise = (rng.standard_normal(shape, np.float32) for _ in range(2))
        memory = None
        if spec.memory_channels:
            memory = rng.standard_normal((1, spec.memory_channels, *shape[2:]), np.float32)
        refined = stream.refine(latents, noise, memory)
        expected, state = refiner.step(
            torch.from_numpy(latents),
            torch.from_numpy(noise),
            context,
            state,
            spec.fps,
            None if memory is None else torch.from_numpy(memory),
        )
        latent_errors.append(_relative(torch.from_numpy(refined), expected))
        state_errors += [
            _relative(torch.from_numpy(stream.state[name]).float(), tensor)
            for name, tensor in state.tensors.items()
        ]
    is_half = any(tensor.dtype == "float16" for tensor in spec.state)
    return RefinerReport(tuple(latent_errors), max(state_errors), HALF_BOUND if is_half else FULL_BOUND)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())
