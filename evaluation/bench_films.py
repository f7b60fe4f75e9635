"""Videos of any world model, one MP4 for each scene of a benchmark, scored against the truth where the scene has one.

Every video is taken to begin with the scene's picture, fitted to its frame by covering and cropping, and to follow its track.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import at_fps, map_intrinsics
from evaluation.bench_layout import BenchScene
from evaluation.bench_progress import identity
from evaluation.camera_following import CameraFollowing, compare_poses, locate, views_around
from evaluation.consistency import revisit_pairs, sharpness
from evaluation.image_metrics import Measure
from evaluation.poses.alignment import camera_errors, fit_similarity
from evaluation.poses.estimator import PoseEstimator, PosesRefused
from evaluation.rollouts import Frames, Poses
from holodeck import Place, get_place
from holodeck.compiled import render_rgbd

FPS = 16.0
JUDGED_WIDTH_PX = 320
"""Width that all videos are judged at, so that a larger one has no other measure."""
WINDOW_FRAMES = 160
"""Of the first and the last window (the benchmark's)."""
SAMPLE_S = 1.0
"""Between frames that are held against the truth and located."""
BENCH_SIZE = (1280, 720)
"""Of the benchmark's pictures."""


@dataclass(frozen=True)
class FilmScore:
    """What one video came to."""

    scene: str
    category: str
    seconds: float
    likeness: dict[str, float]
    """Mean over frames by measure; empty where there is no truth."""
    camera: CameraFollowing | None
    """None where poses could not be recovered."""
    num_pairs: int
    revisit: dict[str, float]
    """Mean over revisit pairs by measure."""
    sharpness_lost: float
    """Of the last window against the first, a share; over the truth's sharpness where there is a truth. Our substitute for the
    loss of imaging quality."""
    made_by: str = ""
    """Hash of all that it depends on."""


TABLE_FILE, ROWS = "films.json", "films"
"""Of an evaluation: the scores, and the field of its JSON object that holds them."""


def film_path(folder: Path, scene: BenchScene) -> Path:
    """Where the video of a scene lies."""
    return folder / f"{scene.name}.mp4"


def film_identities(
    scenes: Sequence[BenchScene], folder: Path, seconds: float, measures: Sequence[Measure]
) -> dict[str, str]:
    """What a score of each scene's video is made by: its bytes, the track, the place, options; none where there is no video."""
    common = seconds, [measure.name for measure in measures]
    return {
        scene.name: identity(*common, scene.place, scene.pairs, files=(path, scene.trajectory))
        for scene in scenes
        if (path := film_path(folder, scene)).is_file()
    }


def read_film(path: Path, seconds: float) -> Frames:
    """Decode a video at FPS and JUDGED_WIDTH_PX, [F, H, W, 3], for so long at most.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            size = JUDGED_WIDTH_PX, max(2, 2 * round(JUDGED_WIDTH_PX * height / width / 2))
            frames: list[Frames] = []
            for number, frame in enumerate(container.decode(stream)):
                shown_s = frame.time if frame.time is not None else number / float(stream.average_rate or FPS)
                if shown_s > seconds + 0.5 / FPS:
                    break
                if round(shown_s * FPS) >= len(frames):
                    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
                    frames += [small] * (round(shown_s * FPS) + 1 - len(frames))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"cannot read the video {path}: {error}; make it again") from error
    if len(frames) < 2:
        raise ValueError(f"the video {path} has {len(frames)} frames; make it again")
    return np.stack(frames)


def score_film(
    scene: BenchScene,
    path: Path,
    seconds: float,
    measures: Sequence[Measure],
    estimator: PoseEstimator | None,
) -> FilmScore:
    """Score one video.

    Args:
        seconds: That are looked at, at most.
        estimator: Recovers poses where the scene has no truth; without one they are left out.
    """
    track = at_fps(scene.track(), FPS)
    assert track.intrinsics is not None, "the scene checks its track"
    frames = read_film(path, seconds)[: track.num_frames]
    height, width = frames.shape[1:3]
    lens = map_intrinsics(track.intrinsics[:1], BENCH_SIZE, (width, height))[0].astype(np.float32)
    wanted = track.c2w[: len(frames)]
    picks = range(round(SAMPLE_S * FPS), len(frames), round(SAMPLE_S * FPS))
    if scene.place is not None:
        place = get_place(scene.place)
        world = place.spawn @ wanted
        truth = {n: render_rgbd(place, world[n], lens, width, height)[0] for n in picks}
        likeness = {m.name: float(np.mean([m.compare(truth[n], frames[n]) for n in picks])) for m in measures}
        camera = _located(frames, place, world, lens, picks)
    else:
        truth, likeness = {}, {}
        camera = None if estimator is None else _recovered(frames, wanted, lens, estimator)
    chosen = [(i, j) for i, j in scene.pairs if max(i, j) < len(frames)]
    pairs = chosen or [(int(i), int(j)) for i, j in revisit_pairs(wanted, FPS)]
    revisit = (
        {m.name: float(np.mean([m.compare(frames[i], frames[j]) for i, j in pairs])) for m in measures}
        if pairs
        else {}
    )
    return FilmScore(
        scene.name,
        scene.category,
        (len(frames) - 1) / FPS,
        likeness,
        camera,
        len(pairs),
        revisit,
        _sharpness_lost(frames, truth),
    )


def _located(
    frames: Frames, place: Place, world: Poses, lens: NDArray[np.float32], picks: Sequence[int]
) -> CameraFollowing:
    """Locate frames in the place itself and compare with where they should be; world poses are [F, 4, 4]."""
    size = frames.shape[2], frames.shape[1]
    found = [locate(frames[n], views_around(place, world[n], lens, size), lens) for n in picks]
    return compare_poses(found, world[list(picks)])


def _sharpness_lost(frames: Frames, truth: Mapping[int, Frames]) -> float:
    """Share of sharpness that the last window has less than the first, beside the truth at its frames where there is one."""
    window = min(WINDOW_FRAMES, len(frames) // 2)
    ends = []
    for part in (range(window), range(len(frames) - window, len(frames))):
        known = [n for n in part if n in truth]
        own = sharpness(frames[known] if known else frames[part.start : part.stop : 4])
        ends.append(own / max(sharpness(np.stack([truth[n] for n in known])), 1e-6) if known else own)
    return float(1.0 - ends[1] / max(ends[0], 1e-6))


def _recovered(
    frames: Frames, wanted: Poses, lens: NDArray[np.float32], estimator: PoseEstimator
) -> CameraFollowing | None:
    """Poses recovered from the video alone, in a scale of their own; None where they are not to be trusted."""
    try:
        found = estimator.estimate(frames, FPS, lens.astype(np.float64))
    except PosesRefused:
        return None
    if found.problem:
        return None
    fit = fit_similarity(found.c2w, wanted)
    return CameraFollowing(len(frames), len(frames), camera_errors(fit(found.c2w), wanted), None, fit.scale)


def score_films(
    scenes: Sequence[BenchScene],
    folder: Path,
    seconds: float,
    measures: Sequence[Measure],
    estimator: PoseEstimator | None,
    earlier: Mapping[str, FilmScore],
    save: Callable[[Sequence[FilmScore]], None],
    advance: Callable[[int], None],
) -> tuple[list[FilmScore], list[str]]:
    """Score the videos NAME.mp4 of a folder.

    Args:
        earlier: What an earlier call scored, by scene.
        save: Told of all scores after each video.

    Returns:
        Scores, and one sentence for each scene that has no video or a broken one.

    Raises:
        ValueError: There is no video at all.
    """
    made_by = film_identities(scenes, folder, seconds, measures)
    known, missing = dict(earlier), []
    for done, scene in enumerate(scenes, 1):
        path = film_path(folder, scene)
        try:
            if not path.is_file():
                raise ValueError(f"there is no video {path}")
            if scene.name not in known:
                score = score_film(scene, path, seconds, measures, estimator)
                known[scene.name] = replace(score, made_by=made_by[scene.name])
                save(_in_order(scenes, known))
        except ValueError as error:
            missing.append(str(error))
        advance(done)
    if not known:
        raise ValueError(
            f"{folder} holds no video of the scenes; name them after scenes, such as {scenes[0].name}.mp4"
        )
    return _in_order(scenes, known), missing


def _in_order(scenes: Sequence[BenchScene], scores: Mapping[str, FilmScore]) -> list[FilmScore]:
    return [scores[scene.name] for scene in scenes if scene.name in scores]
