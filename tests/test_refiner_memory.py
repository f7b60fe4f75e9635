"""A session shows its refiner what it shows its model of the spatial memory, and snapshots stay exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript")

from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.refiner import FOLDER
from engine.files.world import World
from engine.session.chunk_refiner import open_chunk_refiner
from engine.session.model_session import ModelSession
from engine.session.sampler import refiner_noise
from engine.types import LatentChunk
from export.refiner.folder import export_refiner
from export.refiner.graphs import Sizes
from model.refiner import Refiner
from tests.conftest import C
from tests.guided import GuidedBackend, guided_spec, guided_world, turn_round
from tests.refiner_cases import small_refiner

WINDOW, SEED = 3, 3


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    sizes = {"in_channels": C, "out_channels": C, "caption_channels": guided_spec().text_dim}
    return small_refiner(torch.float32, num_layers=2, memory_channels=C + 1, **sizes)


@pytest.fixture(scope="module")
def bundle(refiner: Refiner, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec, folder = guided_spec(), tmp_path_factory.mktemp("guided")
    sizes = Sizes((spec.latent_height, spec.latent_width), spec.fps, spec.chunk_size, WINDOW)
    export_refiner(refiner, folder / FOLDER, sizes)
    return Bundle(folder, spec, "cd" * 32)


@pytest.fixture
def start(bundle: Bundle, toy_world: World) -> Callable[[], ModelSession]:
    """Open sessions of one refiner at the start of a walk."""
    world = guided_world(toy_world)

    def opened() -> ModelSession:
        second_stage = open_chunk_refiner(bundle, bundle.path / FOLDER, 1)
        session = ModelSession(bundle, world, GuidedBackend(), refiner=second_stage)
        session.reset(SEED)
        session.keep_snapshots = True
        return session

    return opened


def walked(session: ModelSession, first: int, count: int) -> Iterator[tuple[LatentChunk, LatentChunk]]:
    """Walk on; gives each chunk before and after the refiner."""
    for track in turn_round(first, count, refine=True):
        made = session.denoise(track)
        refined = session.refine(made)
        session.decode(refined)
        yield made, refined


def walked_hashes(session: ModelSession, first: int, count: int) -> list[str]:
    return [refined.sha256 for _, refined in walked(session, first, count)]


def test_chunks_are_refined_as_pytorch_refines_them_from_the_same_memory(
    start: Callable[[], ModelSession], refiner: Refiner
):
    session = start()
    backend = session._backend
    assert isinstance(backend, GuidedBackend)
    world, text = session.world, torch.from_numpy(session.world.text)[None]
    context = refiner.encode_text(text, torch.from_numpy(world.text_mask)[None])
    first = torch.from_numpy(world.first_latent)[None, :, None]
    state = refiner.begin(first, context, session.fps, WINDOW - 1)
    for made, refined in walked(session, 0, 6):
        assert made.memory is not None
        np.testing.assert_array_equal(made.memory[None], backend.memories[-1])
        noise = refiner_noise(SEED, made.chunk_index, made.latents.shape)
        latents, eps, memory = (torch.from_numpy(a)[None] for a in (made.latents, noise, made.memory))
        blind, _ = refiner.step(latents, eps, context, state, session.fps)
        expected, state = refiner.step(latents, eps, context, state, session.fps, memory)
        np.testing.assert_allclose(refined.latents, expected[0], atol=1e-4)
        assert np.abs(refined.latents - blind[0].numpy()).max() > 0.01


def test_a_snapshot_goes_on_with_the_memory(start: Callable[[], ModelSession]):
    session = start()
    walked_hashes(session, 0, 6)
    snapshot = session.snapshot()
    expected = walked_hashes(session, 6, 5)
    other = start()
    other.restore(snapshot)
    assert walked_hashes(other, 6, 5) == expected


def test_a_refiner_that_reads_a_memory_needs_a_model_that_has_one(bundle: Bundle):
    without = replace(bundle, spec=bundle.spec.model_copy(update={"memory_channels": 0}))
    with pytest.raises(SpecMismatch, match="reads a memory of 5 channels, guided has one of 0"):
        open_chunk_refiner(without, bundle.path / FOLDER, 1)
