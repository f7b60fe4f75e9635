"""Videos with poses: found, matched in time, resized with their lens, encoded once."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.camera.formats.track_files import save_track
from engine.camera.tracks import Track, map_intrinsics
from engine.files.video import open_video
from model.vae.guided import GuidedAutoencoder
from tests.models import small_autoencoder
from training.data.clip import LeftOut, count_left_out, readable
from training.data.latent_cache import CachedClips, LatentCache
from training.data.latents import EncodedClips, latent_walk, weights_tag
from training.data.sets import encode_videos, open_set
from training.data.videos.folder import VideoFolder, VideoOptions
from training.data.videos.frames import fit_picture

OPTIONS = VideoOptions((64, 32), fps=16.0, max_frames=33)
LENS = np.array([50.0, 50.0, 48.0, 32.0])
SIZE = (96, 64)


def grey(n: int) -> int:
    """Brightness of frame n, by which frames are known again."""
    return 20 + 5 * n


def pictures(count: int) -> np.ndarray:
    return np.stack([np.full((SIZE[1], SIZE[0], 3), grey(n), np.uint8) for n in range(count)])


def poses(count: int) -> np.ndarray:
    """A camera that moves one metre a frame along x."""
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, 0, 3] = np.arange(count)
    return c2w


def write_film(path: Path, count: int = 33, fps: float = 16.0) -> None:
    with open_video(path, SIZE, fps) as writer:
        writer.write(pictures(count))


def write_poses(path: Path, count: int = 33, **values) -> None:
    save_track(Track(poses(count), np.tile(LENS, (count, 1)), image_size=SIZE, **values), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_film(folder / "street.mp4")
    write_poses(folder / "street.npz")
    (folder / "street.caption.txt").write_text("A street\nof houses.")
    return folder


@pytest.fixture
def autoencoder() -> GuidedAutoencoder:
    torch.manual_seed(0)
    return GuidedAutoencoder(small_autoencoder(16, 4)).eval()


def clips(folder: Path, options: VideoOptions = OPTIONS):
    left_out: list[LeftOut] = []
    return list(readable(VideoFolder(folder, options), left_out)), left_out


def test_a_video_with_a_pose_per_frame_becomes_a_clip(folder: Path):
    (clip,), left_out = clips(folder)
    assert left_out == []
    assert (clip.scene, clip.caption, clip.source) == ("street", "A street of houses.", "videos")
    np.testing.assert_array_equal(clip.c2w, poses(33))
    assert clip.frames is not None
    assert clip.frames.shape == (33, 32, 64, 3)
    # The codec moves a grey by a little.
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), [grey(n) for n in range(33)], atol=3)


def test_pictures_and_lens_are_resized_and_cropped_alike():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[30:34, 70:74] = 255
    fitted = fit_picture(picture, (64, 32))
    row, column = (float(v.mean()) + 0.5 for v in np.nonzero(fitted[..., 0] > 100))
    # The ray through a point of the picture is the ray through the same point of the resized one.
    fx, fy, cx, cy = map_intrinsics(LENS[None], SIZE, (64, 32))[0]
    assert (column - cx) / fx == pytest.approx((72.0 - LENS[2]) / LENS[0], abs=0.02)
    assert (row - cy) / fy == pytest.approx((32.0 - LENS[3]) / LENS[1], abs=0.02)


def test_a_film_of_another_rate_is_sampled_and_poses_follow_the_pictures(folder: Path):
    write_film(folder / "street.mp4", 41, fps=40.0)
    write_poses(folder / "street.npz", 41)
    (clip,), _ = clips(folder)
    # 40 frames at 40 fps are one second: 17 moments of 1/16 s, each shown by the nearest frame and with its pose.
    nearest = clip.c2w[:, 0, 3]
    assert len(nearest) == 17
    np.testing.assert_allclose(nearest, np.arange(17) * 2.5, atol=0.51)
    assert clip.frames is not None
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), 20 + 5 * nearest, atol=3)


def test_tum_poses_are_matched_by_time_even_if_they_carry_the_time_of_day(folder: Path):
    (folder / "street.npz").unlink()
    lines = [f"{1.7e9 + n / 8:.6f} {2.0 * n} 0 0 0 0 0 1" for n in range(17)]
    (folder / "street.txt").write_text("\n".join(lines))
    found, left_out = clips(folder)
    assert found == []
    assert "has no intrinsics" in left_out[0].reason
    (folder / "street.lens.txt").write_text("50 50 48 32\n")
    (clip,), left_out = clips(folder)
    assert left_out == []
    np.testing.assert_allclose(clip.c2w[:, 0, 3], np.arange(33), atol=1e-3)
    assert clip.frames is not None
    np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), [grey(n) for n in range(33)], atol=3)


def test_poses_at_their_own_rate_are_interpolated(folder: Path):
    save_track(Track(poses(9), np.tile(LENS, (9, 1)), fps=4.0, image_size=SIZE), folder / "street.npz")
    (clip,), _ = clips(folder)
    # Two seconds of video, a pose each quarter second: four frames a pose.
    np.testing.assert_allclose(clip.c2w[:, 0, 3], np.arange(33) / 4.0, atol=1e-6)


def test_a_long_gap_between_poses_is_not_bridged(folder: Path):
    save_track(Track(poses(3), np.tile(LENS, (3, 1)), fps=1.0, image_size=SIZE), folder / "street.npz")
    found, left_out = clips(folder)
    assert found == []
    assert count_left_out(left_out) == {"rejected": 1, "broken": 0}
    assert "no poses for 1.00 s" in left_out[0].reason


def test_long_films_become_clips_that_overlap_as_asked(folder: Path):
    write_film(folder / "street.mp4", 45)
    write_poses(folder / "street.npz", 45)
    found, _ = clips(folder, VideoOptions((64, 32), max_frames=21, overlap=5, min_frames=10))
    assert [clip.name for clip in found] == ["street-000", "street-001", "street-002"]
    assert [clip.c2w[0, 0, 3] for clip in found] == [0.0, 16.0, 32.0]
    assert [clip.num_frames for clip in found] == [21, 21, 13]
    for clip in found:
        assert clip.frames is not None
        np.testing.assert_allclose(clip.frames.mean((1, 2, 3)), 20 + 5 * clip.c2w[:, 0, 3], atol=3)


def test_lengths_are_turned_into_metres(folder: Path):
    (clip,), _ = clips(folder, VideoOptions((64, 32), max_frames=33, metres_per_unit=0.25))
    np.testing.assert_allclose(clip.c2w[:, 0, 3], 0.25 * np.arange(33))


def test_a_folder_of_pictures_with_transforms_becomes_a_clip(tmp_path: Path):
    images = tmp_path / "videos" / "house" / "images"
    images.mkdir(parents=True)
    frames = []
    for n, picture in enumerate(pictures(17)):
        cv2.imwrite(str(images / f"{n:03d}.png"), picture)
        pose = poses(17)[n] @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"./images/{n:03d}", "transform_matrix": pose.tolist()})
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy", "w", "h"), (*LENS, *SIZE), strict=True))
    (images.parent / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    (clip,), left_out = clips(tmp_path / "videos")
    assert left_out == []
    assert clip.frames is not None
    assert clip.frames[:, 0, 0, 0].tolist() == [grey(n) for n in range(17)]
    np.testing.assert_allclose(clip.c2w, poses(17), atol=1e-12)


def test_pictures_named_after_their_times_are_matched_with_tum_poses(tmp_path: Path):
    folder = tmp_path / "videos" / "desk"
    (folder / "rgb").mkdir(parents=True)
    for n, picture in enumerate(pictures(33)):
        cv2.imwrite(str(folder / "rgb" / f"{1000 + n / 16:.4f}.png"), picture)
    lines = [f"{1000 + n / 8:.6f} {2.0 * n} 0 0 0 0 0 1" for n in range(17)]
    (folder / "groundtruth.txt").write_text("# a trajectory\n" + "\n".join(lines))
    (folder / "lens.txt").write_text("50 50 48 32\n")
    (clip,), left_out = clips(tmp_path / "videos")
    assert left_out == []
    np.testing.assert_allclose(clip.c2w[:, 0, 3], np.arange(33), atol=1e-3)
    assert clip.frames is not None
    assert clip.frames[:, 0, 0, 0].tolist() == [grey(n) for n in range(33)]


def test_broken_films_are_named_skipped_and_counted(folder: Path):
    (folder / "noise.mp4").write_bytes(b"no video" * 100)
    write_poses(folder / "noise.npz")
    write_film(folder / "lonely.mp4")
    write_film(folder / "short.mp4", 40)
    write_poses(folder / "short.npz", 33)
    whole = (folder / "street.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_poses(folder / "cut.npz")
    found, left_out = clips(folder)
    assert [clip.name for clip in found] == ["street-000"]
    reasons = {item.name: item.reason for item in left_out}
    assert set(reasons) == {"noise", "lonely", "short", "cut"}
    assert "no poses beside it" in reasons["lonely"]
    assert "33 poses for the 40 pictures" in reasons["short"]
    assert "cannot read the video" in reasons["noise"]
    assert count_left_out(left_out) == {"rejected": 0, "broken": 4}


def test_a_pose_file_cannot_lead_out_of_its_folder(tmp_path: Path):
    images = tmp_path / "videos" / "house" / "images"
    images.mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "secret.png"), pictures(1)[0])
    cv2.imwrite(str(images / "a.png"), pictures(1)[0])
    frame = {"file_path": "../../../secret.png", "transform_matrix": np.eye(4).tolist()}
    lens = dict(zip(("fl_x", "fl_y", "cx", "cy", "w", "h"), (*LENS, *SIZE), strict=True))
    (images.parent / "transforms.json").write_text(json.dumps({**lens, "frames": [frame]}))
    found, left_out = clips(tmp_path / "videos")
    assert found == []
    assert "does not hold" in left_out[0].reason


def test_films_are_encoded_once_and_read_back_equal(
    folder: Path, tmp_path: Path, autoencoder: GuidedAutoencoder
):
    cache = LatentCache(tmp_path / "set", weights_tag(autoencoder))
    first = EncodedClips(VideoFolder(folder, OPTIONS), cache, autoencoder)
    made = first[0]
    again = EncodedClips(VideoFolder(folder, OPTIONS), cache, autoencoder)
    kept = again[0]
    assert (first.num_encoded, again.num_encoded) == (1, 0)
    for what in ("latents", "c2w", "intrinsics"):
        np.testing.assert_array_equal(getattr(kept, what), getattr(made, what))
    assert (kept.name, kept.caption, kept.fps, kept.frame_size) == (made.name, made.caption, 16.0, (64, 32))
    assert kept.latents is not None
    assert kept.latents.shape == (9, 16, 1, 2)
    assert latent_walk(kept, 3).c2w.shape == (9, 4, 4, 4)
    assert kept.temporal_stride == 4


@pytest.mark.parametrize("change", ["video", "poses", "caption", "autoencoder", "size"])
def test_whatever_changes_is_encoded_anew(
    folder: Path, tmp_path: Path, autoencoder: GuidedAutoencoder, change: str
):
    def encode(options: VideoOptions) -> int:
        return encode_videos(folder, tmp_path / "set", options, autoencoder, lambda done: None)[1]

    options = OPTIONS
    assert (encode(options), encode(options)) == (1, 0)
    if change == "video":
        with open_video(folder / "street.mp4", SIZE, 16.0) as writer:
            writer.write(255 - pictures(33))
    if change == "poses":
        save_track(
            Track(2.0 * poses(33) - np.eye(4), np.tile(LENS, (33, 1)), image_size=SIZE), folder / "street.npz"
        )
    if change == "caption":
        (folder / "street.caption.txt").write_text("A lane.")
    if change == "autoencoder":
        with torch.no_grad():
            next(autoencoder.parameters()).add_(0.01)
    if change == "size":
        options = VideoOptions((32, 32), max_frames=33)
    assert encode(options) == 1


def test_an_interrupted_encoding_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, autoencoder: GuidedAutoencoder, monkeypatch: pytest.MonkeyPatch
):
    for n in range(3):
        write_film(folder / f"{n}.mp4", 17 + n)
        write_poses(folder / f"{n}.npz", 17 + n)

    def advance(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_videos(folder, tmp_path / "set", OPTIONS, autoencoder, advance)
    assert len(list((tmp_path / "set").iterdir())) == 2
    summary, encoded = encode_videos(folder, tmp_path / "set", OPTIONS, autoencoder, lambda done: None)
    assert (summary.clips, encoded) == (4, 2)
    assert len(open_set(tmp_path / "set")) == 4


@pytest.mark.parametrize("keep", [0, 6, 200, -8])
def test_a_damaged_file_of_latents_is_named_skipped_and_counted(
    folder: Path, tmp_path: Path, autoencoder: GuidedAutoencoder, keep: int
):
    encode_videos(folder, tmp_path / "set", OPTIONS, autoencoder, lambda done: None)
    (path,) = (tmp_path / "set").iterdir()
    path.write_bytes(path.read_bytes()[:keep])
    left_out: list[LeftOut] = []
    assert list(readable(CachedClips(tmp_path / "set"), left_out)) == []
    assert str(path) in left_out[0].reason
    assert count_left_out(left_out) == {"rejected": 0, "broken": 1}


def test_a_folder_without_films_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no videos"):
        VideoFolder(tmp_path, OPTIONS)
    with pytest.raises(ValueError, match="there is no folder"):
        VideoFolder(tmp_path / "none", OPTIONS)
