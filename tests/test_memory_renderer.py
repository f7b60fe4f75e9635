"""The spatial memory's renderer against the holodeck's truth."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import engine.memory.renderer
from engine.files.world import read_world
from engine.machine.assets import worlds_dir
from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.memory.rendering import MemoryRendering
from engine.memory.sources import View
from evaluation.image_metrics import psnr
from evaluation.rollouts import HELD_OUT_SEED
from evaluation.worlds import held_out_walk
from holodeck import get_place
from holodeck.walks import walk

WIDTH, HEIGHT, SIDE = 96, 64, 128
INTRINSICS = np.array([62.4, 62.4, 48, 32], np.float32)
KEYFRAME_INTRINSICS = np.full(4, SIDE / 2, np.float32)
SKY_M = 1e4
"""Depths beyond this are the sky's."""


def turned(
    pose: NDArray[np.float64], yaw: float, pitch: float = 0.0, roll: float = 0.0
) -> NDArray[np.float64]:
    """Turn a camera, degrees."""
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    result = pose.copy()
    result[:3, :3] = pose[:3, :3] @ y @ x @ z
    return result


def moved(pose: NDArray[np.float64], right: float = 0.0, down: float = 0.0, ahead: float = 0.0):
    """Move a camera along its own axes, metres."""
    result = pose.copy()
    result[:3, 3] += pose[:3, :3] @ [right, down, ahead]
    return result


def inverse_depth(pose: NDArray[np.float64], intrinsics, width: int, height: int):
    depth = get_place("town").depth(pose, intrinsics, width, height)
    return np.where(depth < SKY_M, 1 / np.maximum(depth, 1e-3), 0).astype(np.float32)


@cache
def keyframe(yaw: float, pitch: float = 0.0, right: float = 0.0, ahead: float = 0.0) -> Keyframe:
    place = get_place("town")
    pose = turned(moved(place.spawn, right, 0.0, ahead), yaw, pitch)
    color = place.render(pose, KEYFRAME_INTRINSICS, SIDE, SIDE)
    depth = inverse_depth(pose, KEYFRAME_INTRINSICS, SIDE, SIDE)
    return Keyframe.of(color, depth, pose, KEYFRAME_INTRINSICS)


@cache
def renderer() -> MemoryRenderer:
    """A memory of what is seen from two places around the spawn."""
    around = [keyframe(yaw, 0.0, right, 0.0) for right in (-0.8, 0.8) for yaw in (-80, 0, 80)]
    return MemoryRenderer([*around, keyframe(0, 60), keyframe(0, -60)])


def seen(
    memory: MemoryRenderer, pose: NDArray[np.float64], num_keyframes: int | None = None
) -> MemoryRendering:
    """Render a chunk of two frames that stand still."""
    return memory.render(np.stack([pose, pose]), np.stack([INTRINSICS] * 2), WIDTH, HEIGHT, num_keyframes)


def edges(inverse: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels within two of a jump of depth."""
    step = np.zeros(inverse.shape, bool)
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            step |= np.abs(inverse - np.roll(inverse, shift, axis)) > 0.1 * inverse + 0.004
    return step


POSES = {
    "ahead": moved(get_place("town").spawn, 0.1, 0.05, 0.4),
    "aside and turned": turned(moved(get_place("town").spawn, 0.5, 0.0, -0.3), 30),
    "rolled": turned(get_place("town").spawn, 10, 0, 35),
    "looking up": turned(get_place("town").spawn, 0, 50),
    "looking down": turned(get_place("town").spawn, 5, -50),
}


@pytest.mark.parametrize("name", POSES)
def test_what_is_known_is_where_the_truth_is(name: str) -> None:
    pose = POSES[name]
    found = seen(renderer(), pose)
    truth = get_place("town").render(pose, INTRINSICS, WIDTH, HEIGHT)
    depth = inverse_depth(pose, INTRINSICS, WIDTH, HEIGHT)
    known = found.coverage[0] > 0
    assert known.mean() > 0.93
    inner = known & ~edges(depth)
    # A keyframe's pixel is 0.9 degrees wide, as is one of the frame.
    assert np.median(np.abs(found.inverse_depth[0] - depth)[inner] / (depth[inner] + 0.01)) < 0.01
    assert np.quantile(np.abs(found.inverse_depth[0] - depth)[inner] / (depth[inner] + 0.01), 0.98) < 0.1
    assert np.abs(found.color[0].astype(int) - truth)[inner].mean() < 4


def test_geometry_lies_within_a_pixel() -> None:
    """Against the truth shifted by a pixel, the truth itself is the better match everywhere that has edges."""
    pose = POSES["ahead"]
    found = seen(renderer(), pose).color[0].astype(int)[3:-3, 3:-3]
    truth = get_place("town").render(pose, INTRINSICS, WIDTH, HEIGHT).astype(int)
    gaps = {
        (x, y): np.abs(found - np.roll(truth, (y, x), (0, 1))[3:-3, 3:-3]).mean()
        for x in (-1, 0, 1)
        for y in (-1, 0, 1)
    }
    assert min(gaps, key=lambda shift: gaps[shift]) == (0, 0)
    assert gaps[0, 0] < 0.6 * sorted(gaps.values())[1]


def wall_before_wall(near_m: float = 2.0, far_m: float = 6.0, side: int = SIDE) -> Keyframe:
    """A red pillar 0.4 m wide, from the left to the middle, before a blue wall, seen from the origin."""
    ray = (np.arange(side) + 0.5 - side / 2) / (side / 2)
    pillar = np.abs(ray * near_m) < 0.2
    inverse = np.tile(np.where(pillar, 1 / near_m, 1 / far_m).astype(np.float32), (side, 1))
    color = np.where(pillar[None, :, None], np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8))
    return Keyframe.of(
        np.ascontiguousarray(np.broadcast_to(color, (side, side, 3))),
        inverse,
        np.eye(4),
        np.full(4, side / 2, np.float32),
    )


@pytest.mark.parametrize("right", [-1.0, -0.3, 0.3, 1.0])
def test_what_a_pillar_hid_stays_open_and_nothing_shows_through_it(right: float) -> None:
    found = seen(MemoryRenderer([wall_before_wall()]), moved(np.eye(4), right))
    column = (np.arange(WIDTH) + 0.5 - 48) / 62.4
    on_pillar = np.abs(column * 2.0 + right) < 0.2 - 0.05
    on_wall = (np.abs(column * 2.0 + right) > 0.2 + 0.05) & (np.abs(column * 6.0 + right) < 5)
    from_middle = np.abs(column * 6.0 + right)
    hidden, seen_wall = from_middle < 0.6 - 0.15, on_wall & (from_middle > 0.6 + 0.15)
    rows = slice(8, HEIGHT - 8)
    color, coverage = found.color[0, rows].astype(int), found.coverage[0, rows]
    assert (color[:, on_pillar, 0] > 200).all(), "the pillar is red, and no wall shows through it"
    assert (color[:, seen_wall, 2] > 200).mean() > 0.99
    assert coverage[:, on_wall & hidden].mean() < 0.1, "nobody saw behind the pillar"
    assert coverage[:, seen_wall].mean() > 0.97


def test_no_ghost_of_a_silhouette_is_left_on_what_is_behind() -> None:
    aside = Keyframe.of(*_blue_wall_from(1.5))
    found = seen(MemoryRenderer([wall_before_wall(), aside]), moved(np.eye(4), 0.5))
    column = (np.arange(WIDTH) + 0.5 - 48) / 62.4
    away = np.abs(column * 2.0 + 0.5) > 0.2 + 0.08
    color = found.color[0, 8:-8][:, away].astype(int)
    assert (color[..., 0] < 40).mean() > 0.995


def test_silhouettes_are_mixed_as_a_camera_mixes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keyframes = [wall_before_wall(side=512), Keyframe.of(*_blue_wall_from(1.5))]
    pose = turned(moved(np.eye(4), 0.1), 0, 0, 8)
    smooth = seen(MemoryRenderer(keyframes), pose).color[0].astype(int)
    monkeypatch.setattr(engine.memory.renderer, "_smooth_edges", lambda *_: None)
    jagged = seen(MemoryRenderer(keyframes), pose).color[0].astype(int)
    share = exact_share_of_pillar(pose)
    mixed = (share > 0.1) & (share < 0.9)
    off = [np.abs(color[..., 0] / 255 - share)[mixed].mean() for color in (smooth, jagged)]
    assert off[0] < 0.6 * off[1], "the red of a pixel at the pillar's edge is its share of the pixel"


def exact_share_of_pillar(pose: NDArray[np.float64], finer: int = 8) -> NDArray[np.float64]:
    """Share of each pixel that shows the pillar of `wall_before_wall`."""
    width, height = WIDTH * finer, HEIGHT * finer
    fx, fy, cx, cy = INTRINSICS * finer
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) @ pose[:3, :3].T
    across = pose[0, 3] + rays[..., 0] / rays[..., 2] * (2.0 - pose[2, 3])
    shows = (np.abs(across) < 0.2).astype(float)
    return shows.reshape(HEIGHT, finer, WIDTH, finer).mean((1, 3))


def _blue_wall_from(right: float):
    """The wall alone, seen from aside so that the pillar is out of the picture."""
    side, pose = 128, moved(np.eye(4), right)
    color = np.zeros((side, side, 3), np.uint8)
    color[..., 2] = 255
    inverse = np.full((side, side), 1 / 6.0, np.float32)
    ray = (np.arange(side) + 0.5 - side / 2) / (side / 2)
    pillar = np.abs(ray * 2.0 + right) < 0.2
    color[:, pillar], inverse[:, pillar] = (255, 0, 0), 0.5
    return color, inverse, pose, KEYFRAME_INTRINSICS


def test_the_depth_of_a_view_nearby_is_told_where_it_is_known() -> None:
    pose = POSES["ahead"]
    around = seen(renderer(), pose).surroundings(pose, INTRINSICS)
    nearby = turned(moved(pose, 0.1), 4)
    found = around.depth_of(View(nearby, INTRINSICS, WIDTH, HEIGHT))
    assert found is not None
    truth = inverse_depth(nearby, INTRINSICS, WIDTH, HEIGHT)
    assert (np.abs(found - truth) < 0.05 * truth + 0.01)[~edges(truth)].mean() > 0.97
    assert (found >= 0).all()
    assert around.depth_of(View(turned(pose, 180), INTRINSICS, WIDTH, HEIGHT)) is None


def test_the_sky_is_known_at_infinity_however_far_one_walks() -> None:
    color = np.full((SIDE, SIDE, 3), 200, np.uint8)
    sky = Keyframe.of(color, np.zeros((SIDE, SIDE), np.float32), np.eye(4), KEYFRAME_INTRINSICS)
    found = seen(MemoryRenderer([sky]), moved(np.eye(4), 30.0, -5.0, 80.0))
    assert (found.coverage == 1).all()
    assert (found.inverse_depth == 0).all()
    assert (found.color == 200).all()


def test_a_memory_of_nothing_covers_nothing() -> None:
    found = seen(MemoryRenderer(), get_place("town").spawn)
    assert (found.coverage == 0).all()
    assert (found.color == 0).all()
    assert (found.inverse_depth == 0).all()
    assert found.color.shape == (2, HEIGHT, WIDTH, 3)


def test_one_keyframe_gives_itself_back() -> None:
    only = keyframe(0)
    found = seen(MemoryRenderer([only]), only.c2w)
    truth = get_place("town").render(only.c2w, INTRINSICS, WIDTH, HEIGHT)
    assert found.coverage[0].mean() > 0.95
    assert np.abs(found.color[0].astype(int) - truth).mean() < 5


def test_looking_away_from_all_keyframes_nothing_is_known() -> None:
    found = seen(MemoryRenderer([keyframe(0)]), turned(get_place("town").spawn, 180))
    assert found.coverage.mean() == 0


def test_pixels_marked_unknown_show_nothing() -> None:
    whole = keyframe(0)
    depth = whole.inverse_depth
    depth[:, SIDE // 2 :] = -1
    half = Keyframe.of(whole.color, depth, whole.c2w, whole.intrinsics)
    coverage = seen(MemoryRenderer([half]), whole.c2w).coverage[0]
    assert coverage[:, : WIDTH // 2 - 2].mean() > 0.9
    assert coverage[:, WIDTH // 2 + 2 :].mean() == 0


def same(left: MemoryRendering, right: MemoryRendering) -> bool:
    return (
        np.array_equal(left.color, right.color)
        and np.array_equal(left.coverage, right.coverage)
        and np.array_equal(left.inverse_depth, right.inverse_depth)
    )


def test_rendering_depends_on_nothing_but_keyframes_and_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    used = renderer()
    for pose in POSES.values():
        seen(used, pose)
    monkeypatch.setattr(engine.memory.renderer, "LEAST_THREADS", 1)
    for num_cores in (1, 8):
        monkeypatch.setattr(engine.memory.renderer, "num_cores", lambda count=num_cores: count)
        fresh = MemoryRenderer(used.keyframes)
        for pose in POSES.values():
            assert same(seen(used, pose), seen(fresh, pose))


def test_whoever_stands_still_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[View] = []
    render_frame = engine.memory.renderer._render_frame

    def counted(*arguments):
        drawn.append(arguments[-1])
        return render_frame(*arguments)

    monkeypatch.setattr(engine.memory.renderer, "_render_frame", counted)
    memory = MemoryRenderer([keyframe(yaw) for yaw in (0, 30)])
    spawn = get_place("town").spawn
    poses = np.stack([spawn, moved(spawn, ahead=0.1), spawn, spawn])
    found = memory.render(poses, np.repeat(INTRINSICS[None], 4, 0), WIDTH, HEIGHT)
    assert len(drawn) == 2
    for part in (found.color, found.coverage, found.inverse_depth):
        assert (part[[2, 3]] == part[0]).all()
    assert (found.inverse_depth[1] != found.inverse_depth[0]).any()


def test_keyframes_that_are_not_counted_yet_change_nothing() -> None:
    frames = renderer().keyframes
    few, all_of_them = MemoryRenderer(frames[:3]), MemoryRenderer(frames)
    pose = POSES["ahead"]
    assert same(seen(few, pose), seen(all_of_them, pose, 3))
    assert not same(seen(few, pose), seen(all_of_them, pose))
    all_of_them.truncate(3)
    assert same(seen(few, pose), seen(all_of_them, pose))


def test_frames_of_a_chunk_of_odd_sizes_are_rendered() -> None:
    pose = get_place("town").spawn
    found = renderer().render(pose[None], INTRINSICS[None], 61, 37)
    assert found.color.shape == (1, 37, 61, 3)
    assert found.coverage.mean() > 0.5


def test_a_wall_at_arms_length_is_not_seen_through() -> None:
    """A moment of a held-out walk: few points of the near wall fall into the view, many of the room behind it."""
    world = read_world(worlds_dir() / "gallery.world")
    poses = held_out_walk(world, 961, 16)[893:897]
    lens = np.repeat(world.intrinsics[None], len(poses), 0)
    shown = MemoryRenderer(world.keyframes).render(poses, lens, 320, 192).color[-1]
    truth = get_place("gallery").render(poses[-1], world.intrinsics, 320, 192)
    assert psnr(shown, truth) > 30


def test_a_near_wall_that_is_walked_past_within_a_chunk_ends_where_it_ends() -> None:
    """Between the chunk's anchor and its last frame the wall's edge moves by more than what is looked for beside silhouettes."""
    world, place = read_world(worlds_dir() / "gallery.world"), get_place("gallery")
    poses = walk(place, 17, 16, HELD_OUT_SEED + 2)[13:]
    lens = np.repeat(world.intrinsics[None], len(poses), 0)
    shown = MemoryRenderer(world.keyframes).render(poses, lens, 320, 192).color[-1]
    assert psnr(shown, place.render(poses[-1], world.intrinsics, 320, 192)) > 34


@pytest.mark.parametrize(
    ("name", "first_frame"), [("gallery", 73), ("garden", 193)], ids=["a wall", "a ball"]
)
def test_near_surfaces_are_whole_to_their_edges(name: str, first_frame: int) -> None:
    """Moments of held-out walks in which the march along rays steps over what is behind a silhouette for a short way alone."""
    world = read_world(worlds_dir() / f"{name}.world")
    poses = held_out_walk(world, 961, 16)[first_frame : first_frame + 4]
    lens = np.repeat(world.intrinsics[None], len(poses), 0)
    found = MemoryRenderer(world.keyframes).render(poses, lens, 320, 192)
    depth = get_place(name).depth(poses[-2], world.intrinsics, 320, 192)
    near = depth < np.quantile(depth, 0.25)
    # Off by a pixel is as well as it can be known.
    inside = cv2.erode(near.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    seen_through = found.inverse_depth[-2] < 0.7 / depth
    assert (seen_through & inside).sum() < 0.007 * inside.sum()


def test_what_stood_before_the_sky_leaves_no_outline() -> None:
    """A moment of a held-out walk. Keyframes have a rock's colour in the sky's pixels beside it, and it moves by parallax."""
    world = read_world(worlds_dir() / "canyon.world")
    poses = held_out_walk(world, 961, 16)[937:940]
    lens = np.repeat(world.intrinsics[None], len(poses), 0)
    shown = MemoryRenderer(world.keyframes).render(poses, lens, 320, 192).color[-1]
    place = get_place("canyon")
    truth, depth = (draw(poses[-1], world.intrinsics, 320, 192) for draw in (place.render, place.depth))
    sky = cv2.erode((depth > 1e3).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    wrong = np.abs(shown.astype(int) - truth).max(-1) > 12
    assert wrong[sky].mean() < 0.002
