"""Meters of a walk: the latency from an input to the picture that answers it, and the drift of generated pictures.

Pure arithmetic over clock readings and frames passed in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.types import ChunkTimes

MAX_WAITING = 4096
"""Inputs that may wait for their answer: more than a minute of a moving mouse."""
NUM_ANSWERS = 512
"""Answers that the percentiles are taken of."""
REFERENCE_CHUNKS = 8
RECENT_CHUNKS = 16
NAMES = ("brightness", "contrast", "colour", "detail")
FLOORS = np.array([0.02, 0.01, 0.02, 0.002])
MAX_COLUMNS = 80
"""So many tell blurred from sharp, and cost the client thread a millisecond or two a chunk at any size."""


@dataclass(frozen=True)
class MeteredInput:
    """One input on its way to the display; times are clock seconds."""

    at_s: float
    posted_s: float
    """The stamp by which a chunk's `latched_s` says that it knows this input."""
    looks: bool
    """Whether it asks to look elsewhere, which late reprojection can answer before the model."""
    moves: bool = False
    """Whether it asks to go elsewhere, which late reprojection can answer where frames have depth."""
    chunk_index: int = -1
    """Of the first chunk that knows it; -1 until there is one."""
    first_frame: int = -1
    """Of that chunk, counted from the world's first frame."""
    latched_s: float = 0.0
    model_start_s: float = 0.0
    ready_s: float = 0.0
    refine_delay_ms: float = 0.0
    """How much later that chunk was ready for being refined."""
    shown_s: float | None = None
    """When the first frame that the model made of it was on."""
    warped_s: float | None = None
    """When late reprojection first showed it; None where the model was first, or nothing was turned."""

    @property
    def model_ms(self) -> float | None:
        return None if self.shown_s is None else 1e3 * (self.shown_s - self.at_s)

    @property
    def warped_ms(self) -> float | None:
        return None if self.warped_s is None else 1e3 * (self.warped_s - self.at_s)


@dataclass(frozen=True)
class Response:
    """Percentiles of one kind of answer, milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float


class LatencyMeter:
    """Follows every input of a walk to the model's answer and to that of late reprojection, which are counted apart.

    The time of an input is when the client reads it, that of a picture when it is handed to the display; what lies
    before and behind is for a camera to measure.
    """

    def __init__(self) -> None:
        self._model_ms: deque[float] = deque(maxlen=NUM_ANSWERS)
        self._warped_ms: deque[float] = deque(maxlen=NUM_ANSWERS)
        self._refine_ms: deque[float] = deque(maxlen=NUM_ANSWERS)
        self.num_inputs = 0
        """Inputs seen since the walk was opened."""
        self.num_answers = 0
        """Pictures shown that were the first to know an input, by the model's doing."""
        self._waiting: deque[MeteredInput] = deque(maxlen=MAX_WAITING)

    def reset(self) -> None:
        """Begin a new rollout: nothing that waits will be answered."""
        self._waiting.clear()

    def note_input(self, at_s: float, posted_s: float, looks: bool, moves: bool = False) -> None:
        """Note that the player asked for something else than before."""
        self.num_inputs += 1
        self._waiting.append(MeteredInput(at_s, posted_s, looks, moves))

    def note_chunk(self, chunk_index: int, first_frame: int, times: ChunkTimes) -> None:
        """Note a chunk that arrived, with the number of its first frame."""
        for i, waiting in enumerate(self._waiting):
            if waiting.posted_s > times.latched_s:
                break
            if waiting.chunk_index < 0:
                self._waiting[i] = replace(
                    waiting,
                    chunk_index=chunk_index,
                    first_frame=first_frame,
                    latched_s=times.latched_s,
                    model_start_s=times.model_start_s,
                    ready_s=times.ready_s,
                    refine_delay_ms=times.refine_delay_ms,
                )

    def answers_by(self, frame_index: int) -> int:
        """Return what `num_answers` is once this frame is shown."""
        waits = bool(self._waiting) and 0 <= self._waiting[0].first_frame <= frame_index
        return self.num_answers + waits

    def note_shown(
        self, frame_index: int, shown_s: float, turned: bool, moved: bool = False
    ) -> list[MeteredInput]:
        """Note the picture that is on; return the inputs whose answer by the model it is the first to show.

        Args:
            frame_index: Of its frame, counted from the world's first.
            shown_s: When it was handed to the display.
            turned: Whether it is turned to where the player looks by now.
            moved: Whether it is moved to where the player stands by now, too.
        """
        if turned or moved:
            self._note_warped(shown_s, turned, moved)
        answered: list[MeteredInput] = []
        while self._waiting and 0 <= self._waiting[0].first_frame <= frame_index:
            answered.append(replace(self._waiting.popleft(), shown_s=shown_s))
        self._model_ms.extend(value.model_ms for value in answered if value.model_ms is not None)
        self._refine_ms.extend(value.refine_delay_ms for value in answered if value.refine_delay_ms)
        self.num_answers += bool(answered)
        return answered

    def _note_warped(self, shown_s: float, turned: bool, moved: bool) -> None:
        for i, waiting in enumerate(self._waiting):
            shows = (turned or not waiting.looks) and (moved or not waiting.moves)
            if waiting.warped_s is None and shows and (waiting.looks or waiting.moves):
                self._waiting[i] = warped = replace(waiting, warped_s=shown_s)
                self._warped_ms.append(warped.warped_ms or 0.0)

    @property
    def model(self) -> Response:
        """How fast the model answered lately."""
        return _response(self._model_ms)

    @property
    def refiner(self) -> Response:
        """What the refiner added to the model's answers lately, of those that were refined."""
        return _response(self._refine_ms)

    @property
    def warped(self) -> Response:
        """How fast late reprojection answered lately."""
        return _response(self._warped_ms)


def _response(values_ms: Sequence[float]) -> Response:
    if not values_ms:
        return Response(0, 0.0, 0.0, 0.0)
    p50, p90, p99 = (float(value) for value in np.percentile(np.asarray(values_ms), (50, 90, 99)))
    return Response(len(values_ms), p50, p90, p99)


@dataclass(frozen=True)
class Drift:
    """What the drift meter reads."""

    value: float
    most: str
    """Which of the four numbers has changed most."""
    factor: float
    """By how much, as a multiple of what it was."""


class DriftMeter:
    """How far generated pictures have come from the first ones, by their statistics alone.

    Four numbers are taken of the last frame of every chunk, sampled to about MAX_COLUMNS columns, from the channels and
    from luma y = 0.299 R + 0.587 G + 0.114 B, in [0, 1]:

        brightness  mean of y
        contrast    standard deviation of y
        colour      mean over the pixels of max(R, G, B) - min(R, G, B)
        detail      mean of |dy/du| + |dy/dv| between neighbouring pixels

    With r_i the mean of number i over the first REFERENCE_CHUNKS chunks, s_i its mean over the last RECENT_CHUNKS and e_i
    a floor below which a difference is noise,

        drift = sqrt(1/4 sum_i ln((s_i + e_i) / (r_i + e_i))^2)

    0 is as in the beginning, 0.7 means that all four have doubled or halved. A walk from a bright square into a dark
    alley moves it too: it says how different the pictures are, not whose fault that is.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Take the next chunks for the first: another world or walk begins."""
        self._reference: list[NDArray[np.float64]] = []
        self.forget_recent()

    def forget_recent(self) -> None:
        """Forget what was seen lately, but not how the walk began: it goes on elsewhere."""
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=RECENT_CHUNKS)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Measure the last frame of the next chunk, [H, W, 3]."""
        numbers = image_statistics(frame)
        if len(self._reference) < REFERENCE_CHUNKS:
            self._reference.append(numbers)
        self._recent.append(numbers)

    def read(self) -> Drift | None:
        """Return the drift by now; None until the first chunks are complete."""
        if len(self._reference) < REFERENCE_CHUNKS or not self._recent:
            return None
        first, last = np.mean(self._reference, axis=0), np.mean(self._recent, axis=0)
        logs = np.log((last + FLOORS) / (first + FLOORS))
        most = int(np.argmax(np.abs(logs)))
        return Drift(float(np.sqrt(np.mean(logs**2))), NAMES[most], math.exp(float(logs[most])))


def image_statistics(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the four numbers of a frame, [4], of [H, W, 3] RGB."""
    stride = max(1, frame.shape[1] // MAX_COLUMNS)
    pixels = frame[::stride, ::stride].astype(np.float32) / 255.0
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = pixels.max(-1) - pixels.min(-1)
    detail = np.abs(np.diff(luma, axis=1)).mean() + np.abs(np.diff(luma, axis=0)).mean()
    return np.array([luma.mean(), luma.std(), colour.mean(), detail], np.float64)
