"""What a stage leaves to the next: its models by role, whole in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from model.autoencoder import Autoencoder, AutoencoderConfig
from model.config import ModelConfig
from training.checkpoint import load_state, save_state
from training.stages.generator import ScenicModel

GENERATOR, CRITIC = "generator", "critic"


def model_path(run_dir: Path, stage: str) -> Path:
    """Where a stage's models lie in a run folder."""
    return run_dir / f"{stage}.model.safetensors"


def save_models(path: Path, stage: str, models: Mapping[str, ScenicModel]) -> None:
    """Write models with their configs, whole or not at all.

    Raises:
        ValueError: The disk is full or the folder cannot be written.
    """
    entries = {
        role: {
            "config": model.world.config.to_dict(),
            "num_scenes": len(model.scenes),
            "weights": dict(model.state_dict()),
        }
        for role, model in models.items()
    }
    save_state(path, {"stage": stage, "models": entries})


def load_models(path: Path) -> dict[str, ScenicModel]:
    """Read what `save_models` wrote.

    Raises:
        ValueError: The file is missing, damaged, or no stage's outcome.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}; name the .model.safetensors file of a stage")
    tree = load_state(path)
    models: dict[str, ScenicModel] = {}
    try:
        for role, entry in tree["models"].items():
            with torch.device("meta"):
                model = ScenicModel(ModelConfig.from_dict(entry["config"]), entry["num_scenes"])
            model.load_state_dict(entry["weights"], assign=True)
            models[role] = model.requires_grad_(True)
        return models
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} holds no models of a stage ({reason}); name another file") from None


def save_autoencoder_file(path: Path, model: Autoencoder) -> None:
    """Write an autoencoder with its config, whole or not at all."""
    save_state(path, {"autoencoder": model.config.to_dict(), "weights": dict(model.state_dict())})


def load_autoencoder_file(path: Path) -> Autoencoder:
    """Read what `save_autoencoder_file` wrote.

    Raises:
        ValueError: The file is damaged, or no autoencoder's.
    """
    tree = load_state(path)
    try:
        model = Autoencoder(AutoencoderConfig.from_dict(tree["autoencoder"]))
        model.load_state_dict(tree["weights"])
        return model.eval()
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} holds no autoencoder ({reason}); delete it to train one again") from None
