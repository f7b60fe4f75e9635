"""The truth beside the generated picture: the holodeck's drawing of a world that has one, drawn on a thread of its own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from client.playback.history import WalkFrame
from engine.files.world import World
from engine.session.holodeck_session import TrueView

LINE_PX = 1
"""Half the width of the line between the two pictures, in frame pixels."""


class TruthMode(Enum):
    """What is shown."""

    OFF = "off"
    BESIDE = "left of the line is generated, right of it the truth"
    OVER = "the truth alone"


class TruthView:
    """Pairs of a generated frame and its truth, as fast as the truth is drawn."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._view = TrueView.of(world)
        self._pool: ThreadPoolExecutor | None = None
        self._drawing: tuple[WalkFrame, Future[NDArray[np.uint8]]] | None = None
        self._pair: tuple[WalkFrame, NDArray[np.uint8]] | None = None
        self._made: tuple[object, TruthMode, int, NDArray[np.uint8]] | None = None
        self.mode = TruthMode.OFF
        self.line = 0.5
        """Where the line stands, as a share of the width."""

    @property
    def is_offered(self) -> bool:
        """Whether this world has a truth."""
        return self._view is not None

    def turn(self) -> TruthMode:
        """Go to the next mode."""
        modes = list(TruthMode)
        self.mode = modes[(modes.index(self.mode) + 1) % len(modes)]
        self._pair = None
        return self.mode

    def update(self, frame: WalkFrame) -> bool:
        """Have the truth of the frame that is on drawn, where the last is finished; say whether there is a new pair."""
        if self.mode is TruthMode.OFF or self._view is None:
            return False
        changed = False
        if self._drawing is not None and self._drawing[1].done():
            shown, future = self._drawing
            self._pair, self._drawing, changed = (shown, future.result()), None, True
        drawn = None if self._pair is None else self._pair[0]
        if self._drawing is None and frame is not drawn:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "truth")
            self._drawing = frame, self._pool.submit(self._view.draw, frame.c2w)
        return changed

    def picture(self) -> NDArray[np.uint8] | None:
        """The last pair as one picture, [H, W, 3]; None while there is none, and the same array while nothing changes."""
        if self.mode is TruthMode.OFF or self._pair is None:
            return None
        frame, truth = self._pair
        if self.mode is TruthMode.OVER:
            return truth
        column = round(self.line * truth.shape[1])
        if self._made is None or self._made[:3] != (frame, self.mode, column):
            self._made = frame, self.mode, column, _split(frame.pixels, truth, column)
        return self._made[3]

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _split(generated: NDArray[np.uint8], truth: NDArray[np.uint8], column: int) -> NDArray[np.uint8]:
    """Put two pictures together at a column, with a white line between."""
    picture = generated.copy()
    picture[:, column:] = truth[:, column:]
    picture[:, max(0, column - LINE_PX) : column + LINE_PX] = 255
    return picture
