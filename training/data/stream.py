"""An endless stream of clips, shuffled and shared out between processes, whose position can be saved.

The order of an epoch depends on the seed and the epoch alone, and all processes together walk through it. What is saved is how
far they are, so a run that is resumed on another number of processes goes on with the clips that nobody has seen yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler, Subset

from training.data.clip import Clip, ClipSource, LeftOut, try_reading


@dataclass(frozen=True)
class _Drawn:
    """A clip, and what was left out on the way to it."""

    clip: Clip
    left_out: list[LeftOut]


class _Readable(Dataset[_Drawn]):
    """Sources end to end; in place of a clip that cannot be used the next one that can is given.

    So every process has a clip for every draw, and none waits for another that met a broken file.
    """

    def __init__(self, sources: Sequence[ClipSource]) -> None:
        self.items = [(source, index) for source in sources for index in range(len(source))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Drawn:
        left_out: list[LeftOut] = []
        for offset in range(len(self.items)):
            source, number = self.items[(index + offset) % len(self.items)]
            clip = try_reading(source, number)
            if isinstance(clip, Clip):
                return _Drawn(clip, left_out)
            left_out.append(clip)
        raise ValueError(f"none of {len(self.items)} clips can be used; the first: {left_out[0].reason}")


class ClipStream:
    """The clips of some sources for one of several processes, epoch after epoch."""

    def __init__(
        self,
        sources: Sequence[ClipSource],
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 0,
    ) -> None:
        """Prepare the stream.

        Args:
            num_workers: Processes that read ahead; with 0 clips are read when they are asked for.

        Raises:
            ValueError: The sources are empty, or there are more processes than clips.
        """
        self.data = _Readable(sources)
        if len(self.data) < num_ranks or not len(self.data):
            raise ValueError(
                f"there are {len(self.data)} clips for {num_ranks} processes; give at least one each"
            )
        self.seed, self.rank, self.num_ranks, self.num_workers = seed, rank, num_ranks, num_workers
        self.epoch = 0
        self.consumed = 0
        """Clips of this epoch that all processes together have been given, and of the next that filled it up."""
        self.left_out = {item.name: item for source in sources for item in source.left_out}
        """What was not given so far, each once."""

    def __iter__(self) -> Iterator[Clip]:
        """Yield clips without end, from the saved position on."""
        while True:
            epochs, self.consumed = divmod(self.consumed, len(self.data))
            self.epoch += epochs
            for drawn in self._rest_of_epoch():
                # Moved before the clip is given: who saves while he holds it has had it.
                self.consumed += self.num_ranks
                self.left_out |= {item.name: item for item in drawn.left_out}
                yield drawn.clip

    def _rest_of_epoch(self) -> DataLoader[_Drawn]:
        left = self._order(self.epoch)[self.consumed :]
        # An uneven epoch is filled up with the first clips of the next, which go on from there: every process gets as many,
        # and what comes does not depend on how many there are.
        rest = Subset(self.data, left + self._order(self.epoch + 1)[: -len(left) % self.num_ranks])
        share = DistributedSampler(rest, self.num_ranks, self.rank, shuffle=False)
        # Without a generator a loader draws from torch's own numbers, which then tell how often a training was resumed.
        return DataLoader(
            rest,
            batch_size=None,
            sampler=share,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
        )

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return list(RandomSampler(self.data, generator=generator))

    def seek(self, number: int) -> None:
        """Go on with the clip of this number, counted over all epochs and processes."""
        self.epoch, self.consumed = divmod(number, len(self.data))

    def state_dict(self) -> dict[str, Any]:
        """The position, as JSON values; the same on every process."""
        return {"seed": self.seed, "clips": len(self.data), "epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position, whatever number of processes it was saved on.

        Raises:
            ValueError: It was saved with other data or another seed.
        """
        if (state["seed"], state["clips"]) != (self.seed, len(self.data)):
            raise ValueError(
                f"the position is one among {state['clips']} clips of seed {state['seed']}, but here are "
                f"{len(self.data)} of seed {self.seed}; start the data again or give what was there"
            )
        self.epoch, self.consumed = state["epoch"], state["consumed"]


def _as_it_is(drawn: Any) -> Any:
    """Leave arrays alone; torch would turn them into tensors."""
    return drawn
