"""Videos of any world model, one MP4 for each scene of a benchmark, scored against the truth where the scene has one.

Every video is taken to begin with the scene's picture, fitted to its frame by covering and cropping, and to follow its track.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.tracks import at_fps, map_intrinsics
from evaluation.bench_layout import BenchScene
from evaluation.bench_networks import Networks, NetworkScores
from evaluation.bench_progress import identity
from evaluation.camera_following import CameraFollowing, View, compare_poses, locate, views_around
from evaluation.consistency import revisit_pairs, sharpness
from evaluation.film_reading import FPS, read_film
from evaluation.image_metrics import Measure
from evaluation.poses.alignment import camera_errors, fit_similarity
from evaluation.poses.estimator import PoseEstimator, PosesRefused
from evaluation.rollouts import Frames, Poses
from holodeck import Place, get_place
from holodeck.compiled import render_rgbd

WINDOW_FRAMES = 160
"""Of the first and the last window (the benchmark's)."""
LOOK_EVERY = 4
"""Every so many frames of a window are judged."""
SAMPLE_S = 0.5
"""Between frames that are held against the truth and located."""
BENCH_SIZE = (1280, 720)
"""Of the benchmark's pictures."""


@dataclass(frozen=True)
class Judges:
    """What videos are scored by."""

    measures: Sequence[Measure]
    estimator: PoseEstimator | None = None
    """Recovers poses where a scene has no truth; without one they are left out."""
    networks: Networks = field(default_factory=Networks)


@dataclass(frozen=True)
class FilmScore:
    """What one video came to."""

    videos: str
    """Name of its folder."""
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
    networks: NetworkScores = field(default_factory=NetworkScores)
    """Of other environments, where they were asked."""
    made_by: str = ""
    """Hash of all that it depends on."""

    @property
    def key(self) -> str:
        """Name of the video among those of a table."""
        return f"{self.videos}/{self.scene}"


TABLE_FILE, ROWS = "films.json", "films"
"""Of an evaluation: the scores, and the field of its JSON object that holds them."""


def film_path(folder: Path, scene: BenchScene) -> Path:
    """Where the video of a scene lies."""
    return folder / f"{scene.name}.mp4"


def film_key(folder: Path, scene: BenchScene) -> str:
    """Name of a scene's video among those of a table."""
    return f"{folder.name}/{scene.name}"


def film_identities(
    scenes: Sequence[BenchScene], folders: Sequence[Path], seconds: float, judges: Judges
) -> dict[str, str]:
    """What a score of each video is made by: its bytes, the track, the place, options; none where there is no video."""
    common = seconds, [measure.name for measure in judges.measures], judges.networks.names
    return {
        film_key(folder, scene): identity(*common, scene.place, scene.pairs, files=(path, scene.trajectory))
        for folder in folders
        for scene in scenes
        if (path := film_path(folder, scene)).is_file()
    }


@dataclass
class SceneTruth:
    """What is truly seen along a scene's track, drawn once for all videos of one size."""

    place: Place
    c2w: Poses
    """In the place's frame, [F, 4, 4]."""
    lens: NDArray[np.float32]
    size: tuple[int, int]
    """Width and height."""
    _pictures: dict[int, Frames] = field(default_factory=dict)
    _views: dict[int, list[View]] = field(default_factory=dict)

    def picture(self, number: int) -> Frames:
        """What the camera of a frame sees, [H, W, 3]."""
        if number not in self._pictures:
            drawn = render_rgbd(self.place, self.c2w[number], self.lens, *self.size)
            self._pictures[number] = drawn[0]
        return self._pictures[number]

    def views(self, number: int) -> list[View]:
        """Views about the camera of a frame, that videos are located by."""
        if number not in self._views:
            self._views[number] = views_around(self.place, self.c2w[number], self.lens, self.size)
        return self._views[number]


Truths = dict[tuple[int, int], SceneTruth]
"""Of one scene, by size."""


def score_film(
    scene: BenchScene, path: Path, seconds: float, judges: Judges, truths: Truths | None = None
) -> FilmScore:
    """Score one video, of which so many seconds are looked at, at most.

    Args:
        truths: What was drawn for other videos of the scene, and gets what is drawn for this one.
    """
    track = at_fps(scene.track(), FPS)
    assert track.intrinsics is not None, "the scene checks its track"
    frames = read_film(path, seconds)[: track.num_frames]
    measures, size = judges.measures, (frames.shape[2], frames.shape[1])
    lens = map_intrinsics(track.intrinsics[:1], BENCH_SIZE, size)[0].astype(np.float32)
    wanted = track.c2w[: len(frames)]
    picks = range(round(SAMPLE_S * FPS), len(frames), round(SAMPLE_S * FPS))
    truth: SceneTruth | None = None
    if scene.place is not None:
        place = get_place(scene.place)
        truth = (truths if truths is not None else {}).setdefault(
            size, SceneTruth(place, place.spawn @ track.c2w, lens, size)
        )
        likeness = {
            m.name: float(np.mean([m.compare(truth.picture(n), frames[n]) for n in picks])) for m in measures
        }
        camera = _located(frames, truth, lens, picks)
    else:
        likeness = {}
        camera = None if judges.estimator is None else _recovered(frames, wanted, lens, judges.estimator)
    chosen = [(i, j) for i, j in scene.pairs if max(i, j) < len(frames)]
    pairs = chosen or [(int(i), int(j)) for i, j in revisit_pairs(wanted, FPS)]
    revisit = (
        {m.name: float(np.mean([m.compare(frames[i], frames[j]) for i, j in pairs])) for m in measures}
        if pairs
        else {}
    )
    windows = _windows(len(frames))
    return FilmScore(
        videos=path.parent.name,
        scene=scene.name,
        category=scene.category,
        seconds=(len(frames) - 1) / FPS,
        likeness=likeness,
        camera=camera,
        num_pairs=len(pairs),
        revisit=revisit,
        sharpness_lost=_sharpness_lost(
            frames, {} if truth is None else {n: truth.picture(n) for n in picks}, windows
        ),
        networks=judges.networks.score(path, [part[::LOOK_EVERY] for part in windows], pairs),
    )


def _windows(num_frames: int) -> tuple[range, range]:
    """Numbers of the frames of the first and the last window."""
    length = min(WINDOW_FRAMES, num_frames // 2)
    return range(length), range(num_frames - length, num_frames)


def _located(
    frames: Frames, truth: SceneTruth, lens: NDArray[np.float32], picks: Sequence[int]
) -> CameraFollowing:
    """Locate frames in the place itself and compare with where they should be."""
    found = [locate(frames[n], truth.views(n), lens) for n in picks]
    return compare_poses(found, truth.c2w[list(picks)])


def _sharpness_lost(frames: Frames, truth: Mapping[int, Frames], windows: Sequence[range]) -> float:
    """Share of sharpness that the last window has less than the first, beside the truth at its frames where there is one."""
    ends = []
    for part in windows:
        known = [n for n in part if n in truth]
        own = sharpness(frames[known] if known else frames[part.start : part.stop : LOOK_EVERY])
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
    folders: Sequence[Path],
    seconds: float,
    judges: Judges,
    earlier: Mapping[str, FilmScore],
    save: Callable[[Sequence[FilmScore]], None],
    advance: Callable[[int], None],
) -> tuple[list[FilmScore], list[str]]:
    """Score the videos NAME.mp4 of folders, scene by scene, so that the truth is drawn once for all.

    Args:
        earlier: What an earlier call scored, by video.
        save: Told of all scores after each scene.

    Returns:
        Scores, folder by folder, and one sentence for each video that is missing or broken.

    Raises:
        ValueError: A folder has no video at all.
    """
    made_by = film_identities(scenes, folders, seconds, judges)
    known, missing = dict(earlier), []
    for done, scene in enumerate(scenes, 1):
        truths: Truths = {}
        for folder in folders:
            path = film_path(folder, scene)
            key = film_key(folder, scene)
            try:
                if not path.is_file():
                    raise ValueError(f"there is no video {path}")
                if key not in known:
                    score = score_film(scene, path, seconds, judges, truths)
                    known[key] = replace(score, made_by=made_by[key])
            except ValueError as error:
                missing.append(str(error))
        save(list(known.values()))
        advance(done)
    for folder in folders:
        if not any(film_key(folder, scene) in known for scene in scenes):
            raise ValueError(
                f"{folder} holds no video of the scenes; name them after scenes, such as {scenes[0].name}.mp4"
            )
    keys = [film_key(folder, scene) for folder in folders for scene in scenes]
    return [known[key] for key in keys if key in known], missing
