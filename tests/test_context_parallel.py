"""Clips shared out along time among processes compute what whole clips compute: values and gradients."""

from __future__ import annotations

import pytest
import torch

from tests.processes import Processes
from tests.sharding_cases import CASES, Arrays, differences, on_one_process, on_shares

TOLERANCE = 1e-11
"""Float64 rounding (1e-16) of the same sums in another order, through up to three blocks and fourteen frames."""
TOLERANCE_32 = 5e-5
"""The same for float32 (6e-8); the normaliser's division magnifies it where the normaliser is small."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Processes:
    return Processes(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def truth() -> dict[str, Arrays]:
    return {name: on_one_process(name, torch.float64) for name in CASES}


@pytest.mark.parametrize("size", [2, 4])
def test_shared_clips_equal_whole_ones(workers: Processes, truth: dict[str, Arrays], size: int) -> None:
    answers = workers.run(size, on_shares, list(CASES), torch.float64)
    for name in CASES:
        for answer in answers:
            found = differences(answer[name], truth[name])
            assert max(found.values()) < TOLERANCE, (name, max(found, key=lambda key: found[key]), found)


def test_shared_clips_equal_whole_ones_in_float32(workers: Processes) -> None:
    name = "whole model, chunk-causal"
    (answer, _) = workers.run(2, on_shares, [name], torch.float32)
    found = differences(answer[name], on_one_process(name, torch.float32))
    assert max(found.values()) < TOLERANCE_32, found
