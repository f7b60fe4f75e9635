"""Videos and pictures as cameras and programs write them: upright, counted as players count, matched with their poses."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from engine.camera.formats.nerfstudio import OPENGL_TO_OPENCV
from engine.camera.formats.track_files import save_track
from engine.camera.tracks import Track
from engine.files.pictures import read_rgb
from training.data.clip import Clip, LeftOut, readable
from training.data.videos.finder import find_videos
from training.data.videos.folder import VideoFolder, VideoOptions
from training.data.videos.frames import DecodedFrames, choose_stored, turn
from training.data.videos.pictures import ImageFrames

SIZE, COUNT = (96, 64), 20
LENS = np.array([50.0, 50.0, 48.0, 32.0])


def picture(n: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey that tells the number of a frame, with a bright top left quarter that tells how it lies."""
    image = np.full((size[1], size[0], 3), 20 + 5 * n, np.uint8)
    image[: size[1] // 2, : size[0] // 2] = 250
    return image


def numbers_of(frames: np.ndarray) -> list[int]:
    """Read the numbers of frames [F, H, W, 3] off their bottom right."""
    return [round((float(frame[-8:-2, -8:-2].mean()) - 20) / 5) for frame in frames]


def bright_corner(frame: np.ndarray) -> tuple[str, str]:
    y, x = (float(axis.mean()) for axis in np.nonzero(frame[..., 0] > 200))
    return "top" if y < frame.shape[0] / 2 else "bottom", "left" if x < frame.shape[1] / 2 else "right"


def poses(count: int = COUNT) -> np.ndarray:
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, 0, 3] = np.arange(count)
    return c2w


def write_video(
    path: Path, count: int = COUNT, codec: str = "mpeg4", aspect: Fraction | None = None, **options
) -> Path:
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25) if options.get("cover") else None
        stream: Any = container.add_stream(codec, rate=16)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        stream.codec_context.max_b_frames = options.get("b_frames", 0)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if cover is not None:
            cover.width, cover.height, cover.pix_fmt = 200, 200, "yuvj420p"
            container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0, (200, 200)), format="rgb24")))
            container.mux(cover.encode(None))
        for n in range(count):
            frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into an MP4 file, as phones do."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    return path


def everything(video: DecodedFrames, size: tuple[int, int]) -> np.ndarray:
    return video.read(np.arange(len(video)), size)


def clips(folder: Path, min_frames: int = 2) -> tuple[list[Clip], list[LeftOut]]:
    left_out: list[LeftOut] = []
    return list(
        readable(VideoFolder(folder, VideoOptions((96, 64), min_frames=min_frames)), left_out)
    ), left_out


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), ("top", "left")),
        ((0, 1, -1, 0), ("top", "right")),
        ((-1, 0, 0, -1), ("bottom", "right")),
        ((0, -1, 1, 0), ("bottom", "left")),
        ((-1, 0, 0, 1), ("top", "right")),
        ((0, 1, 1, 0), ("top", "left")),
    ],
)
def test_videos_are_turned_and_mirrored_as_players_do(tmp_path: Path, matrix, corner):
    video = DecodedFrames(turned(write_video(tmp_path / "v.mp4", 3), matrix))
    upright = SIZE if matrix[0] else (SIZE[1], SIZE[0])
    assert video.size == upright
    assert bright_corner(everything(video, upright)[0]) == corner


def test_a_turned_picture_is_what_the_matrix_says_of_each_point():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)
    # A quarter clockwise: the bottom left comes to the top left.
    np.testing.assert_array_equal(turn(image, np.array([[0, 1], [-1, 0]]))[..., 0], [[3, 0], [4, 1], [5, 2]])


def test_a_turned_video_has_the_lens_of_the_upright_one_or_is_read_as_stored(tmp_path: Path):
    turned(write_video(tmp_path / "v.mp4"), (0, 1, -1, 0))
    for size, corner in (((SIZE[1], SIZE[0]), ("top", "right")), (SIZE, ("top", "left"))):
        lens = [50.0, 50.0, size[0] / 2, size[1] / 2]
        save_track(Track(poses(), np.tile(lens, (COUNT, 1)), image_size=size), tmp_path / "v.npz")
        ((clip,), left_out) = clips(tmp_path)
        assert left_out == []
        assert clip.frames is not None
        assert bright_corner(clip.frames[0]) == corner
        assert clip.intrinsics[0, 0] == pytest.approx(50.0 * 96 / size[0])


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are(tmp_path: Path):
    video = DecodedFrames(write_video(tmp_path / "v.mp4", 2, aspect=Fraction(2, 1)))
    assert (video.size, video.stored_size) == ((192, 64), SIZE)
    assert everything(video, (192, 64))[0][:30, :94].min() > 200


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_frames_out_of_order_are_all_counted_and_found(tmp_path: Path, suffix: str):
    video = DecodedFrames(write_video(tmp_path / f"v{suffix}", b_frames=2))
    assert len(video) == COUNT
    assert numbers_of(everything(video, SIZE)) == list(range(COUNT))
    assert numbers_of(video.read(np.array([11, 11, 15]), SIZE)) == [11, 11, 15]


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path: Path):
    write_video(tmp_path / "whole.mp4")
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "v.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                hidden = int(Fraction(6, 16) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - hidden, packet.dts - hidden, stream
                container.mux(packet)
    video = DecodedFrames(tmp_path / "v.mp4")
    assert numbers_of(everything(video, SIZE)) == list(range(6, COUNT))
    assert video.times_s is not None
    np.testing.assert_allclose(video.times_s, np.arange(COUNT - 6) / 16, atol=1e-3)


def test_a_cover_before_the_film_is_not_the_film(tmp_path: Path):
    video = DecodedFrames(write_video(tmp_path / "v.mkv", cover=True))
    assert (len(video), video.size) == (COUNT, SIZE)


def with_exif(path: Path, orientation: int, image: np.ndarray) -> None:
    """Write a JPEG with an EXIF orientation."""
    data = cv2.imencode(".jpg", image)[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])


def write_transforms(folder: Path, names: list[str], **values: object) -> None:
    matrices = (poses(len(names)) @ OPENGL_TO_OPENCV).tolist()
    frames = [{"file_path": n, "transform_matrix": m} for n, m in zip(names, matrices, strict=True)]
    (folder / "transforms.json").write_text(json.dumps({"frames": frames, **values}))


@pytest.mark.parametrize(
    ("said", "shape", "corner"),
    [
        (SIZE, SIZE, ("top", "left")),
        (SIZE[::-1], SIZE[::-1], ("top", "right")),
        ((48, 32), SIZE, ("top", "left")),
    ],
)
def test_pictures_lie_as_their_poses_say(tmp_path: Path, said, shape, corner):
    (tmp_path / "walk" / "images").mkdir(parents=True)
    for n in range(3):
        with_exif(tmp_path / "walk" / "images" / f"{n}.jpg", 6, picture(n))
    write_transforms(tmp_path / "walk", [f"images/{n}.jpg" for n in range(3)], fl_x=50, w=said[0], h=said[1])
    ((clip,), left_out) = clips(tmp_path)
    assert left_out == []
    assert clip.frames is not None
    assert bright_corner(clip.frames[0]) == corner
    assert clip.intrinsics[0, 0] == pytest.approx(50.0 * 96 / said[0])
    frames = ImageFrames([tmp_path / "walk" / "images" / "0.jpg"])
    frames.fit_shape(said)
    assert frames.size == shape


def test_pictures_of_another_shape_than_their_poses_are_named_and_left_out(tmp_path: Path):
    (tmp_path / "walk").mkdir()
    for n in range(3):
        cv2.imwrite(str(tmp_path / "walk" / f"{n}.png"), picture(n))
    write_transforms(tmp_path / "walk", [f"{n}.png" for n in range(3)], fl_x=50, w=80, h=80)
    found, left_out = clips(tmp_path)
    assert found == []
    assert "96x64, its poses are for 80x80" in left_out[0].reason


def test_what_is_upright_is_one_rule(tmp_path: Path):
    for prefers_stored in (True, False):
        assert choose_stored((96, 64), (64, 96), (96, 64), prefers_stored, tmp_path)
        assert not choose_stored((64, 96), (64, 96), (96, 64), prefers_stored, tmp_path)
        assert not choose_stored(None, (64, 96), (96, 64), prefers_stored, tmp_path)


def test_transparent_parts_of_pictures_are_white(tmp_path: Path):
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :4] = (40, 50, 60, 255)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    shown = read_rgb(tmp_path / "a.png")
    assert shown[0, 0].tolist() == [60, 50, 40]
    assert shown[0, 7].tolist() == [255, 255, 255]


def write_pictures(folder: Path, names: list[str]) -> None:
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture(n))


def test_numbered_pictures_meet_the_poses_of_their_numbers(tmp_path: Path):
    write_pictures(tmp_path / "walk" / "images", [f"{n}.png" for n in range(COUNT)])
    save_track(Track(poses(), np.tile(LENS, (COUNT, 1)), image_size=SIZE), tmp_path / "walk.npz")
    ((clip,), _) = clips(tmp_path)
    assert clip.frames is not None
    assert numbers_of(clip.frames) == clip.c2w[:, 0, 3].astype(int).tolist()


def test_pictures_named_by_nanoseconds_are_timed(tmp_path: Path):
    start = 1_403_636_579_763_555_584
    write_pictures(tmp_path / "walk" / "images", [f"{start + n * 62_500_000}.png" for n in range(COUNT)])
    lines = [f"{start + n * 125_000_000} {2 * n} 0 0 0 0 0 1" for n in range(COUNT // 2)]
    (tmp_path / "walk" / "groundtruth.txt").write_text("\n".join(lines))
    (tmp_path / "walk" / "lens.txt").write_text("50 50 48 32")
    ((clip,), left_out) = clips(tmp_path)
    assert left_out == []
    np.testing.assert_allclose(clip.c2w[:, 0, 3], np.arange(19), atol=1e-3)


def test_pictures_in_folders_of_a_rig_become_a_film_each(tmp_path: Path):
    names = [f"cam{camera}/{n:06}.png" for n in range(5) for camera in (1, 2)]
    write_pictures(tmp_path / "rig" / "images", names)
    write_transforms(tmp_path / "rig", [f"images/{name}" for name in names], fl_x=50, w=96, h=64)
    found, left_out = clips(tmp_path)
    assert left_out == []
    assert [clip.name for clip in found] == ["rig/cam1-000", "rig/cam2-000"]
    for clip in found:
        assert clip.frames is not None
        assert numbers_of(clip.frames) == clip.c2w[:, 0, 3].astype(int).tolist()


def test_blender_leaves_size_and_ending_to_the_pictures(tmp_path: Path):
    write_pictures(tmp_path / "lego" / "train", [f"r_{n}.png" for n in range(3)])
    write_transforms(tmp_path / "lego", [f"./train/r_{n}" for n in range(3)], camera_angle_x=np.pi / 2)
    (tmp_path / "lego" / "transforms.json").rename(tmp_path / "lego" / "transforms_train.json")
    ((clip,), left_out) = clips(tmp_path)
    assert left_out == []
    np.testing.assert_allclose(clip.intrinsics[0], [48.0, 48.0, 48.0, 32.0])


def test_folders_are_found_by_any_name_and_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("2024.01.02", "2024.01.03", "a.mp4"):
        write_pictures(tmp_path / "all" / name / "images", ["1.png", "2.png"])
        write_transforms(tmp_path / "all" / name, ["images/1.png", "images/2.png"], fl_x=50, w=96, h=64)
    assert [video.name for video in find_videos(tmp_path / "all")[0]] == ["2024.01.02", "2024.01.03", "a.mp4"]
    monkeypatch.chdir(tmp_path / "all" / "2024.01.03")
    for folder in (Path("."), Path("../2024.01.03"), tmp_path / "all" / "2024.01.03"):
        assert [video.name for video in find_videos(folder)[0]] == ["2024.01.03"]


def test_two_films_of_one_name_are_told_apart(tmp_path: Path):
    for suffix in (".mp4", ".mkv"):
        write_video(tmp_path / f"v{suffix}", 2)
    save_track(Track(poses(2), np.tile(LENS, (2, 1)), image_size=SIZE), tmp_path / "v.npz")
    assert sorted(video.name for video in find_videos(tmp_path)[0]) == ["v.mkv", "v.mp4"]


def test_hidden_files_are_no_pictures_and_no_films(tmp_path: Path):
    write_pictures(tmp_path / "walk" / "images", ["1.png", "2.png"])
    write_transforms(tmp_path / "walk", ["images/1.png", "images/2.png"], fl_x=50, w=96, h=64)
    for place in (tmp_path / "walk" / "images" / "._1.png", tmp_path / "._film.mp4"):
        place.write_bytes(b"\0\5\26\7")
    (tmp_path / ".Trash" / "images").mkdir(parents=True)
    (tmp_path / ".Trash" / "film.mp4").write_bytes(b"old")
    videos, left_out = find_videos(tmp_path)
    assert [len(video.pictures) for video in videos] == [2]
    assert left_out == []
