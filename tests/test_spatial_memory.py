"""Growing, going back, storing: a spatial memory through a walk and through files."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SpecMismatch
from engine.files.bundle import Bundle
from engine.files.world import World, WorldEntry, list_worlds, read_world, write_world
from engine.machine.assets import worlds_dir
from engine.memory.codec import announced_size, decode_color, encode_depth
from engine.memory.keyframes import UNKNOWN, Grown, Keyframe
from engine.memory.spatial_memory import GROWTH_DELAY, SpatialMemory
from engine.memory.store import INVERSE_DEPTH_STEP, compressed, decode_keyframes, encode_keyframes
from engine.session.chunk_refiner import ChunkRefiner
from engine.session.model_session import ModelSession
from engine.session.protocol import MAX_IN_FLIGHT
from engine.types import FrameChunk, LatentChunk
from tests.conftest import C
from tests.guided import (
    HEIGHT,
    INTRINSICS,
    WIDTH,
    GuidedBackend,
    guided_spec,
    guided_world,
    turn_round,
    wall,
)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Keyframe:
    """Noise before sky, unknown in one corner."""
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (height, width, 3), np.uint8)
    depth = rng.uniform(0.05, 0.5, (height, width)).astype(np.float32)
    depth[: height // 3] = 0
    depth[:4, :4] = -1
    c2w = np.eye(4)
    c2w[0, 3] = seed
    return Keyframe.of(color, depth, c2w, INTRINSICS)


def assert_equal(left: Keyframe, right: Keyframe) -> None:
    for name in ("color", "codes", "c2w", "intrinsics"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert left.scale == right.scale


def rendered(memory: SpatialMemory, chunk_index: int):
    return memory.render(chunk_index, np.eye(4)[None], INTRINSICS[None], WIDTH, HEIGHT)


def grow(memory: SpatialMemory, chunk_index: int, coverage: float = 0.0) -> None:
    color, depth = wall()
    covered = np.full((HEIGHT, WIDTH), coverage, np.float32)
    memory.grow(chunk_index, color, depth, covered, np.eye(4), INTRINSICS)


def test_what_a_chunk_showed_is_seen_two_chunks_later() -> None:
    memory = SpatialMemory([])
    grow(memory, 5)
    assert rendered(memory, 5 + GROWTH_DELAY - 1).coverage.max() == 0
    later = rendered(memory, 5 + GROWTH_DELAY)
    assert later.coverage.mean() > 0.9
    assert np.abs(later.inverse_depth - 1 / 3).max() < 1e-3
    assert (later.color == 90).all()


def test_what_is_known_is_not_fused_again() -> None:
    memory = SpatialMemory([])
    grow(memory, 0, coverage=1.0)
    assert memory.grown == ()
    grow(memory, 1)
    assert [entry.chunk_index for entry in memory.grown] == [1]


def test_only_the_unknown_part_of_a_frame_is_fused() -> None:
    memory, (color, depth) = SpatialMemory([]), wall()
    coverage = np.ones((HEIGHT, WIDTH), np.float32)
    coverage[:, :20] = 0
    memory.grow(0, color, depth, coverage, np.eye(4), INTRINSICS)
    fused = memory.grown[0].keyframe.inverse_depth >= 0
    assert fused[:, :20].all()
    assert not fused[:, 23:].any()


def test_going_back_forgets_and_going_on_restores() -> None:
    memory = SpatialMemory([picture(1)])
    grow(memory, 0)
    before, early = memory.grown, rendered(memory, 9)
    grow(memory, 1)
    after, late = memory.grown, rendered(memory, 9)
    assert len(before) == 1, "a snapshot does not change when the walk goes on"
    for grown, expected in ((before, early), (after, late), ((), None), (before, early)):
        memory.restore(grown)
        assert memory.grown == grown
        assert len(memory.keyframes) == 1 + len(grown)
        if expected is not None:
            np.testing.assert_array_equal(rendered(memory, 9).color, expected.color)


def test_stored_keyframes_come_back_exactly() -> None:
    keyframes = [picture(seed, 8 + 9 * seed, 40 - 3 * seed) for seed in range(4)]
    arrays = encode_keyframes(keyframes)
    for left, right in zip(keyframes, decode_keyframes(arrays, "a test"), strict=True):
        assert_equal(left, right)
    again = encode_keyframes(decode_keyframes(arrays, "a test"))
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_a_lossy_keyframe_is_compressed_once() -> None:
    lossy = compressed(picture(0), 70)
    arrays = encode_keyframes([lossy])
    (back,) = decode_keyframes(arrays, "a test")
    assert_equal(lossy, back)
    assert np.array_equal(encode_keyframes([back])["memory.colors"], arrays["memory.colors"])
    assert len(arrays["memory.colors"]) < len(encode_keyframes([picture(0)])["memory.colors"])


def test_colours_at_sharp_edges_keep_their_hue() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (220, 30, 30), (30, 30, 220)
    keyframe = replace(picture(0, 64, 64), picture=stripes)
    kept = compressed(keyframe, 90).color.astype(int)
    assert np.abs(kept - stripes).mean() < 8, "planes at half size would leave violet"


def test_colour_as_earlier_builds_kept_it_is_read() -> None:
    """Luma, red and blue difference, one below the other in a grey WebP."""
    import cv2

    color = cv2.resize(picture(0).color, (64, 48), interpolation=cv2.INTER_CUBIC)
    planes = np.asarray(cv2.cvtColor(color, cv2.COLOR_RGB2YCrCb)).transpose(2, 0, 1).reshape(-1, 64)
    blob = np.asarray(cv2.imencode(".webp", planes, [cv2.IMWRITE_WEBP_QUALITY, 95])[1], np.uint8)
    read = decode_color(blob.reshape(-1), 48)
    assert read is not None
    assert np.abs(read.astype(int) - color).mean() < 4
    assert announced_size(blob.reshape(-1), encode_depth(np.zeros((48, 64), np.uint16))) == (64, 48)


def test_an_avif_of_several_pictures_is_refused() -> None:
    from PIL import Image

    frames = [Image.fromarray(picture(seed).color) for seed in (0, 1)]
    file = io.BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:])
    keyframe = picture(0)
    blob = np.frombuffer(file.getvalue(), np.uint8)
    assert announced_size(blob, encode_depth(keyframe.codes)) is None


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_avif_is_a_picture_or_nothing(data: st.DataObject) -> None:
    keyframe = compressed(picture(0), 70)
    assert keyframe.color_blob is not None
    blob = bytearray(keyframe.color_blob.tobytes())
    blob = blob[: data.draw(st.integers(12, len(blob)))]
    for _ in range(data.draw(st.integers(0, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    damaged = np.frombuffer(bytes(blob), np.uint8)
    size = announced_size(damaged, encode_depth(keyframe.codes))
    if size is not None and size == keyframe.codes.shape[::-1]:
        read = decode_color(damaged, size[1])
        assert read is None or read.shape == (size[1], size[0], 3)


def test_compressed_depths_are_rounded_by_a_step_and_the_unknown_stays() -> None:
    keyframe = picture(0)
    keyframe.codes[:2] = UNKNOWN
    kept = compressed(keyframe, 80)
    assert (kept.codes == UNKNOWN).any(1).tolist() == (keyframe.codes == UNKNOWN).any(1).tolist()
    off = np.abs(kept.inverse_depth - keyframe.inverse_depth)
    assert off.max() <= 0.51 * max(INVERSE_DEPTH_STEP, keyframe.scale)


def with_png(keyframe: Keyframe) -> dict[str, Any]:
    """Arrays as earlier builds wrote them: depth as 16-bit PNG."""
    import cv2

    png = np.asarray(cv2.imencode(".png", keyframe.codes)[1], np.uint8).reshape(-1)
    return encode_keyframes([replace(keyframe, depth_blob=png)])


def test_depths_that_earlier_builds_wrote_are_read() -> None:
    keyframe = picture(3)
    (back,) = decode_keyframes(with_png(keyframe), "a test")
    assert_equal(keyframe, back)


def announced(keyframe: Keyframe, width: int, height: int) -> dict[str, Any]:
    """Arrays whose depth announces another size than it holds."""
    arrays = with_png(keyframe)
    arrays["memory.depths"] = arrays["memory.depths"].copy()
    arrays["memory.depths"][16:24] = np.frombuffer(
        width.to_bytes(4, "big") + height.to_bytes(4, "big"), np.uint8
    )
    return arrays


def announced_webp(keyframe: Keyframe, width: int, height: int) -> dict[str, Any]:
    """The same of what is written now."""
    arrays = encode_keyframes([keyframe])
    arrays["memory.depths"] = blob = arrays["memory.depths"].copy()
    bits = int.from_bytes(blob[21:25].tobytes(), "little") >> 28 << 28
    bits |= (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14
    blob[21:25] = np.frombuffer(bits.to_bytes(4, "little"), np.uint8)
    return arrays


@pytest.mark.parametrize("announce", [announced, announced_webp])
@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (60000, 60000), (0, 0), (WIDTH, HEIGHT + 1)])
def test_sizes_are_bounded_before_anything_is_decoded(
    size: tuple[int, int],
    announce: Callable[[Keyframe, int, int], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cv2

    def refuse(*_args: Any) -> None:
        raise AssertionError("decoded")

    arrays = announce(picture(0), *size)
    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(SpecMismatch, match=r"^the spatial memory of a test is damaged; make it again$"):
        decode_keyframes(arrays, "a test")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_keyframes_are_refused_in_one_sentence(data: st.DataObject) -> None:
    arrays = {name: array.copy() for name, array in encode_keyframes([picture(0), picture(1)]).items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    raw = arrays[name].reshape(-1).view(np.uint8)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        arrays[name] = arrays[name][: data.draw(st.integers(0, len(arrays[name])))]
    keyframes: list[Keyframe] = []
    sentence = "the spatial memory of a test is damaged; make it again"
    with suppress(SpecMismatch):
        keyframes = decode_keyframes(arrays, "a test")
    if not keyframes:
        with pytest.raises(SpecMismatch, match=f"^{sentence}$"):
            decode_keyframes(arrays, "a test")
    assert all(frame.color.shape[:2] == frame.codes.shape and frame.scale > 0 for frame in keyframes)


@pytest.mark.parametrize("what", ["color", "depth"])
def test_a_damaged_picture_of_an_unchecked_memory_is_refused_when_it_is_asked_for(what: str) -> None:
    arrays = encode_keyframes([picture(0), picture(1)])
    end = int(arrays[f"memory.{what}_bytes"][0])
    # Behind its header, whose size is believed.
    arrays[f"memory.{what}s"][64:end] = 0
    sentence = "the spatial memory of a test is damaged; make it again"
    with pytest.raises(SpecMismatch, match=f"^{sentence}$"):
        decode_keyframes(arrays, "a test")
    damaged, whole = decode_keyframes(arrays, "a test", checked=False)
    assert damaged.size == (WIDTH, HEIGHT)
    assert_equal(whole, picture(1))
    memory = SpatialMemory([damaged, whole])
    with pytest.raises(SpecMismatch, match=f"^{sentence}$"):
        rendered(memory, 0)


@pytest.mark.parametrize("entry", list_worlds([worlds_dir()]), ids=lambda entry: entry.name)
def test_every_picture_of_a_shipped_world_can_be_decoded(entry: WorldEntry) -> None:
    for keyframe in read_world(entry.path).keyframes:
        keyframe.check()


def test_an_unchecked_memory_decodes_nothing_before_it_is_rendered() -> None:
    keyframes = [picture(0), picture(1)]
    arrays = encode_keyframes(keyframes)
    read = decode_keyframes(arrays, "a test", checked=False)
    assert not any(keyframe.is_ready for keyframe in read)
    for part in ("color", "coverage", "inverse_depth"):
        of_files, of_pictures = (
            getattr(rendered(SpatialMemory(some), 0), part) for some in (read, keyframes)
        )
        np.testing.assert_array_equal(of_files, of_pictures)
    assert all(keyframe.is_ready for keyframe in read)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory.depth_scale", np.nan),
        ("memory.depth_scale", -1.0),
        ("memory.c2w", np.nan),
        ("memory.c2w", 2.0),
        ("memory.intrinsics", 0.0),
        ("memory.intrinsics", np.inf),
        ("memory.intrinsics", 1e-37),
        ("memory.intrinsics", 1e37),
    ],
)
def test_keyframes_that_are_no_cameras_are_refused(
    name: str, value: float, toy_world: World, tmp_path: Path
) -> None:
    keyframe = picture(0)
    field = name.removeprefix("memory.")
    if field == "depth_scale":
        broken = replace(keyframe, scale=value)
    else:
        array = getattr(keyframe, field).copy()
        array[0] = value
        broken = replace(keyframe, **{field: array})
    with pytest.raises(SpecMismatch, match=r"make it again$"):
        write_world(tmp_path / "toy.world", replace(toy_world, keyframes=(broken,)))


def test_a_world_carries_its_keyframes(toy_world: World, tmp_path: Path) -> None:
    keyframes = (picture(0), compressed(picture(1), 80))
    write_world(tmp_path / "toy.world", replace(toy_world, keyframes=keyframes))
    for left, right in zip(keyframes, read_world(tmp_path / "toy.world").keyframes, strict=True):
        assert_equal(left, right)


@pytest.fixture
def walk_session(toy_world: World, tmp_path: Path) -> Callable[[], ModelSession]:
    """Open sessions on a world that remembers what one keyframe saw."""
    world = guided_world(toy_world)
    bundle = Bundle(tmp_path, guided_spec(), "cd" * 32)

    def start() -> ModelSession:
        session = ModelSession(bundle, world, GuidedBackend())
        session.reset(3)
        session.keep_snapshots = True
        return session

    return start


def run(session: ModelSession, first: int, count: int) -> list[FrameChunk]:
    return [session.step(track) for track in turn_round(first, count)]


def assert_same_walk(left: list[FrameChunk], right: list[FrameChunk]) -> None:
    assert [chunk.latents_sha256 for chunk in left] == [chunk.latents_sha256 for chunk in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
        assert a.inverse_depth is not None
        np.testing.assert_array_equal(a.inverse_depth, b.inverse_depth)


def test_a_walk_shows_what_is_known_and_remembers_what_it_made(
    walk_session: Callable[[], ModelSession],
) -> None:
    session = walk_session()
    chunks = run(session, 0, 12)
    assert (chunks[0].frames[0] == 90).mean() > 0.85, "the keyframe is before the camera"
    assert (chunks[8].frames[-1] != 90).mean() > 0.9, "nobody saw what is aside"
    snapshot = session.snapshot()
    assert len(snapshot.grown) >= 2
    assert len(session.keyframes) == 1 + len(snapshot.grown)
    backend = session._backend
    assert isinstance(backend, GuidedBackend)
    assert backend.memories[0].shape == (1, C + 1, 1, 2, 4)


def test_a_session_says_what_is_around_a_chunk_before_it_is_made(
    walk_session: Callable[[], ModelSession],
) -> None:
    session = walk_session()
    assert session.surroundings is not None, "of the world's first view"
    snapshot = session.snapshot()
    track = turn_round(0, 1)[0]
    chunk = session.denoise(track)
    around = session.surroundings
    assert chunk.rendering is not None
    np.testing.assert_array_equal(around.view.c2w, track.c2w[-1])
    np.testing.assert_array_equal(around.color, chunk.rendering.color[-1])
    everywhere = np.ones((HEIGHT, WIDTH), np.bool_)
    color, depth = around.look(around.view, everywhere)
    assert (depth >= 0).mean() > 0.85
    assert (color[depth >= 0, :3] == 90).all()
    session.decode(chunk)
    session.restore(snapshot)
    assert session.surroundings is None, "they are those of another moment"


class IdleRefiner(ChunkRefiner):
    """A refiner that no chunk asks for; it takes a place in the line all the same."""

    def __init__(self) -> None:
        self.sha256, self.block_shape, self.reach = "ef" * 32, (C, 1, 2, 4), 1

    def enter(self, world: World) -> None: ...


@pytest.mark.parametrize("refiner", [None, IdleRefiner()], ids=["alone", "refined"])
def test_a_walk_is_the_same_however_many_chunks_are_under_way(
    toy_world: World, tmp_path: Path, refiner: ChunkRefiner | None
) -> None:
    bundle = Bundle(tmp_path, guided_spec(), "cd" * 32)
    walks = []
    for under_way in (1, MAX_IN_FLIGHT + (refiner is not None)):
        session = ModelSession(bundle, guided_world(toy_world), GuidedBackend(), refiner=refiner)
        assert under_way <= session.max_in_flight
        session.reset(3)
        waiting, frames = deque[LatentChunk](), []
        for track in turn_round(0, 12):
            waiting.append(session.denoise(track))
            if len(waiting) == under_way:
                frames.append(session.decode(session.refine(waiting.popleft())).frames)
        walks.append(frames)
    assert len(session.keyframes) > 3
    np.testing.assert_array_equal(walks[0][: len(walks[1])], walks[1])


def test_a_snapshot_brings_back_what_the_walk_had_added(walk_session: Callable[[], ModelSession]) -> None:
    session = walk_session()
    run(session, 0, 6)
    snapshot = session.snapshot()
    expected = run(session, 6, 5)
    session.restore(snapshot)
    assert_same_walk(run(session, 6, 5), expected)
    other = walk_session()
    other.restore(snapshot)
    assert_same_walk(run(other, 6, 5), expected)


def test_a_reset_forgets_what_the_walk_had_added(walk_session: Callable[[], ModelSession]) -> None:
    session = walk_session()
    expected = run(session, 0, 8)
    session.reset(3)
    assert len(session.keyframes) == 1
    assert_same_walk(run(session, 0, 8), expected)


def test_a_saved_walk_keeps_what_it_had_added(
    walk_session: Callable[[], ModelSession], tmp_path: Path
) -> None:
    session = walk_session()
    run(session, 0, 6)
    snapshot = session.snapshot()
    keyframes = [entry.keyframe for entry in snapshot.grown]
    back = decode_keyframes(encode_keyframes(keyframes), "a test")
    grown = tuple(
        Grown(entry.chunk_index, keyframe) for entry, keyframe in zip(snapshot.grown, back, strict=True)
    )
    expected = run(session, 6, 5)
    other = walk_session()
    other.restore(replace(snapshot, grown=grown))
    assert_same_walk(run(other, 6, 5), expected)
