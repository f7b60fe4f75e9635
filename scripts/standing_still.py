"""How much a picture changes while the camera stands still, and whether a turn on the spot brings the first view back.

python scripts/standing_still.py [ASSETS]

Grey levels of mean change from frame to frame, from a second after the camera stopped on; and for unseen places that begin with
one picture, the PSNR of the first view after a turn of 360 degrees, as generated.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import holodeck
from engine.files.bundle import Bundle, open_bundle
from engine.files.world import World
from engine.machine.assets import assets_dir
from engine.session.opening import open_session
from engine.session.picture_world import depth_teller
from engine.session.protocol import Session
from engine.types import CameraTrack
from evaluation.worlds import fitting_worlds, open_autoencoder, unseen_worlds
from holodeck.walks import walk

SEED, WALK_CHUNKS, STILL_CHUNKS, SETTLED_CHUNKS = 90001, 8, 12, 4
TURN_S = 6.0


@dataclass(frozen=True)
class Rest:
    """Mean absolute change in grey levels."""

    at_chunks: float
    """From the last frame of a chunk to the first of the next."""
    within: float


def standing_still(world: World, bundle: Bundle) -> Rest:
    """Walk two seconds and stand."""
    session = open_session(world, bundle)
    session.reset(0)
    size = session.frames_per_chunk
    poses = walk(holodeck.get_place(str(world.place)), 1 + size * WALK_CHUNKS, round(session.fps), SEED)
    frames = [_step(session, poses[1 + start : 1 + start + size]) for start in range(0, len(poses) - 1, size)]
    still = [_step(session, np.repeat(poses[-1:], size, 0)) for _ in range(STILL_CHUNKS)]
    session.close()
    shown = np.concatenate([frames[-1], *still])[size * (1 + SETTLED_CHUNKS) - 1 :].astype(np.float32)
    change = np.abs(np.diff(shown, axis=0)).mean((1, 2, 3))
    return Rest(float(change[::size].mean()), float(np.delete(change, np.s_[::size]).mean()))


def view_after_a_turn(world: World, bundle: Bundle) -> float:
    """Turn once around from a world's first frame; PSNR of the last frame against the first, dB."""
    session = open_session(world, bundle)
    session.reset(0)
    size = session.frames_per_chunk
    count = round(TURN_S * session.fps / size) * size
    poses = np.repeat(world.c2w[None], count, 0)
    for number in range(count):
        turn, _ = cv2.Rodrigues(np.array([0.0, 2 * np.pi * (number + 1) / count, 0.0]))
        poses[number, :3, :3] = world.c2w[:3, :3] @ turn
    shown = [_step(session, poses[start : start + size])[-1] for start in range(0, count, size)]
    session.close()
    error = np.square(shown[-1].astype(np.float64) - world.first_frame).mean()
    return float(10 * np.log10(255**2 / error))


def _step(session: Session, c2w: NDArray[np.float64]) -> NDArray[np.uint8]:
    return session.step(CameraTrack(c2w, np.repeat(session.world.intrinsics[None], len(c2w), 0))).frames


def main(assets: Path) -> None:
    """Print a table."""
    bundle = open_bundle(assets / "bundles" / "pocket")
    worlds = fitting_worlds(bundle.spec.weights_sha256, assets / "worlds")
    autoencoder = open_autoencoder(assets / "checkpoints", bundle.spec)
    print(
        "| world | still, where a chunk begins | within a chunk | unseen twin, first view after 360 degrees |"
    )
    print("|---|---|---|---|")
    for world, (twin, _) in zip(
        worlds, unseen_worlds(worlds, worlds, autoencoder, depth_teller(bundle)), strict=True
    ):
        rest, back = standing_still(world, bundle), view_after_a_turn(twin, bundle)
        print(f"| {world.name} | {rest.at_chunks:.2f} | {rest.within:.2f} | {back:.1f} dB |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else assets_dir())
