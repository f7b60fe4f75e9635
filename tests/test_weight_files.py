"""Weights as people have them: shards, pointers, wrapped names, old files, broken numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.checkpoint import load_checkpoint, to_official
from model.config import tiny
from model.weight_files import bare_name, read_container, read_safetensors, weight_files
from model.world_model import WorldModel

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
WEIGHTS = {"a.weight": torch.arange(4.0), "b.weight": torch.ones(2)}


def write_shards(folder: Path, stem: str = "model", index: bool = True) -> Path:
    """Write each tensor to a shard of its own, and the index that says where each is."""
    homes = {}
    for number, (name, tensor) in enumerate(WEIGHTS.items(), start=1):
        homes[name] = f"{stem}-{number:05}-of-{len(WEIGHTS):05}.safetensors"
        save_file({name: tensor}, folder / homes[name])
    if index:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return folder


@pytest.mark.parametrize("index", [True, False])
def test_shards_are_read_together_with_their_index_or_without(tmp_path: Path, index: bool):
    weights, _ = read_safetensors(write_shards(tmp_path, index=index))
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())
    if index:
        assert read_safetensors(tmp_path / "model.safetensors.index.json")[0].keys() == WEIGHTS.keys()


def test_of_two_variants_the_plain_one_is_read(tmp_path: Path):
    write_shards(tmp_path, "model.fp16")
    write_shards(tmp_path, "model")
    assert {file.name for file in weight_files(tmp_path)} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


def test_what_a_folder_lacks_or_has_too_much_of_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds 0 \.safetensors files"):
        weight_files(tmp_path)
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model-00002-of-00002\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="all shards of one"):
        weight_files(tmp_path)
    save_file(WEIGHTS, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds 2 \.safetensors files"):
        weight_files(tmp_path)


def test_hidden_twins_of_macos_are_no_weights(tmp_path: Path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "._model.safetensors").write_bytes(b"\0\5\26\7" + bytes(100))
    (tmp_path / "._model.safetensors.index.json").write_bytes(b"\0\5\26\7")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.safetensors.index.json"])
def test_a_pointer_that_was_never_fetched_is_told_with_the_remedy(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"Git LFS pointer.*git lfs pull"):
        load_checkpoint(tmp_path / name, tiny())


@pytest.mark.parametrize(
    "name",
    [
        "x.weight",
        "module.x.weight",
        "_orig_mod.x.weight",
        "module._orig_mod.x.weight",
        "_orig_mod.module.x.weight",
        "x._orig_mod.weight",
        "_fsdp_wrapped_module.x._checkpoint_wrapped_module.weight",
    ],
)
def test_names_that_wrappers_made_are_bare_again(name: str):
    assert bare_name(name) == "x.weight"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.model._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_checkpoints_load_from_new_and_old_files(tmp_path: Path, prefix: str, zipped: bool):
    torch.manual_seed(0)
    model = WorldModel(tiny(), fresh=True)
    weights = {prefix + name: tensor for name, tensor in to_official(model.state_dict()).items()}
    torch.save({"model": weights}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(tmp_path / "m.pt", tiny()).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_are_there_twice_are_refused(tmp_path: Path):
    save_file({"w": torch.ones(1), "module.w": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="twice"):
        read_safetensors(tmp_path / "m.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float, dtype: torch.dtype):
    weights = {"good": torch.ones(2), "bad.weight": torch.tensor([1.0, value], dtype=dtype)}
    save_file(weights, tmp_path / "m.safetensors")
    torch.save(weights, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"NaN or infinity in bad\.weight"):
        read_safetensors(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in bad\.weight"):
        read_container(tmp_path / "m.pt")
