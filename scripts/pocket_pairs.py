"""Pairs for `flaneur train refiner --data`, from the rollouts that a run of `flaneur train pocket` has made.

python scripts/pocket_pairs.py RUN WORLDS -o FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from engine.files.world import read_world
from training.data.refiner_pairs import SUFFIX, PairBatch, save_pairs


def main() -> None:
    """Write a file for each file of rollouts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of the pocket's recipe")
    parser.add_argument(
        "worlds", type=Path, help="worlds of the same generator, for the text of their places"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    worlds = {file.stem: read_world(file) for file in sorted(options.worlds.glob("*.world"))}
    rng = np.random.default_rng(0)
    for file in sorted((options.run / "data").glob("*.rollouts.safetensors")):
        stem = file.name.split(".")[0]
        (latents,) = (options.run / "data").glob(f"{stem}.*.latents.safetensors")
        made, target = load_file(file)["latents"], load_file(latents)["latents"]
        # Generated places have a text that no world shows: any will do for them.
        place = worlds.get(stem.split("-")[0]) or list(worlds.values())[rng.integers(len(worlds))]
        text = torch.from_numpy(place.text).expand(len(made), -1, -1)
        mask = torch.from_numpy(place.text_mask).expand(len(made), -1)
        save_pairs(options.output / f"{stem}{SUFFIX}", PairBatch(made, target, text, mask))


if __name__ == "__main__":
    main()
