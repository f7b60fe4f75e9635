"""Whether a stage fits is judged where its parts lie: in a GPU, or in the memory of the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.config import sana_wm
from training.parallel.cost_model import GIB
from training.stages.plan import MemoryBudget, check_memory, expected_gib
from training.stages.presets import paper_stages

STAGE, MODEL = paper_stages()["minute-camera"], sana_wm()


def budget(num_processes: int, memory_gib: float, gpu_gib: float | None = None) -> MemoryBudget:
    gpu = None if gpu_gib is None else int(gpu_gib * GIB)
    return MemoryBudget(num_processes, int(memory_gib * GIB), gpu)


def test_masters_of_processes_with_gpus_begin_in_the_memory_of_the_machine():
    # 2.66 B weights: 30 GiB with master weights and EMA, 10 GiB alone.
    check_memory(STAGE, MODEL, budget(8, 40, gpu_gib=24))
    with pytest.raises(ValueError, match=r"30 GiB of memory.*fewer processes on each machine"):
        check_memory(STAGE, MODEL, budget(8, 20, gpu_gib=24))
    with pytest.raises(ValueError, match=r"10 GiB of its GPU"):
        check_memory(STAGE, MODEL, budget(64, 40, gpu_gib=8))


def test_what_more_processes_mend_is_told_so():
    with pytest.raises(ValueError, match=r"30 GiB of its GPU.*more processes"):
        check_memory(STAGE, MODEL, budget(2, 64, gpu_gib=24))
    with pytest.raises(ValueError, match=r"59 GiB of memory.*more machines"):
        check_memory(STAGE, MODEL, budget(1, 40))


def test_clips_take_room_by_how_they_are_laid_out_and_not_by_the_preset():
    shared = replace(STAGE, context_parallel=2)
    alone = expected_gib(shared, MODEL, budget(1, 0), 1, 1)
    assert alone == expected_gib(STAGE, MODEL, budget(1, 0), 1, 1)
    assert expected_gib(STAGE, MODEL, budget(2, 0), 2, 1) < expected_gib(STAGE, MODEL, budget(2, 0), 1, 1)
    beside = [expected_gib(STAGE, MODEL, budget(1, 0), 1, clips) for clips in (1, 2, 3)]
    assert beside[2] - beside[1] == pytest.approx(beside[1] - beside[0], rel=1e-6)
    assert beside[1] > 1.3 * beside[0]
