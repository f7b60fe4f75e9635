"""Pairs for `flaneur train refiner --data`, from the rollouts that a run of `flaneur train pocket` has made.

python scripts/pocket_pairs.py RUN ASSETS -o FOLDER [--more N]

`--more` makes clips of the shipped worlds besides, N files for each: walks that the generator was not trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.files.world import World, read_world
from holodeck import get_place
from model.checkpoint import load_checkpoint
from model.conditioning import Conditioning
from training.data.latents import load_autoencoder
from training.data.refiner_pairs import SUFFIX, PairBatch, save_pairs
from training.pocket.clips import ClipSettings, make_clips
from training.pocket.generator import LatentClips, encode_clips
from training.pocket.own_history import roll_out
from training.pocket.publish import CHECKPOINTS, WORLD_FILE, WORLDS
from training.pocket.recipe import PocketRecipe

SHARES = {"whole": 0.7, "half": 0.1, "sector": 0.1, "grown": 0.1}
"""How often each part of a world's memory is shown in clips made here; mostly all of it, as in a walk."""
CLIPS_PER_FILE, FIRST_SEED = 16, 100


def main() -> None:
    """Write a file for each file of rollouts, and those that are asked for besides."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of the pocket's recipe")
    parser.add_argument("assets", type=Path, help="folder that it published, for weights and worlds")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--more", type=int, default=0, help="files to make besides for each world")
    options = parser.parse_args()
    worlds = {file.stem: read_world(file) for file in sorted((options.assets / WORLDS).glob("*.world"))}
    for stem, batch in stored(options.run / "data", worlds):
        save_pairs(options.output / f"{stem}{SUFFIX}", batch)
    for seed in range(FIRST_SEED, FIRST_SEED + options.more):
        for name, world in worlds.items():
            path = options.output / f"{name}-{seed:05d}{SUFFIX}"
            if not path.exists():
                save_pairs(path, fresh(world, options.assets / CHECKPOINTS, seed))


def stored(data: Path, worlds: dict[str, World]) -> Iterator[tuple[str, PairBatch]]:
    """Read what the run has made, file by file."""
    rng = np.random.default_rng(0)
    for file in sorted(data.glob("*.rollouts.safetensors")):
        stem = file.name.split(".")[0]
        (latents,) = data.glob(f"{stem}.*.latents.safetensors")
        clips = load_file(latents)
        # Generated places have a text that no world shows: any will do for them.
        world = worlds.get(stem.split("-")[0]) or list(worlds.values())[rng.integers(len(worlds))]
        text = text_of(world, len(clips["latents"]))
        yield stem, PairBatch(load_file(file)["latents"], clips["latents"], *text, clips["memory"])


@torch.no_grad()
def fresh(world: World, checkpoints: Path, seed: int) -> PairBatch:
    """Render clips of a world from its own memory, and let the generator make them again."""
    settings = ClipSettings()
    rendered = make_clips(
        get_place(str(world.place)), world.keyframes, SHARES, CLIPS_PER_FILE, settings, seed
    )
    clips = encode_clips(load_autoencoder(checkpoints), rendered, 0)
    text = text_of(world, len(clips.latents))
    return PairBatch(_made(clips, text, checkpoints, settings, seed), clips.latents, *text, clips.memory)


def _made(
    clips: LatentClips, text: tuple[Tensor, Tensor], checkpoints: Path, settings: ClipSettings, seed: int
) -> Tensor:
    generator = load_checkpoint(checkpoints / WORLD_FILE, dtype=torch.float32)
    noise = torch.randn(clips.latents.shape, generator=torch.Generator().manual_seed(seed))
    lens = torch.tensor(settings.intrinsics).expand(*clips.c2w.shape[:2], 4)
    start = torch.zeros(len(clips.latents), dtype=torch.int64)
    asked = Conditioning(*text, clips.c2w, lens, start, clips.memory)
    return roll_out(generator, clips.latents[:, :, :1], noise, asked, PocketRecipe().timesteps)


def text_of(world: World, num_clips: int) -> tuple[Tensor, Tensor]:
    """The world's text and its mask, for each clip."""
    text, mask = torch.from_numpy(world.text), torch.from_numpy(world.text_mask)
    return text.expand(num_clips, -1, -1), mask.expand(num_clips, -1)


if __name__ == "__main__":
    main()
