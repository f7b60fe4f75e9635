"""The compiled kernels of the spatial memory against numpy's, which define them, and how they are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.camera.integrator import rotation_y
from engine.files.world import read_world
from engine.machine.assets import worlds_dir
from engine.machine.doctor import check_kernels
from engine.memory import kernels
from engine.memory.blend import blend, first_shown
from engine.memory.images import Array
from engine.memory.renderer import MemoryRenderer
from engine.memory.rendering import MemoryRendering
from engine.memory.selection import coarse_depth
from engine.memory.sources import NOTHING, Pixels, Source, View
from engine.memory.warp import Link

WIDTH, HEIGHT = 160, 96
INTRINSICS = np.array([104, 104, 80, 48], np.float32)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    try:
        kernels.compile_kernels()
    except kernels.CompileError as error:
        pytest.skip(f"the kernels cannot be compiled here: {error}")
    kernels._load.cache_clear()
    assert kernels.loaded() is not None


@contextmanager
def by_numpy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_load", lambda: None)
        yield


@cache
def renderer(world: str) -> MemoryRenderer:
    return MemoryRenderer(read_world(worlds_dir() / f"{world}.world").keyframes)


def poses(world: str, yaw_deg: float) -> NDArray[np.float64]:
    """Cameras of a chunk that walks and turns, [4, 4, 4]."""
    start = read_world(worlds_dir() / f"{world}.world").c2w
    found = []
    for n in range(4):
        pose = start.copy()
        pose[:3, :3] = pose[:3, :3] @ rotation_y(np.radians(yaw_deg + 2 * n))
        pose[:3, 3] += pose[:3, 2] * 0.1 * n
        found.append(pose)
    return np.stack(found)


def rendered(world: str, c2w: NDArray[np.float64]) -> MemoryRendering:
    return renderer(world).render(c2w, np.tile(INTRINSICS, (len(c2w), 1)), WIDTH, HEIGHT)


@pytest.mark.parametrize(("world", "yaw_deg"), [("town", 0), ("town", 100), ("garden", 40), ("gallery", 200)])
def test_both_render_the_same_picture(world: str, yaw_deg: float) -> None:
    fast = rendered(world, poses(world, yaw_deg))
    with by_numpy():
        plain = rendered(world, poses(world, yaw_deg))
    apart = np.abs(fast.color.astype(int) - plain.color)
    assert apart.mean() < 0.4
    assert (apart > 3).mean() < 2e-4
    assert (fast.coverage != plain.coverage).mean() < 2e-4
    depth_apart = np.abs(fast.inverse_depth - plain.inverse_depth)
    assert (depth_apart > 0.01 * plain.inverse_depth + 1e-3).mean() < 2e-4


def test_both_see_the_same_around_a_chunk() -> None:
    pose = poses("town", 0)
    around = rendered("town", pose).surroundings(pose[-1], INTRINSICS)
    turned = pose[-1].copy()
    turned[:3, :3] = turned[:3, :3] @ rotation_y(0.3)
    view, everywhere = View(turned, INTRINSICS, WIDTH, HEIGHT), np.ones((HEIGHT, WIDTH), np.bool_)
    fast_color, fast_depth = around.look(view, everywhere)
    with by_numpy():
        color, depth = around.look(view, everywhere)
    # numpy stops asking where few pixels are left.
    assert ((fast_depth >= 0) | (depth < 0)).all()
    both = (fast_depth >= 0) & (depth >= 0)
    assert both.mean() > 0.6
    assert (np.abs(fast_color[both, :3].astype(int) - color[both, :3]) > 3).mean() < 2e-4
    assert np.allclose(fast_depth[both], depth[both], rtol=0.02, atol=1e-3)


def scene() -> tuple[View, list[Source], NDArray[np.float64]]:
    """A view and two keyframes of one place beside it."""
    pose = poses("town", 0)
    view = View(pose[0], INTRINSICS, WIDTH, HEIGHT)
    around = rendered("town", pose).surroundings(pose[-1], INTRINSICS)
    return view, [source for _, source in around.looked_into[:2]], pose


def guesses(view: View) -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    near, far = random.uniform(0.01, 1.0, (2, view.height, view.width)).astype(np.float32)
    return np.maximum(near, far), np.minimum(near, far)


def mostly_equal(left: Array, right: Array, share: float = 0.003) -> bool:
    """Whether all but few values agree to within a hundredth; OpenCV samples at 32nds of a pixel, the kernels exactly."""
    apart = np.abs(left - right) > 0.01 * np.abs(right) + 2e-3
    return bool((apart | (np.isnan(left) != np.isnan(right))).mean() < share)


@pytest.mark.parametrize(("height", "width"), [(96, 160), (37, 61), (8, 8), (2, 9), (9, 2), (1, 5), (3, 1)])
def test_silhouettes_and_what_is_cleared_beside_them_are_the_same(height: int, width: int) -> None:
    random = np.random.default_rng(height)
    steep = random.random((height, width)) < 0.1
    depth = np.where(steep, 1.0, 0.001).astype(np.float32) * random.random((height, width), np.float32)
    depth[random.random((height, width)) < 0.02] = -1
    picture = random.integers(0, 256, (height, width, 3), np.uint8)
    fast = Source.of_picture(picture, depth.copy(), np.eye(4), INTRINSICS)
    with by_numpy():
        plain = Source.of_picture(picture, depth.copy(), np.eye(4), INTRINSICS)
    assert min(height, width) < 37 or np.isnan(fast.smooth).mean() > 0.01
    for name in ("smooth", "depth", "color", "clear_color"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))


def test_each_step_of_the_search_is_the_same() -> None:
    view, sources, _ = scene()
    near, far = guesses(view)
    link = Link(view, sources[0], Pixels.of_view(view))

    def answers() -> list[Array]:
        return [
            link.solve(near),
            link.verified(near, 0.6),
            link.verified(near, 50.0, not_beside=True),
            link.march(near, far),
        ]

    fast = answers()
    with by_numpy():
        plain = answers()
    # Random guesses often end where the search does not settle: there both may go anywhere.
    for left, right, share in zip(fast, plain, (0.05, 0.01, 0.02, 0.01), strict=True):
        assert mostly_equal(left, right, share)
        assert (left != NOTHING).mean() > 0.01


def test_blends_are_the_same_however_they_are_asked_for() -> None:
    view, sources, _ = scene()
    pixels = Pixels.of_view(view).among(np.arange(0, WIDTH * HEIGHT, 7))
    links = [Link(view, source, pixels) for source in sources]
    near, far = (pixels.take(guess) for guess in guesses(view))
    least = np.full_like(near, 0.01)
    for how in ({}, {"solve": True, "search": False}, {"solve": True}, {"not_beside": True}):
        image, known = blend(links, [near, far], least, **how)
        with by_numpy():
            plain_image, plain_known = blend(links, [near, far], least, **how)
        assert (known != plain_known).mean() < 0.02
        both = (known > 0) & (plain_known > 0)
        assert both.mean() > 0.01
        assert (np.abs(image[both] - plain_image[both])[:, :3] > 4).mean() < 0.02
        assert mostly_equal(image[both][:, 3], plain_image[both][:, 3], 0.02)


def test_points_fall_into_the_same_cells() -> None:
    view, _, _ = scene()
    clouds = [keyframe.points for keyframe in renderer("town").keyframes[:40]]
    fast = coarse_depth(view, clouds)
    with by_numpy():
        plain = coarse_depth(view, clouds)
    for part in ("solid", "filled", "near", "far"):
        assert mostly_equal(getattr(fast, part), getattr(plain, part), 0.01)


def test_what_cannot_be_seen_is_nothing_and_no_crash() -> None:
    view, sources, _ = scene()
    pixels = Pixels.of_view(view).among(np.arange(130))
    links = [Link(view, source, pixels) for source in sources]
    for value in (np.nan, np.inf, -np.inf, -1.0, 1e30, 0.0):
        guess = np.full_like(pixels.flat[0], value)
        marched = links[0].march(guess, guess)
        assert ((marched == NOTHING) | (marched >= 0)).all()
        image, known = blend(links, [guess, guess], np.full_like(guess, np.inf))
        assert not known.any()
        assert not image.any()
        links[0].solve(guess)
        color, depth = first_shown(links, guess)
        assert color.shape == (*guess.shape, 4)
        assert ((depth == NOTHING) | (depth >= 0)).all()
    behind = View(view.c2w @ np.diag([-1.0, 1, -1, 1]), INTRINSICS, WIDTH, HEIGHT)
    away = Link(behind, sources[0], Pixels.of_view(behind))
    assert (away.verified(np.full((HEIGHT, WIDTH), 0.1, np.float32), 0.6) == NOTHING).mean() > 0.9


def test_two_links_of_one_view_may_have_other_pixels() -> None:
    view, sources, _ = scene()
    near, _ = guesses(view)
    everything = Link(view, sources[0], Pixels.of_view(view))
    some = everything.pixels.among(np.arange(5, 4000, 3))
    part = everything.at(some)
    for solve in (contextmanager(lambda: iter([None])), by_numpy):
        with solve():
            assert np.array_equal(
                part.solve(some.take(near)), some.take(everything.solve(near)), equal_nan=True
            )


def test_without_a_compiler_it_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "kernels.c"
    source.write_bytes(kernels.SOURCE.read_bytes())
    monkeypatch.setattr(kernels, "SOURCE", source)
    monkeypatch.setattr(kernels.shutil, "which", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    assert kernels.main() == 0
    told = capsys.readouterr()
    assert "there is no C compiler" in told.err
    assert "by numpy" in told.err
    assert list(tmp_path.iterdir()) == [source]
    kernels._load.cache_clear()
    assert kernels.loaded() is None
    assert check_kernels().status == "missing"
    assert "C compiler" in check_kernels().remedy
    monkeypatch.undo()
    kernels._load.cache_clear()
    assert check_kernels().status == "ok"


def test_what_does_not_compile_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "kernels.c"
    source.write_text("this is no C")
    monkeypatch.setattr(kernels, "SOURCE", source)
    with pytest.raises(kernels.CompileError, match="failed"):
        kernels.compile_kernels()
    assert list(tmp_path.iterdir()) == [source]


def test_each_version_is_compiled_once_and_takes_the_place_of_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "kernels.c"
    source.write_text("int flaneur(void) { return 1; }\n")
    monkeypatch.setattr(kernels, "SOURCE", source)
    first = kernels.compile_kernels()
    made = first.stat().st_mtime_ns
    assert kernels.compile_kernels() == first
    assert first.stat().st_mtime_ns == made
    source.write_text("int flaneur(void) { return 2; }\n")
    second = kernels.compile_kernels()
    assert second != first
    assert sorted(tmp_path.iterdir()) == sorted([source, second])
