"""Structure from motion by pycolmap: features, matches, and incremental or global mapping of one folder of pictures.

One thread and fixed seeds throughout: the same frames give the same cameras.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from evaluation.poses.estimator import Frames, Poses

SEED = 0
STDERR = 2
OFFSETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""How far apart frames are that are matched, counted in the frames that are taken."""
NEAR = 8
"""Frames as far apart are neighbours; all others are matched to close loops."""
MAX_FEATURES = 2048
ENOUGH = 0.9
"""Share of frames in one model that ends the search for a better beginning."""
LEAST_INIT_ANGLE_DEG = 3.0
"""Between the rays of the pair that an incremental mapping begins with, where another model chose the pair."""
LEAST_INLIERS = 30, 12
"""Of the first pair and of every further frame: below COLMAP's own, since what is painted or generated has few corners. A frame
that is registered wrongly for it shows when two mappings are compared."""
FULL_ANGLE_DEG = 10.0
"""Between rays; wider pairs are no better to begin with."""
FIRST_FOCAL_RATIO = 0.8
"""Focal length over the longer side that the search begins with: 64 degrees across."""
FOCAL_RATIOS = (0.25, 2.5)
"""Between which it must end; the bounds of the field of view lie within."""
ANGLE_SAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Model:
    """What one mapping came to: its largest model."""

    frames: NDArray[np.int64]
    """Numbers of the frames that are in it, rising, [N]."""
    c2w: Poses
    """[N, 4, 4], in any unit."""
    lens: NDArray[np.float64]
    """fx, fy, cx, cy in pixels, [4]."""
    reprojection_px: float
    parallax_deg: float
    """Median angle between the first and the last ray to a point."""
    points: NDArray[np.float64]
    """What its frames see: number of the frame, column and row in pixels, depth, [M, 4]."""
    shared: NDArray[np.float64]
    """How much two frames have in common to begin with: points, each weighted by its angle, [N, N]."""

    def only(self, rows: NDArray[np.int64]) -> Model:
        """Return the model of some of its frames, by their place in it."""
        return replace(
            self, frames=self.frames[rows], c2w=self.c2w[rows], shared=self.shared[np.ix_(rows, rows)]
        )


class MatchedFrames:
    """A folder of frames with features and matches, from which models are made."""

    def __init__(self, folder: Path, numbers: Sequence[int]) -> None:
        self.folder, self.numbers = folder, numbers

    @property
    def database(self) -> Path:
        return self.folder / "all.db"

    def incremental(self, first: Model | None = None, neighbours_only: bool = False) -> Model | None:
        """Map frame by frame; None where not even two frames fit one another.

        Args:
            first: Another model of these frames, which says only where to begin: with which pair and focal length.
            neighbours_only: Leave out all matches of frames that are far apart in time.
        """
        path = self.folder / "copy.db"
        shutil.copyfile(self.database, path)
        if neighbours_only:
            with pycolmap.Database.open(path) as database:
                _drop_far_pairs(database)
        found = None if first is None else self._mapped(path, first)
        if found is None or len(found.frames) < ENOUGH * len(self.numbers):
            # What the other model begins with may be its fault.
            own = self._mapped(path, None)
            if own is not None and (found is None or len(own.frames) > len(found.frames)):
                found = own
        return found

    def _mapped(self, path: Path, first: Model | None) -> Model | None:
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = 1, SEED
        options.extract_colors, options.multiple_models = False, False
        options.mapper.num_threads, options.mapper.random_seed = 1, SEED
        options.triangulation.random_seed = SEED
        options.mapper.init_min_num_inliers, options.mapper.abs_pose_min_num_inliers = LEAST_INLIERS
        options.min_focal_length_ratio, options.max_focal_length_ratio = FOCAL_RATIOS
        if first is not None:
            with pycolmap.Database.open(path) as database:
                self._begin_with(first, database, options)
        with TemporaryDirectory(dir=self.folder) as output, _silenced():
            found = pycolmap.incremental_mapping(path, self.folder, output, options)
            if found and first is not None:
                _adjust(found)
        return _largest(found) if found else None

    def _begin_with(self, model: Model, database: Any, options: Any) -> None:
        """Let a mapping begin with a model's focal length and its best pair."""
        camera = database.read_all_cameras()[0]
        if camera.model.name == "SIMPLE_PINHOLE":
            camera.focal_length = float(model.lens[0])
            database.update_camera(camera)
        # With few points the first adjustments would run away with the focal length; it is set free at the end.
        options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = False
        if pair := _best_pair(model, database):
            options.init_image_id1, options.init_image_id2 = pair
            options.mapper.init_min_tri_angle = LEAST_INIT_ANGLE_DEG

    def all_at_once(self) -> Model | None:
        """Map globally; None where nothing came of it."""
        options = pycolmap.GlobalPipelineOptions()
        options.num_threads, options.random_seed = 1, SEED
        options.mapper.num_threads, options.mapper.random_seed = 1, SEED
        options.mapper.rotation_averaging.random_seed = SEED
        options.mapper.global_positioning.random_seed = SEED
        with TemporaryDirectory(dir=self.folder) as output, _silenced():
            try:
                found = pycolmap.global_mapping(self.database, self.folder, output, options)
            except RuntimeError:
                # Too few pairs to average rotations of.
                return None
        return _largest(found) if found else None


def _best_pair(model: Model, database: Any) -> tuple[int, int] | None:
    """Ids of the two pictures that a mapping had best begin with: of those that were matched, what have most in common."""
    row = {number: n for n, number in enumerate(model.frames)}
    rows = {image_id: row[number] for image_id, number in _numbers(database).items() if number in row}
    best, most = None, 0.0
    for pair_id, inliers in zip(*database.read_two_view_geometry_num_inliers(), strict=True):
        pair = pycolmap.pair_id_to_image_pair(pair_id)
        if inliers < LEAST_INLIERS[0] or any(image_id not in rows for image_id in pair):
            continue
        first, second = sorted(rows[image_id] for image_id in pair)
        if model.shared[first, second] > most:
            best, most = pair, float(model.shared[first, second])
    return best


def _numbers(database: Any) -> dict[int, int]:
    """Number of the frame of each picture id."""
    return {image.image_id: int(Path(image.name).stem) for image in database.read_all_images()}


def _drop_far_pairs(database: Any) -> None:
    number = _numbers(database)
    ids = sorted(number, key=lambda image_id: number[image_id])
    for n, first in enumerate(ids):
        for second in ids[n + NEAR + 1 :]:
            if database.exists_two_view_geometry(first, second):
                database.delete_two_view_geometry(first, second)


@contextmanager
def _silenced() -> Iterator[None]:
    """Let this process write nothing to stderr: pycolmap reports every step there, whatever its logging is told."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


@contextmanager
def matched(
    frames: Frames, numbers: Sequence[int], lens: NDArray[np.float64] | None
) -> Iterator[MatchedFrames]:
    """Find and match features of some frames, in a folder that is gone afterwards.

    Args:
        frames: RGB, [F, H, W, 3].
        numbers: Of the frames that are taken.
        lens: fx, fy, cx, cy in pixels, [4]; None where the focal length is to be found.
    """
    pycolmap.set_random_seed(SEED)
    with TemporaryDirectory(prefix="flaneur-poses-") as name:
        folder = Path(name)
        pictures = folder / "pictures"
        pictures.mkdir()
        for number in numbers:
            cv2.imwrite(str(pictures / _file(number)), frames[number][..., ::-1])
        found = MatchedFrames(folder, numbers)
        with _silenced():
            _extract(found.database, pictures, lens)
            _match(found.database, numbers)
        yield found


def _extract(database: Path, pictures: Path, lens: NDArray[np.float64] | None) -> None:
    reader = pycolmap.ImageReaderOptions()
    reader.default_focal_length_factor = FIRST_FOCAL_RATIO
    reader.camera_model = "SIMPLE_PINHOLE" if lens is None else "PINHOLE"
    if lens is not None:
        reader.camera_params = ",".join(repr(float(value)) for value in lens)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = 1
    extraction.sift.max_num_features = MAX_FEATURES
    pycolmap.extract_features(
        database,
        pictures,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )


def _match(database: Path, numbers: Sequence[int]) -> None:
    matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    matching.num_threads = 1
    verification.ransac.random_seed = SEED
    shared: dict[str, Any] = {
        "matching_options": matching,
        "verification_options": verification,
        "device": pycolmap.Device.cpu,
    }
    pairs = [(n, n + offset) for n in range(len(numbers)) for offset in OFFSETS if n + offset < len(numbers)]
    listed = database.with_name("pairs.txt")
    listed.write_text("".join(f"{_file(numbers[a])} {_file(numbers[b])}\n" for a, b in pairs))
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listed
    pycolmap.match_image_pairs(database, pairing_options=pairing, **shared)


def _file(number: int) -> str:
    return f"{number:06d}.png"


def _adjust(models: dict[int, Any]) -> None:
    """Refine everything, the lens too unless it was given."""
    options = pycolmap.BundleAdjustmentOptions()
    options.ceres.solver_options.num_threads = 1
    options.print_summary = False
    options.refine_principal_point = False
    for model in models.values():
        options.refine_focal_length = next(iter(model.cameras.values())).model.name == "SIMPLE_PINHOLE"
        pycolmap.bundle_adjustment(model, options)


def _largest(models: dict[int, Any]) -> Model:
    model = max(models.values(), key=lambda each: each.num_reg_images())
    images = {int(Path(image.name).stem): image for image in model.images.values() if image.has_pose}
    frames = sorted(images)
    c2w = np.tile(np.eye(4), (len(frames), 1, 1))
    for pose, number in zip(c2w, frames, strict=True):
        pose[:3] = images[number].cam_from_world().inverse().matrix()
    camera = next(iter(model.cameras.values()))
    matrix = camera.calibration_matrix()
    return Model(
        frames=np.array(frames, np.int64),
        c2w=c2w,
        lens=np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]),
        reprojection_px=float(model.compute_mean_reprojection_error()),
        points=_seen_points(model, images),
        **_angles(model, [images[number] for number in frames]),
    )


def _seen_points(model: Any, images: dict[int, Any]) -> NDArray[np.float64]:
    """Number of the frame, column, row and depth of every point in every picture, [M, 4]."""
    rows = []
    for number in sorted(images):
        image = images[number]
        seen = image.get_observation_points2D()
        if not seen:
            continue
        pose = image.cam_from_world().matrix()
        places = np.array([model.points3D[each.point3D_id].xyz for each in seen])
        depth = places @ pose[2, :3] + pose[2, 3]
        pixels = np.array([each.xy for each in seen])
        rows.append(np.column_stack([np.full(len(seen), float(number)), pixels, depth]))
    return np.concatenate(rows) if rows else np.zeros((0, 4))


def _angles(model: Any, images: Sequence[Any]) -> dict[str, Any]:
    """Under which angles points are seen: median from end to end of their tracks, and what each two pictures share."""
    row = {image.image_id: n for n, image in enumerate(images)}
    centres = np.array([image.projection_center() for image in images])
    shared = np.zeros((len(images), len(images)))
    ends = []
    points = list(model.points3D.values())
    for point in points[:: max(1, len(points) // ANGLE_SAMPLES)]:
        rows = np.array(sorted({row[element.image_id] for element in point.track.elements}))
        rays = centres[rows] - point.xyz
        rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
        angles = np.degrees(np.arccos(np.clip(rays @ rays.T, -1.0, 1.0)))
        shared[np.ix_(rows, rows)] += np.minimum(angles / FULL_ANGLE_DEG, 1.0)
        ends.append(angles[0, -1])
    return {"parallax_deg": float(np.median(ends)) if ends else 0.0, "shared": np.triu(shared, 1)}
