"""Make the README's second moving picture: a photo becomes a world, which is walked into, around in and out of again.

python scripts/photo_walk.py photo.jpg docs/photo-world.webp
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.camera.integrator import rotation_y
from engine.files.world import read_world
from engine.machine.assets import find_bundle
from engine.session.opening import open_session
from evaluation.rollouts import stream
from scripts.moving_picture import save_animation

SECONDS = 8.0
TURN_DEG, FORWARD, SIDE = 45.0, 0.8, 0.4
"""The widest look aside; the way forward and aside in the photo's own depth, m."""


def swing(c2w: NDArray[np.float64], num_frames: int) -> NDArray[np.float64]:
    """Poses [F, 4, 4] that go forward and aside, look right and left, and end where they began."""
    poses = np.repeat(c2w[None], num_frames, 0)
    for pose, share in zip(poses, np.linspace(0, 1, num_frames), strict=True):
        yaw = np.radians(TURN_DEG) * np.sin(2 * np.pi * share)
        step = np.array([SIDE * np.sin(4 * np.pi * share), 0, FORWARD * np.sin(np.pi * share)])
        pose[:3, 3] += pose[:3, :3] @ step
        pose[:3, :3] = pose[:3, :3] @ rotation_y(yaw)
    return poses


def main(photo: Path, destination: Path) -> None:
    """Write an animated WebP."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photo.world"
        create = [sys.executable, "-m", "cli.app", "world", "create", photo, "-o", file]
        subprocess.run(create, check=True)
        world = read_world(file)
    session = open_session(world, find_bundle("pocket"))
    chunk = session.frames_per_chunk
    poses = swing(world.c2w, round(SECONDS * session.fps / chunk) * chunk)
    made = stream(session, np.concatenate([world.c2w[None], poses]), seed=0)
    save_animation([frame for frames in made for frame in frames], destination)
    session.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
