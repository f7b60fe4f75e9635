"""What a stage leaves to the next: its models by role, whole in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from engine.files.atomic import replacing
from model.checkpoint import load_checkpoint
from model.config import ModelConfig
from model.refiner import Refiner, save_refiner
from model.refiner.adapter import SCALE, Adapter
from model.vae.guided import GuidedAutoencoder, GuidedAutoencoderConfig
from model.world_model import WorldModel
from training.checkpoint import load_state, save_state
from training.stages.scenic_model import ScenicModel

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
        ValueError: The file is missing, damaged, or no stage's checkpoint.
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


def starting_models(path: Path, config: ModelConfig, num_scenes: int) -> dict[str, ScenicModel]:
    """Read what a stage starts from: another's checkpoint, or a network as it was exported or released.

    Args:
        config: Of a network whose file says none.
        num_scenes: Rows of the table of texts that the data needs; a network on its own gets fresh ones.

    Raises:
        ValueError: The file is missing, damaged, of another size, or was trained for other texts.
    """
    if is_network(path):
        return {GENERATOR: _with_texts(load_checkpoint(path, config, torch.float32), num_scenes)}
    models = load_models(path)
    if GENERATOR not in models:
        raise ValueError(f"{path} holds no generator; name another stage's .model.safetensors file")
    if (rows := len(models[GENERATOR].scenes)) != num_scenes:
        raise ValueError(
            f"{path} knows {rows} texts and the data has {num_scenes}; start from a stage that was trained on this data"
        )
    return models


SIZES = (
    "hidden_size",
    "num_heads",
    "num_layers",
    "text_dim",
    "temporal_stride",
    "latent_height",
    "latent_width",
)
"""Of a model, which no stage changes."""


def check_sizes(path: Path, found: ModelConfig, wanted: ModelConfig, names: Sequence[str]) -> None:
    """Hold the model of a file against the one that is asked for.

    Raises:
        ValueError: They differ in one of the named sizes.
    """
    for name in names:
        if (has := getattr(found, name)) != (should := getattr(wanted, name)):
            raise ValueError(
                f"the model in {path} has {name} {has} and {wanted.name} has {should}; name its own numbers with --config, or "
                "another file with --from"
            )


def _with_texts(world: WorldModel, num_scenes: int) -> ScenicModel:
    """Put a fresh table of texts beside a network."""
    with torch.device("meta"):
        model = ScenicModel(world.config, num_scenes)
    model.world = world.requires_grad_(True)
    model.scenes = nn.Parameter(torch.randn(model.scenes.shape))
    return model


def is_network(path: Path) -> bool:
    """Whether a file holds a network alone; one that is missing or damaged does not."""
    if path.suffix in (".pt", ".pth", ".bin"):
        return path.is_file()
    try:
        with safe_open(path, "pt") as file:
            return "tree" not in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def save_autoencoder_file(path: Path, model: GuidedAutoencoder) -> None:
    """Write an autoencoder with its config, whole or not at all."""
    save_state(path, {"autoencoder": model.config.to_dict(), "weights": dict(model.state_dict())})


def adapter_path(path: Path) -> Path:
    """Where the adapters of a refiner's checkpoint lie, beside it."""
    return path.with_name("refiner.adapter.safetensors")


def save_refiner_stage(path: Path, refiner: Refiner, adapter: Adapter | None) -> None:
    """Write a refiner with its config, and before it its adapters apart, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if adapter is not None:
        with replacing(adapter_path(path)) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in adapter.tensors().items()}
            save_file(tensors, temporary, {SCALE: str(adapter.scale)})
    with replacing(path) as temporary:
        save_refiner(temporary, refiner)


def load_autoencoder_file(path: Path) -> GuidedAutoencoder:
    """Read what `save_autoencoder_file` wrote.

    Raises:
        ValueError: The file is damaged, or no autoencoder's.
    """
    tree = load_state(path)
    try:
        model = GuidedAutoencoder(GuidedAutoencoderConfig.from_dict(tree["autoencoder"]))
        model.load_state_dict(tree["weights"])
        return model.eval()
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} holds no autoencoder ({reason}); delete it to train one again") from None
