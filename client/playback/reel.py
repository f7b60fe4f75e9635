"""Which moment of the past is shown while the rewind key is held: one back at once, then ever faster.

Pure arithmetic over clock readings passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

from client.playback.past import Moment

START_PER_S = 4.0
"""Moments a second just after the first: the chunks of the pocket world as they were walked."""
GAIN_PER_S2 = 6.0
"""How much faster with every second the key is held."""


class Reel:
    """The film of a walk being wound back."""

    def __init__(self, film: Sequence[Moment], now_s: float) -> None:
        """Begin behind the last of `film`, of which there must be one."""
        self.film = tuple(film)
        self._began_s = now_s
        self.index = len(self.film) - 1

    @property
    def moment(self) -> Moment:
        """The moment that is shown."""
        return self.film[self.index]

    def update(self, now_s: float) -> bool:
        """Wind on; say whether another moment is shown now."""
        held_s = max(0.0, now_s - self._began_s)
        back = int(START_PER_S * held_s + 0.5 * GAIN_PER_S2 * held_s**2)
        before = self.index
        self.index = max(0, min(self.index, len(self.film) - 1 - back))
        return self.index != before
