"""Annotation: sources, cuts, scores, bounds, and a set from one end to the other with cameras that are given."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")
import torch

from engine.files.video import open_video
from evaluation.poses.estimator import CameraEstimate, PosesRefused
from model.vae.guided import GuidedAutoencoder
from tests.models import small_autoencoder
from training.data.annotation.annotate import AnnotationPlan, annotate
from training.data.annotation.cameras import CameraSettings
from training.data.annotation.clip_job import ClipSettings
from training.data.annotation.filters import PRESETS, Judge, camera_scores, count_reasons
from training.data.annotation.report_page import histogram, write_report
from training.data.annotation.results import camera_path, read_camera, read_seconds
from training.data.annotation.shots import ClipLengths, plan_clips
from training.data.annotation.sources import Source, find_sources
from training.data.clip_quality import flow_magnitude, nearly_blank_share, saturation, vmaf_motion
from training.data.sets import open_set

SIZE = (96, 64)
LENGTHS = ClipLengths(least_frames=33, most_frames=49, stride=32)


def moving_picture(count: int, seed: int, step_px: int = 2) -> np.ndarray:
    """A random picture that passes by, [F, H, W, 3]."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 200, 3), rng.integers(40, 255, 3)
    wide = rng.uniform(np.minimum(low, high), np.maximum(low, high) + 1, (4, 8 + count * step_px // 16, 3))
    wide = cv2.resize(wide.astype(np.uint8), None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, n * step_px : n * step_px + SIZE[0]] for n in range(count)])


def write_film(path: Path, frames: np.ndarray) -> Path:
    with open_video(path, SIZE, 16) as writer:
        writer.write(frames)
    return path


@dataclass(frozen=True)
class GivenCameras:
    """Cameras on a straight line; a green picture has none."""

    problem: str = ""
    name: str = "given"

    def estimate(self, frames: np.ndarray, fps: float, lens: np.ndarray | None = None) -> CameraEstimate:
        if frames[..., 1].mean() > 150:
            raise PosesRefused("no two frames fit one another")
        c2w = np.tile(np.eye(4), (len(frames), 1, 1))
        c2w[:, 2, 3] = 3.0 * np.arange(len(frames))
        intrinsics = np.tile([70.0, 70.0, frames.shape[2] / 2, frames.shape[1] / 2], (len(frames), 1))
        return CameraEstimate(c2w, intrinsics, "line", {"reprojection_px": 0.5}, self.problem)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_film(folder / "two shots.mp4", np.concatenate([moving_picture(49, 1), moving_picture(40, 2)]))
    write_film(folder / "still.mp4", np.repeat(moving_picture(1, 3), 40, 0))
    (folder / "two shots.caption.txt").write_text("coloured patches\n")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def plan_for(films: Path, folder: Path, estimator: GivenCameras | None = None) -> AnnotationPlan:
    # Small pictures pass by fast for their width, and their tiles are large.
    settings = ClipSettings(
        LENGTHS, Judge(PRESETS["measured"] | {"blank_share": (0.0, 1.0), "flow": (1.0, 200.0)})
    )
    return AnnotationPlan(
        [films],
        folder,
        replace(settings, cameras=CameraSettings(estimator=estimator or GivenCameras())),
        SIZE,
    )


def small_encoder() -> GuidedAutoencoder:
    torch.manual_seed(0)
    return GuidedAutoencoder(small_autoencoder(16, 4)).eval()


def no_bar(what: str, total: int | None):
    return lambda done: None


def test_sources_are_named_by_their_files_and_never_twice(tmp_path):
    for name in ("a/x y.mp4", "b/x-y.mp4", "b/.hidden.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    pictures = tmp_path / "scan"
    pictures.mkdir()
    for n in range(8):
        cv2.imwrite(str(pictures / f"{n}.png"), np.zeros((8, 8, 3), np.uint8))
    sources, left_out = find_sources([tmp_path, tmp_path / "nothing"])
    assert [source.name for source in sources] == ["x-y", "x-y-2", "scan"]
    assert "does not exist" in left_out[0].reason


def test_clips_hold_no_cut_and_have_the_lengths_that_were_asked_for(films):
    source = Source("two-shots", films / "two shots.mp4")
    clips, cuts = plan_clips(source, LENGTHS)
    assert cuts == [pytest.approx(49 / 16)]
    assert [(clip.key, clip.num_frames) for clip in clips] == [("two-shots-000", 49), ("two-shots-001", 33)]
    assert clips[1].start_s == pytest.approx(49 / 16)


def test_long_shots_become_clips_that_overlap(tmp_path):
    source = Source("long", write_film(tmp_path / "long.mp4", moving_picture(110, 4)))
    clips, cuts = plan_clips(source, LENGTHS)
    assert cuts == []
    assert [(round(clip.start_s * 16), clip.num_frames) for clip in clips] == [(0, 49), (32, 49), (64, 33)]


def test_scores_tell_motion_from_standstill():
    still, moving = np.repeat(moving_picture(1, 5), 33, 0), moving_picture(33, 5)
    assert vmaf_motion(still, 16) == 0.0
    assert vmaf_motion(moving, 16) > 1.0
    assert flow_magnitude(still, 16) < 0.5
    # 2 pixels a frame, 8 frames apart, told for frames 640 wide.
    expected = 2 * 8 * 640 / SIZE[0]
    assert flow_magnitude(moving, 16) == pytest.approx(expected, rel=0.15)
    grey = np.full((9, 64, 96, 3), 90, np.uint8)
    assert saturation(grey) == 0.0
    assert nearly_blank_share(grey) == 1.0
    noise = np.random.default_rng(0).integers(0, 255, grey.shape).astype(np.uint8)
    assert nearly_blank_share(noise) == 0.0


def test_bounds_reject_with_a_reason_each():
    judge = Judge(PRESETS["sekai-game"])
    good = {name: sum(bound) / 2 for name, bound in judge.bounds.items()}
    assert judge.pictures(good) == []
    assert judge.pictures({**good, "vmafmotion": 0.1}) == ["vmafmotion 0.1 outside 0.5 to 50"]
    del good["dover"]
    assert judge.pictures(good) == ["dover missing"]
    assert Judge(judge.bounds, missing_is_fine=True).pictures(good) == []
    lens = np.tile([500.0, 350.0, 320.0, 176.0], (9, 1))
    lens[4, :2] = 4000.0
    broken = judge.cameras(camera_scores(lens, (640, 352)))
    assert [reason.split()[0] for reason in broken] == ["least_fov_deg", "focal_mismatch"]
    assert count_reasons([broken, broken[:1], []]) == {"least_fov_deg": 2, "focal_mismatch": 1}


def test_a_set_is_made_of_what_passes(films, tmp_path):
    plan = plan_for(films, tmp_path / "set")
    done = annotate(plan, small_encoder(), no_bar)
    kept = [clip for clip in done.clips if clip.kept]
    assert [clip.key for clip in kept] == ["two-shots-000", "two-shots-001"]
    assert any(
        reason.startswith("vmafmotion") for clip in done.clips if not clip.kept for reason in clip.reasons
    )
    assert ["broken.mp4" in item.reason for item in done.left_out] == [True]
    c2w, intrinsics, size = read_camera(plan.folder, "two-shots-000")
    assert (c2w.shape, intrinsics.shape, size) == ((49, 4, 4), (49, 4), SIZE)
    # The scale is that of a camera that goes 1 m/s.
    assert c2w[-1, 2, 3] == pytest.approx(48 / 16)
    source = open_set(plan.folder)
    clips = [source[n] for n in range(len(source))]
    assert [(clip.name, clip.num_frames, clip.caption) for clip in clips] == [
        ("two-shots-000", 49, "coloured patches"),
        ("two-shots-001", 33, "coloured patches"),
    ]
    scores = json.loads((plan.folder / "raw" / "clips-0000_vmafmotion.json").read_text())
    assert scores.keys() == {"two-shots-000", "two-shots-001"}
    page = write_report(plan, done).read_text()
    assert "two-shots-000" in page
    assert "vmafmotion" in page
    assert page.count("<polyline") == 2
    # Every rejection is counted by what it is for, and shown with its reason; every step with what it took.
    [still] = [clip for clip in done.clips if not clip.kept]
    assert all(
        f"<td>{kind}</td><td class=number>{count}</td>" in page
        for kind, count in count_reasons([still.reasons]).items()
    )
    assert "; ".join(still.reasons) in page
    assert all(f"<td>{step}</td>" in page for step in ("decode", "pictures", "cameras"))
    took = read_seconds(plan.folder, "two-shots-000")
    assert list(took.wall_s) == list(took.cpu_s) == ["decode", "pictures", "cameras"]


def test_a_histogram_of_equal_values_reaches_to_its_bound():
    drawn = histogram(np.zeros(3), (0.0, 1.0))
    assert 'text-anchor="end">1</text>' in drawn
    assert 'fill="#e3efe0"' in drawn


def test_scores_of_other_programs_lie_beside_a_video(films, tmp_path):
    plan = plan_for(films, tmp_path / "set")
    judge = replace(plan.settings.judge, bounds={**plan.settings.judge.bounds, "dover": (0.4, 1.0)})
    plan = replace(plan, settings=replace(plan.settings, judge=judge))
    assert all("dover missing" in clip.reasons for clip in annotate(plan, small_encoder(), no_bar).clips)
    (films / "two shots.scores.json").write_text('{"dover": 0.61}')
    kept = [clip for clip in annotate(plan, small_encoder(), no_bar).clips if clip.kept]
    assert [clip.scores["dover"] for clip in kept] == [0.61, 0.61]
    (films / "two shots.scores.json").write_text("[1]")
    broken = annotate(plan, small_encoder(), no_bar)
    assert any("no JSON object of numbers" in item.reason for item in broken.left_out)


def test_a_second_call_does_only_what_is_missing(films, tmp_path):
    plan = plan_for(films, tmp_path / "set")
    annotate(plan, small_encoder(), no_bar)
    before = {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()}
    again = annotate(plan, small_encoder(), no_bar)
    assert again.done_before == len(again.clips) == 3
    assert {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()} == before
    (plan.folder / "clips" / "two-shots-001.json").unlink()
    assert annotate(plan, small_encoder(), no_bar).done_before == 2
    same = {
        path: path.read_bytes()
        for path in plan.folder.rglob("*")
        if path.is_file()
        if "seconds" not in path.parts
    }
    assert same == {path: content for path, content in before.items() if "seconds" not in path.parts}


def test_refused_cameras_reject_and_are_never_archived(films, tmp_path):
    plan = plan_for(films, tmp_path / "set", GivenCameras(problem="solutions differ by 9 degrees"))
    done = annotate(plan, small_encoder(), no_bar)
    assert done.archived == 0
    assert "poses refused: solutions differ by 9 degrees" in done.clips[0].reasons + done.clips[-1].reasons
    assert not list((plan.folder / "raw").glob("*.zip"))
    green = write_film(films / "green.mp4", moving_picture(40, 7) // 2 + np.array([0, 120, 0], np.uint8))
    shutil.copy(green, tmp_path / "green.mp4")
    only = replace(plan_for(films, tmp_path / "other"), paths=[tmp_path / "green.mp4"])
    [clip] = annotate(only, small_encoder(), no_bar).clips
    assert "poses refused: no two frames fit one another" in clip.reasons
    assert not camera_path(only.folder, clip.key).exists()
