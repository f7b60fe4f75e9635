"""Make the README's moving picture: walks through the shipped worlds, the truth on the left, generated on the right.

python scripts/moving_picture.py docs/walk.webp
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import holodeck
from engine.files.bundle import open_bundle
from engine.files.world import read_world
from engine.machine.assets import bundles_dir, worlds_dir
from engine.session.opening import open_session
from engine.types import CameraTrack
from holodeck.walks import walk

WORLDS = ("town", "garden", "colonnade", "night")
SECONDS, SEED = 3.0, 90001
QUALITY = 80


def main(destination: Path) -> None:
    """Write an animated WebP."""
    bundle = open_bundle(bundles_dir() / "pocket")
    pictures: list[NDArray[np.uint8]] = []
    for name in WORLDS:
        world = read_world(worlds_dir() / f"{name}.world")
        session = open_session(world, bundle)
        session.reset(0)
        chunk, place = session.frames_per_chunk, holodeck.get_place(name)
        poses = walk(place, 1 + round(SECONDS * session.fps / chunk) * chunk, round(session.fps), SEED)
        lens = np.repeat(world.intrinsics[None], chunk, 0)
        for start in range(1, len(poses), chunk):
            made = session.step(CameraTrack(poses[start : start + chunk], lens))
            for frame, c2w in zip(made.frames, made.c2w, strict=True):
                truth = place.render(c2w, world.intrinsics, *session.frame_size)
                pictures.append(np.hstack([truth, frame]))
        session.close()
    save_animation(pictures, destination)


def save_animation(frames: Sequence[NDArray[np.uint8]], destination: Path) -> None:
    """Write frames [H, W, 3] as a WebP that repeats, sixteen a second."""
    first, *others = map(Image.fromarray, frames)
    first.save(
        destination, save_all=True, append_images=others, duration=62, loop=0, quality=QUALITY, method=4
    )
    print(f"{destination}: {len(frames)} frames, {destination.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
