"""Checkpoints: official names and shapes out, whole files or none, plain words about what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import from_official, load_checkpoint, load_weights, save_checkpoint, to_official
from model.config import tiny
from model.world_model import WorldModel


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(tiny(), fresh=True)


def test_a_checkpoint_comes_back_whole(model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path)
    loaded = load_checkpoint(path)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_files_hold_official_convolution_shapes(model: WorldModel, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "model.safetensors")
    weights = load_file(tmp_path / "model.safetensors")
    size, inner = model.config.hidden_size, model.config.inner_size
    assert weights["x_embedder.proj.weight"].shape == (size, model.config.in_channels, 1, 1, 1)
    assert weights["blocks.0.mlp.inverted_conv.conv.weight"].shape == (2 * inner, size, 1, 1)
    assert weights["blocks.0.mlp.t_conv.weight"].shape == (size, size, 3, 1)
    assert weights["blocks.0.attn.conv_k.weight"].shape == (size, 1, 4)
    assert "blocks.2.attn.conv_k.weight" not in weights


def test_prefixed_official_files_load(model: WorldModel, tmp_path: Path) -> None:
    official = {f"model.{name}": tensor for name, tensor in to_official(model.state_dict()).items()}
    official["model.pos_embed"] = torch.zeros(1, 4, 4)
    assert from_official(official).keys() == model.state_dict().keys()
    path = tmp_path / "official.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in official.items()}, path)
    with pytest.raises(ValueError, match="config"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, config=model.config, dtype=torch.bfloat16)
    assert next(loaded.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("key", ["generator", "state_dict", None])
def test_training_containers_load_without_unpickling(
    model: WorldModel, tmp_path: Path, key: str | None
) -> None:
    weights = {f"model.{name}": tensor for name, tensor in to_official(model.state_dict()).items()}
    weights["model.pos_embed"] = torch.zeros(1, 4, 4)
    path = tmp_path / "model.pt"
    torch.save(weights if key is None else {key: weights, "critic": {"w": torch.zeros(2)}}, path)
    loaded = load_checkpoint(path, config=model.config)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


class Hostile:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    "content", [b"", b"no container", {"generator": Hostile()}, {"generator": {"step": 3}}, [torch.zeros(1)]]
)
def test_unsafe_or_foreign_containers_are_one_sentence(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"checkpoint .*model\.pt") as error:
        load_checkpoint(path, config=tiny())
    assert "\n" not in str(error.value)
    assert "unpickled" not in capsys.readouterr().out


def test_misfits_are_named(model: WorldModel) -> None:
    weights = to_official(model.state_dict())
    del weights["t_block.1.bias"]
    weights["blocks.0.attn.extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"missing t_block\.1\.bias.*unexpected blocks\.0\.attn\.extra"):
        load_weights(model, weights)
    with pytest.raises(ValueError, match=r"final_layer\.linear\.weight is"):
        load_weights(WorldModel(replace(tiny(), in_channels=6)), to_official(model.state_dict()))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_unreadable_files_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read checkpoint"):
        load_checkpoint(path)


def test_a_failed_save_leaves_nothing_behind(
    model: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("model.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
