"""Cameras by VIPE, whose program runs in an environment of its own; built, not yet run on a GPU."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.files.array_files import read_npz
from engine.files.video import open_video
from evaluation.poses.estimator import CameraEstimate, Frames, PosesRefused
from evaluation.poses.interpolation import interpolate_poses
from evaluation.poses.pi3x import Pi3X

CLIP = "clip"
MAX_ELEMENTS = 1 << 24
MESSAGE_CHARS = 200


@dataclass(frozen=True)
class Vipe:
    """The program `vipe`."""

    program: str = "vipe"
    """By its name on the path, or where it lies in its environment."""
    pipeline: str = "default"
    keyframe_depth: Pi3X | None = None
    """Tells the depth that gives poses their scale; without it the program's own unit is taken for the metre."""
    timeout_s: float = 3600.0
    name: str = "VIPE"
    needs_gpu: bool = True

    def estimate(self, frames: Frames, fps: float, lens: NDArray[np.float64] | None = None) -> CameraEstimate:
        """Recover cameras and a lens for every frame; a lens that is known is not told to the program."""
        with tempfile.TemporaryDirectory(prefix="flaneur-vipe-") as name:
            folder = Path(name)
            height, width = frames.shape[1:3]
            with open_video(folder / f"{CLIP}.mp4", (width, height), fps) as writer:
                writer.write(frames)
            self._run(folder)
            numbers, c2w = _read(folder / "pose" / f"{CLIP}.npz", (4, 4))
            seen, lenses = _read(folder / "intrinsics" / f"{CLIP}.npz", (4,))
        if len(numbers) < 2 or numbers[-1] >= len(frames):
            raise PosesRefused(f"VIPE gives poses of {len(numbers)} frames for {len(frames)}")
        poses = interpolate_poses(numbers, c2w, len(frames))
        intrinsics = np.stack([np.interp(np.arange(len(frames)), seen, column) for column in lenses.T], 1)
        depths = None
        if self.keyframe_depth is not None:
            depths = self.keyframe_depth.depths_of(frames, fps, poses, intrinsics)
        return CameraEstimate(poses, intrinsics, self.pipeline, is_metric=True, depths=depths)

    def _run(self, folder: Path) -> None:
        video = folder / f"{CLIP}.mp4"
        command = [self.program, "infer", str(video), "--output", str(folder), "--pipeline", self.pipeline]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout_s)
        except OSError as error:
            raise ValueError(
                f"cannot run {self.program} ({error.strerror}); install VIPE in an environment of its own and name its "
                "program with --vipe, or take --estimator pycolmap"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise PosesRefused(f"VIPE took over {self.timeout_s:.0f} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise PosesRefused(f"VIPE failed: {last[:MESSAGE_CHARS]}")


def _read(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of frames [N] and what is told of each, [N, *shape]."""
    try:
        arrays = read_npz(path, ("inds", "data"), (), MAX_ELEMENTS)
    except (ValueError, OSError) as error:
        raise PosesRefused(f"VIPE left no {path.parent.name} behind ({error})") from error
    numbers, data = arrays["inds"].astype(np.int64), arrays["data"].astype(np.float64)
    if data.shape != (len(numbers), *shape) or not (np.diff(numbers) > 0).all():
        raise PosesRefused(f"VIPE left {path.parent.name} of shape {data.shape} behind")
    return numbers, data
