"""The stream of clips: every clip once an epoch, shared out, resumed exactly, whatever is broken on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.batches import draw_windows
from training.data.clip import Clip, ClipRejected, LeftOut, count_left_out, readable
from training.data.latents import latent_walk
from training.data.stream import ClipStream


def clip(name: str, lens: float = 20.0) -> Clip:
    c2w = np.tile(np.eye(4), (9, 1, 1))
    c2w[:, 2, 3] = np.linspace(1.0, 3.0, 9)
    intrinsics = np.tile([20.0, 20.0, 12.0, 8.0], (9, 1))
    intrinsics[4:, :2] = lens
    latents = np.arange(5, dtype=np.float16)[:, None, None, None] * np.ones((1, 4, 2, 3), np.float16)
    return Clip(name, "list", "hall", "A hall.", c2w, intrinsics, (24, 16), 16.0, latents=latents)


class Listed:
    """Clips called by their number; some are broken, some rejected."""

    def __init__(self, count: int, broken: set[int] | None = None, rejected: set[int] | None = None) -> None:
        self.name, self.left_out = "list", [LeftOut("early", "early is damaged")]
        self.count, self.broken, self.rejected = count, broken or set(), rejected or set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        if index in self.broken:
            raise ValueError(f"{index} is damaged")
        if index in self.rejected:
            raise ClipRejected(f"{index} is blank")
        return clip(str(index))

    def label(self, index: int) -> str:
        return str(index)


def names(stream: ClipStream, count: int) -> list[int]:
    return [int(clip.name) for clip in islice(stream, count)]


def test_an_epoch_gives_every_clip_once_and_the_next_in_another_order():
    stream = ClipStream([Listed(10), Listed(10)], seed=1)
    both = names(stream, 40)
    first, second = both[:20], both[20:]
    assert sorted(first) == sorted(second) == sorted([*range(10), *range(10)])
    assert first != second
    assert first == names(ClipStream([Listed(10), Listed(10)], seed=1), 20)
    assert first != names(ClipStream([Listed(10), Listed(10)], seed=2), 20)


@settings(deadline=None, max_examples=15)
@given(st.integers(3, 20), st.integers(0, 45), st.integers(1, 3))
def test_a_resumed_stream_goes_on_exactly_where_it_stopped(count: int, stop: int, ranks: int):
    whole = [names(ClipStream([Listed(count)], 5, rank, ranks), stop + 20) for rank in range(ranks)]
    cut = ClipStream([Listed(count)], 5, 0, ranks)
    names(cut, stop)
    # Through JSON, as a checkpoint keeps it.
    state = json.loads(json.dumps(cut.state_dict()))
    for rank in range(ranks):
        resumed = ClipStream([Listed(count)], 5, rank, ranks)
        resumed.load_state_dict(state)
        assert names(resumed, 20) == whole[rank][stop:]


def test_processes_share_an_epoch_and_another_number_of_them_goes_on_with_the_rest():
    saved = [ClipStream([Listed(24)], 3, rank, 2) for rank in range(2)]
    seen = [name for stream in saved for name in names(stream, 4)]
    assert len(set(seen)) == 8
    states = [stream.state_dict() for stream in saved]
    assert states[0] == states[1]
    for ranks in (1, 4):
        rest = []
        for rank in range(ranks):
            stream = ClipStream([Listed(24)], 3, rank, ranks)
            stream.load_state_dict(states[0])
            rest += names(stream, 16 // ranks)
        assert sorted([*seen, *rest]) == list(range(24))


@pytest.mark.parametrize("ranks", [2, 4, 5])
def test_what_comes_does_not_depend_on_how_many_processes_there_are(ranks: int):
    # Seven clips fill no epoch of theirs evenly.
    alone = names(ClipStream([Listed(7)], 3), 40)
    shares = [names(ClipStream([Listed(7)], 3, rank, ranks), 40 // ranks) for rank in range(ranks)]
    assert [name for together in zip(*shares, strict=True) for name in together] == alone


def test_a_broken_clip_is_named_skipped_and_counted_and_nobody_waits():
    stream = ClipStream([Listed(10, broken={2, 3}, rejected={7})], seed=1)
    given_out = names(stream, 10)
    assert len(given_out) == 10
    assert set(given_out) == {0, 1, 4, 5, 6, 8, 9}
    assert count_left_out(list(stream.left_out.values())) == {"rejected": 1, "broken": 3}
    assert stream.left_out["2"].reason == "2 is damaged"
    assert stream.state_dict()["consumed"] == 10


def test_a_set_of_which_nothing_can_be_used_is_an_error_and_no_endless_search():
    stream = ClipStream([Listed(3, broken={0, 1, 2})], seed=1)
    with pytest.raises(ValueError, match="none of 3 clips"):
        names(stream, 1)


def test_workers_that_read_ahead_change_nothing():
    alone = names(ClipStream([Listed(8, broken={5})], seed=4), 20)
    ahead = ClipStream([Listed(8, broken={5})], seed=4, num_workers=2)
    assert names(ahead, 20) == alone
    assert ahead.state_dict() == {"seed": 4, "clips": 8, "epoch": 2, "consumed": 4}


def test_a_position_among_other_clips_is_refused():
    state = ClipStream([Listed(8)], seed=4).state_dict()
    with pytest.raises(ValueError, match="start the data again"):
        ClipStream([Listed(9)], seed=4).load_state_dict(state)
    with pytest.raises(ValueError, match="at least one each"):
        ClipStream([Listed(1)], seed=4, num_ranks=2)


def test_clips_become_walks_that_a_stage_draws_windows_from():
    left_out: list[LeftOut] = []
    walks = [latent_walk(found, 1) for found in readable(Listed(3), left_out)]
    batch = draw_windows(walks, 6, 3, np.random.default_rng(0))
    assert batch.latents.shape == (6, 4, 4, 2, 3)
    assert batch.scene.tolist() == [1] * 6
    # Poses count from the clip's first frame, in metres.
    torch.testing.assert_close(batch.c2w[:, 0, 2, 3], torch.zeros(6))
    torch.testing.assert_close(walks[0].c2w[-1, -1, 2, 3], torch.tensor(2.0))
    assert walks[0].intrinsics.tolist() == [20.0, 20.0, 12.0, 8.0]


def test_a_clip_that_zooms_is_no_walk():
    with pytest.raises(ClipRejected, match="zooms"):
        latent_walk(clip("zoom", lens=30.0), 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"c2w": np.full((9, 4, 4), np.nan)}, "not finite"),
        ({"c2w": np.tile(np.diag([2.0, 2, 2, 1]), (9, 1, 1))}, "not rigid"),
        ({"intrinsics": np.zeros((9, 4))}, "not positive"),
        ({"intrinsics": np.ones((8, 4))}, "for 9 poses"),
        ({"frames": np.zeros((9, 16, 20, 3), np.uint8)}, "one pose per frame"),
        ({"latents": np.zeros((4, 4, 2, 3), np.float16)}, "1 \\+ R"),
        ({"latents": np.full((5, 4, 2, 3), np.inf, np.float16)}, "not finite"),
        ({"latents": np.zeros((5, 4, 2, 3), np.float32)}, "float16"),
    ],
)
def test_a_clip_whose_parts_do_not_fit_cannot_be_made(change: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        replace(clip("a"), **change)
