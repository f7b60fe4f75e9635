"""Worlds of one photo: their depth and what surrounds the photo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.onnxruntime import tell_depth
from engine.files.bundle import Bundle
from engine.memory.keyframes import Keyframe
from engine.memory.renderer import MemoryRenderer
from engine.session.picture_world import lens_of, mirror_images, no_text, told_depth, world_of_photo
from tests.guided import GuidedBackend, guided_spec
from tests.test_posed_pictures import info

WIDTH, HEIGHT = 64, 32
LENS = lens_of(70, WIDTH, HEIGHT)
EYE_M = 1.6


def picture(sky: bool) -> Keyframe:
    """A street: ground of stripes below, a wall left and right, and sky or a ceiling above."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    down, across = (rows - LENS[3]) / LENS[1], (columns - LENS[2]) / LENS[0]
    inverse = np.maximum(down / EYE_M, np.abs(across) / 4)
    inverse = np.where(sky & (down < 0) & (np.abs(across) < 0.5), 0.0, np.maximum(inverse, 0.02))
    color = np.stack([rows * 4, columns * 3, np.full_like(rows, 90)], -1).astype(np.uint8)
    return Keyframe.of(color, inverse.astype(np.float32), np.eye(4), LENS)


def seen(keyframes: list[Keyframe], yaw_deg: float = 0, pitch_deg: float = 0) -> tuple[NDArray, ...]:
    """Colour, coverage and inverse depth of a view from where the picture was taken."""
    turn = (
        cv2.Rodrigues(np.radians([0.0, yaw_deg, 0.0]))[0]
        @ cv2.Rodrigues(np.radians([pitch_deg, 0.0, 0.0]))[0]
    )
    c2w = np.eye(4)
    c2w[:3, :3] = turn
    rendering = MemoryRenderer(keyframes).render(c2w[None], LENS[None], WIDTH, HEIGHT)
    return rendering.color[0], rendering.coverage[0], rendering.inverse_depth[0]


def test_mirror_images_leave_no_direction_unknown() -> None:
    keyframe = picture(sky=True)
    around = [keyframe, *mirror_images(keyframe)]
    for yaw in range(0, 360, 45):
        assert seen(around, yaw)[1].mean() > 0.9, yaw
    assert seen([keyframe], 90)[1].mean() < 0.1


def test_beside_a_photo_stands_its_mirror_image() -> None:
    keyframe = picture(sky=True)
    color, coverage, _ = seen([keyframe, *mirror_images(keyframe)], 70)
    shown = coverage > 0
    difference = np.abs(color.astype(float) - keyframe.color[:, ::-1])[shown]
    assert np.median(difference) < 4


def test_the_ground_goes_on_below_a_photo() -> None:
    keyframe = picture(sky=True)
    _, coverage, inverse = seen([keyframe, *mirror_images(keyframe)], pitch_deg=-40)
    rows = (np.arange(HEIGHT) + 0.5 - LENS[3]) / LENS[1]
    angle = np.radians(40)
    ground = (rows * np.cos(angle) + np.sin(angle)) / EYE_M
    below = np.s_[HEIGHT // 2 :, WIDTH // 2 - 4 : WIDTH // 2 + 4]
    assert coverage[below].mean() > 0.9
    np.testing.assert_allclose(np.median(inverse[below], 1), ground[HEIGHT // 2 :], rtol=0.1)


def test_sky_goes_on_above_a_photo_that_shows_any() -> None:
    outdoors, indoors = picture(sky=True), picture(sky=False)
    above = np.s_[: HEIGHT // 3, WIDTH // 2 - 4 : WIDTH // 2 + 4]
    assert seen([outdoors, *mirror_images(outdoors)], pitch_deg=35)[2][above].max() == 0
    assert seen([indoors, *mirror_images(indoors)], pitch_deg=35)[2][above].min() > 0.01


def test_a_longer_lens_shows_what_is_farther_away() -> None:
    near = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    focal = np.array([0.65 * WIDTH, 1, 1, 1], np.float32)
    np.testing.assert_allclose(told_depth(lambda _: near, frame, focal), near)
    np.testing.assert_allclose(told_depth(lambda _: near, frame, 2 * focal), near / 2)


def test_a_photo_takes_its_depth_from_what_tells_it_and_is_surrounded_on_request() -> None:
    spec, photo = guided_spec(), np.full((90, 120, 3), 77, np.uint8)
    world = world_of_photo(
        info(),
        spec,
        GuidedBackend(),
        photo,
        no_text(spec),
        depth_of=lambda frame: np.full(frame.shape[:2], 0.125, np.float32),
        mirrored=False,
    )
    (keyframe,) = world.keyframes
    expected = 0.125 * 0.65 * spec.frame_width / world.intrinsics[0]
    np.testing.assert_allclose(keyframe.inverse_depth, expected, rtol=1e-3)
    surrounded = world_of_photo(info(), spec, GuidedBackend(), photo, no_text(spec))
    assert len(surrounded.keyframes) == 15


def test_what_a_photo_shows_from_near_is_enlarged_as_a_whole() -> None:
    spec, photo = guided_spec(), np.full((90, 120, 3), 77, np.uint8)
    size = spec.frame_height, spec.frame_width
    cup_on_table = np.full(size, 0.5, np.float32)
    cup_on_table[: size[0] // 2, : size[1] // 2] = 2.0
    cup_on_table[-1] = 0.0

    world = world_of_photo(
        info(), spec, GuidedBackend(), photo, no_text(spec), depth_of=lambda _: cup_on_table, mirrored=False
    )
    inverse = world.keyframes[0].inverse_depth
    assert inverse.max() == pytest.approx(1 / 3, rel=1e-3)
    np.testing.assert_allclose(inverse / inverse.max(), cup_on_table / 2.0, rtol=1e-2, atol=1e-3)


def test_the_depth_graph_tells_what_its_network_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from export.graph import SharedWeights, store_in_int8
    from export.onnx import write_graph
    from model.vae.depth import DepthConfig, DepthGraph, DepthNetwork
    from training.pocket.publish import load_depth_start

    torch.manual_seed(2)
    graph = DepthGraph(DepthNetwork(DepthConfig((8, 8, 16)))).eval()
    for name, parameter in graph.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    path = tmp_path / "depth.onnx"
    example = torch.zeros(64, 64, 3, dtype=torch.uint8)
    weights = SharedWeights(tmp_path / "weights.bin")
    write_graph(graph, (example,), path, weights, ["picture"], ["inverse_depth"], None)
    store_in_int8(path)
    spec = guided_spec().model_copy(update={"depth_graph": path.name})
    bundle = Bundle(tmp_path, spec, "")
    shown = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with torch.no_grad():
        expected = graph(torch.from_numpy(shown)).numpy()
    told = tell_depth(bundle, shown, 1)
    assert told.shape == (64, 64)
    assert np.ptp(told) > 1e-3
    # Weights are stored in 8 bits.
    assert np.abs(told - expected).mean() < 0.03 * expected.mean()
    assert np.abs(told - expected).max() > 0
    again = DepthGraph(DepthNetwork(DepthConfig((8, 8, 16)))).eval()
    load_depth_start(again.network, path)
    with torch.no_grad():
        np.testing.assert_allclose(again(torch.from_numpy(shown)).numpy(), told, rtol=5e-3)
    with pytest.raises(ValueError, match="cannot start from"):
        load_depth_start(DepthNetwork(DepthConfig((8, 16, 16))), path)
