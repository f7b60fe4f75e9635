from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.session.sampler import chunk_noise, denoise_chunk, shorter_schedule, window_frames

TIMESTEPS = (1000.0, 960.0, 889.0, 727.0)


def test_noise_depends_on_seed_and_chunk_alone() -> None:
    noise = chunk_noise(3, 5, (1, 4, 1, 2, 3))
    np.testing.assert_array_equal(noise, chunk_noise(3, 5, (1, 4, 1, 2, 3)))
    assert noise.dtype == np.float32
    assert not np.array_equal(noise, chunk_noise(3, 6, noise.shape))
    assert not np.array_equal(noise, chunk_noise(5, 3, noise.shape))


def test_noise_is_pinned_to_the_documented_generator() -> None:
    generator = np.random.Generator(np.random.Philox(key=np.array([3, 5], np.uint64)))
    np.testing.assert_array_equal(chunk_noise(3, 5, (2, 7)), generator.standard_normal((2, 7), np.float32))


def test_the_true_velocity_leads_from_noise_to_the_clean_latents() -> None:
    clean = np.random.default_rng(0).standard_normal((1, 4, 2, 2, 3), np.float32)
    noise = chunk_noise(0, 0, clean.shape)
    result = denoise_chunk(lambda latents, timesteps: noise - clean, noise, TIMESTEPS)
    # Four float32 subtractions of values near 1.
    np.testing.assert_allclose(result, clean, atol=1e-6)


def test_the_schedule_is_used_as_given_and_the_noise_is_left_alone() -> None:
    noise = chunk_noise(0, 0, (1, 1, 2, 1, 1))
    before = noise.copy()
    seen: list[NDArray[np.float32]] = []

    def velocity(latents: NDArray[np.float32], timesteps: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(timesteps.copy())
        return np.zeros_like(latents)

    denoise_chunk(velocity, noise, TIMESTEPS)
    np.testing.assert_array_equal(np.concatenate(seen), np.repeat(np.array(TIMESTEPS)[:, None], 2, 1))
    np.testing.assert_array_equal(noise, before)


def test_a_conditioning_latent_stays_clean_at_timestep_zero() -> None:
    clean = np.full((1, 1, 1), 7, np.float32)

    def velocity(latents: NDArray[np.float32], timesteps: NDArray[np.float32]) -> NDArray[np.float32]:
        assert timesteps[0, 0] == 0
        assert latents[0, 0, 0] == 7
        assert (timesteps[0, 1:] > 0).all()
        return np.ones_like(latents)

    result = denoise_chunk(velocity, np.zeros((1, 1, 4, 1, 1), np.float32), TIMESTEPS, clean)
    assert result[0, 0, 0] == 7
    # The schedule goes from 1 to 0, so a constant velocity of 1 moves the rest by -1.
    np.testing.assert_allclose(result[0, 0, 1:], -1, atol=1e-6)


def test_a_shorter_schedule_keeps_the_first_of_the_models_own_timesteps() -> None:
    assert shorter_schedule(TIMESTEPS, None) == shorter_schedule(TIMESTEPS, 4) == TIMESTEPS
    assert shorter_schedule(TIMESTEPS, 3) == (1000.0, 960.0, 727.0)
    assert shorter_schedule(TIMESTEPS, 2) == (1000.0, 889.0)
    assert shorter_schedule(TIMESTEPS, 1) == (1000.0,)
    for count in range(1, 40):
        schedule = tuple(float(timestep) for timestep in range(1000, 1000 - count, -1))
        for num_steps in range(1, count + 1):
            shorter = shorter_schedule(schedule, num_steps)
            assert shorter[0] == 1000.0
            assert len(set(shorter)) == num_steps
            assert set(shorter) <= set(schedule)
            assert shorter == tuple(sorted(shorter, reverse=True))


@pytest.mark.parametrize(
    ("start", "count", "stride", "expected"),
    [
        (0, 1, 4, [0, 0, 0, 0]),
        (1, 1, 4, [1, 2, 3, 4]),
        (9, 1, 4, [33, 34, 35, 36]),
        (0, 3, 2, [0, 1, 1, 2, 3, 4]),
        (0, 2, 8, [*range(8), *range(1, 9)]),
        (4, 2, 2, [7, 8, 9, 10]),
    ],
)
def test_a_latent_frame_sees_the_cameras_that_end_in_its_own(
    start: int, count: int, stride: int, expected: list[int]
) -> None:
    assert window_frames(start, count, stride).tolist() == expected
