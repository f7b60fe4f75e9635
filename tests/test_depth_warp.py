"""A frame moved by its depth is nearer to what is seen from there, and bad depth does no harm."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from client.camera.depth_warp import DepthFrame, behind
from client.ui.picture import LivePicture
from engine.camera.integrator import rotation_y
from engine.memory.keyframes import Keyframe
from engine.memory.rendering import Surroundings
from engine.memory.sources import View
from engine.memory.spatial_memory import SpatialMemory
from holodeck import get_place

WIDTH, HEIGHT = 160, 96
INTRINSICS = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
START = get_place("town").spawn


def render(c2w: NDArray[np.float64]) -> NDArray[np.uint8]:
    return get_place("town").render(c2w, INTRINSICS, WIDTH, HEIGHT)


def inverse_depth(c2w: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.reciprocal(get_place("town").depth(c2w, INTRINSICS, WIDTH, HEIGHT))


def moved(right_m: float, forward_m: float, turn_deg: float = 0.0) -> NDArray[np.float64]:
    c2w = START.copy()
    c2w[:3, 3] += START[:3, :3] @ (right_m, 0.0, forward_m)
    c2w[:3, :3] = rotation_y(math.radians(turn_deg)) @ START[:3, :3]
    return c2w


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    error = np.square(a.astype(float) - b)
    mean = (error if where is None else error[where]).mean()
    return float(10 * np.log10(255.0**2 / max(mean, 1e-6)))


@pytest.fixture(scope="module")
def frame() -> NDArray[np.uint8]:
    return render(START)


@pytest.fixture(scope="module")
def depth() -> NDArray[np.float32]:
    return inverse_depth(START)


def show(
    frame: NDArray[np.uint8], depth: NDArray[np.float32] | None, live: NDArray[np.float64], factor: int = 1
) -> NDArray[np.uint8]:
    size = factor * WIDTH, factor * HEIGHT
    return LivePicture(INTRINSICS).show(frame, (START, live), size, "smooth", depth)[..., 2::-1]


@pytest.mark.parametrize(
    ("right_m", "forward_m", "turn_deg"),
    [(0.0, 0.5, 0.0), (0.3, 0.0, 0.0), (-0.2, -0.3, 0.0), (0.2, 0.3, 6.0)],
)
def test_a_moved_frame_is_nearer_to_the_truth(
    frame: NDArray[np.uint8], depth: NDArray[np.float32], right_m: float, forward_m: float, turn_deg: float
) -> None:
    live = moved(right_m, forward_m, turn_deg)
    truth, view = render(live), View(live, INTRINSICS, WIDTH, HEIGHT)
    seen = DepthFrame(frame, depth, View(START, INTRINSICS, WIDTH, HEIGHT)).seen_from(view)
    assert seen.known.mean() > 0.8
    # Measured: 30 to 36 dB. Half a pixel beside the truth would give 27.
    assert psnr(seen.colors(frame), truth, seen.known) > 29.0
    shown = show(frame, depth, live)
    turned = show(frame, None, live)
    for other in (frame, turned):
        assert psnr(shown, truth, seen.known) > psnr(other, truth, seen.known) + 7.0, (
            "where the frame reaches"
        )
        assert psnr(shown, truth) > psnr(other, truth) + 1.5, "with all that it does not reach"


def test_nothing_moves_when_standing_still(frame: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
    picture = LivePicture(INTRINSICS)
    still = picture.show(frame, None, (480, 288), "crisp", depth)
    assert picture.show(frame, None, (480, 288), "crisp", depth) is still
    seen = DepthFrame(frame, depth, View(START, INTRINSICS, WIDTH, HEIGHT)).seen_from(
        View(START, INTRINSICS, WIDTH, HEIGHT)
    )
    assert seen.known.all()
    np.testing.assert_allclose(seen.u, np.broadcast_to(np.arange(WIDTH), seen.u.shape), atol=0.01)
    np.testing.assert_allclose(seen.v, np.broadcast_to(np.arange(HEIGHT)[:, None], seen.v.shape), atol=0.01)


def test_what_was_hidden_is_filled_from_the_background(
    frame: NDArray[np.uint8], depth: NDArray[np.float32]
) -> None:
    # A red board two metres ahead of everything else, from the side: what it hid must not become red.
    board, near = frame.copy(), np.minimum(depth, np.float32(0.2))
    board[30:70, 60:100], near[30:70, 60:100] = (255, 0, 0), 0.5
    view = View(moved(0.5, 0.0), INTRINSICS, WIDTH, HEIGHT)
    whole = DepthFrame(board, near, View(START, INTRINSICS, WIDTH, HEIGHT))
    seen = whole.seen_from(view)
    holes = seen.holes()[40:60, 20:120] > 0
    assert holes.mean() > 0.1
    hidden = behind(whole, seen, view)
    assert hidden is not None
    patch = hidden[0][40:60, 20:120][holes]
    red = (patch[:, 2] > 200) & (patch[:, 1] < 60)
    assert red.mean() < 0.02


@pytest.fixture(scope="module")
def memory() -> SpatialMemory:
    """Twelve pictures of a right angle each, around the start and a metre and a half to its right."""
    side = 192
    lens = np.full(4, side / 2, np.float32)
    town, keyframes = get_place("town"), []
    for right_m in (0.0, 1.5):
        for turn_deg in range(0, 360, 60):
            c2w = moved(right_m, 0.0, turn_deg)
            near = np.reciprocal(town.depth(c2w, lens, side, side))
            keyframes.append(Keyframe.of(town.render(c2w, lens, side, side), near, c2w, lens))
    return SpatialMemory(keyframes)


def surroundings_at(memory: SpatialMemory, c2w: NDArray[np.float64]) -> Surroundings:
    rendering = memory.render(1, c2w[None], INTRINSICS[None], WIDTH, HEIGHT)
    return rendering.surroundings(c2w, INTRINSICS)


@pytest.mark.parametrize(
    ("right_m", "forward_m", "turn_deg"), [(0.5, 0.0, 0.0), (0.0, 0.4, 40.0), (-0.3, 0.2, -30.0)]
)
def test_what_was_hidden_is_filled_from_the_memory(
    memory: SpatialMemory,
    frame: NDArray[np.uint8],
    depth: NDArray[np.float32],
    right_m: float,
    forward_m: float,
    turn_deg: float,
) -> None:
    """The memory was looked into for the frame's own camera, as it was when the player began to move."""
    live = moved(right_m, forward_m, turn_deg)
    truth, view = render(live), View(live, INTRINSICS, WIDTH, HEIGHT)
    holes = DepthFrame(frame, depth, View(START, INTRINSICS, WIDTH, HEIGHT)).seen_from(view).holes() > 0
    assert holes.sum() > 100
    picture = LivePicture(INTRINSICS)
    around = picture.show(frame, (START, live), (WIDTH, HEIGHT), "smooth", depth)[..., 2::-1]
    known = surroundings_at(memory, START)
    filled = picture.show(frame, (START, live), (WIDTH, HEIGHT), "smooth", depth, known)[..., 2::-1]
    assert psnr(filled, truth, holes) > psnr(around, truth, holes) + 6.0
    assert psnr(filled, truth, holes) > 22.0
    unmoved = picture.show(frame, (START, live), (WIDTH, HEIGHT), "smooth", None, known)[..., 2::-1]
    edges = np.ones_like(holes)
    edges[:, 40:-40] = False
    if turn_deg:
        turned = show(frame, None, live)
        assert psnr(unmoved, truth, edges) > psnr(turned, truth, edges) + 3.0, "without depth it turns alone"


def test_what_is_mixed_beside_silhouettes_is_taken_from_the_memory_too(
    memory: SpatialMemory, frame: NDArray[np.uint8], depth: NDArray[np.float32]
) -> None:
    """Where nothing was uncovered, the outline of what stands in front would be left behind on the background."""
    live = moved(0.05, 0.1)
    view = View(live, INTRINSICS, WIDTH, HEIGHT)
    made = DepthFrame(frame, depth, View(START, INTRINSICS, WIDTH, HEIGHT))
    seen = made.seen_from(view)
    fringe = seen.fringe & (seen.holes() == 0)
    assert fringe.sum() > 100
    mixed = frame.copy()
    mixed[made._fringe > 0] = (255, 0, 255)
    picture, truth = LivePicture(INTRINSICS), render(live)
    without, filled = (
        picture.show(mixed, (START, live), (WIDTH, HEIGHT), "pixels", depth, known)[..., 2::-1]
        for known in (None, surroundings_at(memory, START))
    )
    assert psnr(filled, truth, fringe) > psnr(without, truth, fringe) + 6.0
    assert psnr(filled, truth, fringe) > 22.0


def test_narrow_gaps_are_looked_up_in_the_memory_where_there_is_one(
    memory: SpatialMemory, frame: NDArray[np.uint8], depth: NDArray[np.float32]
) -> None:
    live = moved(0.4, 0.4)
    view = View(live, INTRINSICS, WIDTH, HEIGHT)
    seen = DepthFrame(frame, depth, View(START, INTRINSICS, WIDTH, HEIGHT)).seen_from(view)
    narrow = ~seen.known & (seen.holes() == 0)
    assert narrow.sum() > 300
    assert (seen.holes(with_memory=True)[narrow] == 255).all()
    elsewhere = np.full_like(frame, (255, 0, 255))
    picture = LivePicture(INTRINSICS).show(
        elsewhere, (START, live), (WIDTH, HEIGHT), "pixels", depth, surroundings_at(memory, START)
    )
    assert psnr(picture[..., 2::-1], render(live), narrow) > 20.0


def test_a_slanted_surface_close_by_has_hardly_any_gaps() -> None:
    """Floor and ceiling, 0.3 m below and above a camera that goes as far on: twice as large where they are nearest."""
    rows = (np.arange(HEIGHT, dtype=np.float32) + 0.5 - INTRINSICS[3]) / INTRINSICS[1]
    slanted = np.repeat(np.abs(rows)[:, None] / np.float32(0.3), WIDTH, 1)
    view, on = (View(c2w, INTRINSICS, WIDTH, HEIGHT) for c2w in (np.eye(4), np.eye(4)))
    on.c2w[:3, 3] = (0.05, 0.0, 0.3)
    seen = DepthFrame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), slanted, view).seen_from(on)
    # Guesses in steps of two pixels leave 16 %, and one step of the search 11 %.
    assert seen.known[4:-4, 8:-8].mean() > 0.94


class StubSurroundings(Surroundings):
    """Shows red at one inverse depth, where it is asked or may stand in front."""

    def __init__(self, inverse_depth: float) -> None:
        object.__setattr__(self, "answer", np.float32(inverse_depth))

    def look(
        self, view: View, where: NDArray[np.bool_], nearer_than: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        answer = self.__dict__["answer"]
        if nearer_than is not None:
            where = where | (answer > nearer_than)
        red = np.full((*where.shape, 4), (255, 0, 0, 255), np.uint8)
        return red, np.where(where, answer, np.float32(-1.0))


RED, BLUE = (255, 0, 0), (0, 0, 255)


def blue_wall(inverse_depth: float) -> DepthFrame:
    view = View(np.eye(4), INTRINSICS, WIDTH, HEIGHT)
    blue = np.full((HEIGHT, WIDTH, 3), BLUE, np.uint8)
    return DepthFrame(blue, np.full((HEIGHT, WIDTH), inverse_depth, np.float32), view)


@pytest.mark.parametrize(("inverse_depth", "is_shown"), [(0.1, False), (0.8, True), (2.0, True)])
def test_nothing_is_seen_through_a_narrow_gap_of_a_surface(inverse_depth: float, is_shown: bool) -> None:
    frame = blue_wall(0.8)
    seen = frame.seen_from(frame.view)
    seen.known[40:42] = False
    hidden = behind(frame, seen, frame.view, StubSurroundings(inverse_depth))
    assert hidden is not None
    patch, holes = hidden
    assert (holes[40:42] == 255).all()
    assert (holes[:40] == 0).all()
    assert (patch[40:42, :, 2::-1] == (RED if is_shown else BLUE)).all()


@pytest.mark.parametrize(("inverse_depth", "is_shown"), [(0.3, False), (0.5, False), (1.5, True)])
def test_what_the_frame_did_not_see_stands_in_front_of_it(inverse_depth: float, is_shown: bool) -> None:
    frame, live = blue_wall(0.5), np.eye(4)
    live[0, 3] = 0.1
    view = View(live, INTRINSICS, WIDTH, HEIGHT)
    seen = frame.seen_from(view)
    hidden = behind(frame, seen, view, StubSurroundings(inverse_depth))
    assert hidden is not None
    patch, holes = hidden
    inside = np.s_[4:-4, 4:-12]
    assert (holes[inside] == (255 if is_shown else 0)).all()
    assert (patch[inside][..., 2::-1] == (RED if is_shown else BLUE)).all()


def test_a_memory_is_asked_for_what_may_stand_in_front(memory: SpatialMemory) -> None:
    known, view = surroundings_at(memory, START), View(moved(0.2, 0.2), INTRINSICS, WIDTH, HEIGHT)
    nowhere = np.zeros((HEIGHT, WIDTH), np.bool_)
    for depth, share in ((0.001, 0.7), (20.0, 0.0)):
        _, found = known.look(view, nowhere, np.full((HEIGHT, WIDTH), depth, np.float32))
        assert (found >= 0).mean() >= share
        assert share or (found < 0).all()


def test_the_memory_says_whether_it_knows_the_surroundings(memory: SpatialMemory) -> None:
    assert surroundings_at(memory, START).share_known > 0.9
    alone = SpatialMemory(memory.keyframes[:1])
    assert surroundings_at(alone, START).share_known < 0.7
    nothing = SpatialMemory([])
    known = surroundings_at(nothing, START)
    assert known.share_known == 0.0
    _, inverse = known.look(View(START, INTRINSICS, WIDTH, HEIGHT), np.ones((HEIGHT, WIDTH), np.bool_))
    assert (inverse < 0).all()


def test_no_outline_of_what_moved_stays_behind() -> None:
    """A dark square before the sky, its edge mixed as a renderer's or a network's is."""
    square = np.zeros((96, 160), np.float32)
    square[30:66, 60:100] = 1.0
    soft = cv2.GaussianBlur(square, (3, 3), 0)[..., None]
    color = np.rint(240 * (1 - soft) * np.ones(3)).astype(np.uint8)
    view, aside = (View(c2w, INTRINSICS, 160, 96) for c2w in (np.eye(4), np.eye(4)))
    aside.c2w[0, 3] = 0.25
    made = DepthFrame(color, 0.5 * square, view)
    seen = made.seen_from(aside)
    left = seen.colors(color)[30:66, 88:110]
    shown = left[seen.holes()[30:66, 88:110] == 0]
    # It has moved 13 pixels to the left; what is shown where it stood is sky.
    assert len(shown) > 100
    assert shown.min() > 230


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0, 1e9])
def test_bad_depth_does_no_harm(frame: NDArray[np.uint8], depth: NDArray[np.float32], bad: float) -> None:
    spoiled = depth.copy()
    spoiled[::7] = bad
    live = moved(0.1, 0.4, 5.0)
    shown = show(frame, spoiled, live, factor=2)
    assert shown.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    spoiled[:] = bad
    show(frame, spoiled, live)
    if bad == 0.0:
        # All sky: the frame turns, and does not move.
        inside = np.s_[4:-4, 20:-20]
        assert psnr(show(frame, spoiled, live)[inside], show(frame, None, live)[inside]) > 35.0


def test_a_large_window_shows_the_same_moved_picture_as_a_small_one(
    frame: NDArray[np.uint8], depth: NDArray[np.float32]
) -> None:
    live = moved(0.1, 0.3, 3.0)
    small = show(frame, depth, live)
    for factor in (2, 4, 6):
        large = show(frame, depth, live, factor)
        averaged = large.reshape(HEIGHT, factor, WIDTH, factor, 3).mean((1, 3))
        # Edges are softened once more; a shift of a pixel would give 22 dB.
        assert psnr(averaged.astype(np.uint8), small) > 27.0
