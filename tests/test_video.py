"""MP4 files: what goes in comes out, and a file that failed is not there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from engine.files.video import open_video

SIZE = (32, 16)


def film(num_frames: int) -> np.ndarray:
    """Return a bright bar moving over a blue ground, [F, H, W, 3]."""
    frames = np.full((num_frames, SIZE[1], SIZE[0], 3), (30, 60, 160), np.uint8)
    for i in range(num_frames):
        frames[i, :, 2 * i : 2 * i + 8] = (250, 220, 40)
    return frames


def test_a_video_has_every_frame_at_its_rate_and_close_to_its_colour(tmp_path: Path):
    frames = film(10)
    with open_video(tmp_path / "walk.mp4", SIZE, 16.0) as video:
        video.write(frames[:4])
        video.write(frames[4:])
    with av.open(str(tmp_path / "walk.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 16
        assert stream.codec_context.pix_fmt == "yuv420p"
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == frames.shape
    # yuv420p halves the colour resolution, so edges differ; the picture as a whole does not.
    assert np.abs(decoded.astype(float) - frames).mean() < 6.0


def test_a_failed_or_interrupted_video_leaves_nothing(tmp_path: Path):
    def walk(error: BaseException) -> None:
        with open_video(tmp_path / "walk.mp4", SIZE, 16.0) as video:
            video.write(film(3))
            raise error

    for error in (RuntimeError("the walk failed"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            walk(error)
    assert list(tmp_path.iterdir()) == []


def test_an_older_video_survives_a_failure(tmp_path: Path):
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ValueError, match="takes uint8 frames"), open_video(path, SIZE, 16.0) as video:
        video.write(film(1)[:, :8])
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("walk.avi", SIZE, r"ends in \.mp4"),
        ("walk.mp4", (33, 16), "even width and height, got 33x16"),
        ("no/such/walk.mp4", SIZE, "does not exist"),
    ],
)
def test_a_video_that_cannot_be_is_refused_at_once(
    tmp_path: Path, name: str, size: tuple[int, int], words: str
):
    with pytest.raises(ValueError, match=words), open_video(tmp_path / name, size, 16.0):
        pytest.fail("the video was opened")
