"""Released configs and weights of the refiner and its connectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.refiner import (
    ConnectorConfig,
    Refiner,
    RefinerConfig,
    TextConnectors,
    connectors_from_diffusers,
    from_diffusers,
    load_connectors,
    load_refiner,
    released_connectors,
    released_refiner,
)
from model.refiner import checkpoint as checkpoint_module
from model.refiner.checkpoint import is_audio
from tests.refiner_cases import connector_config, randomise, refiner_config, small_refiner

SOUND = {
    "audio_proj_in.weight": torch.zeros(8, 4),
    "av_cross_attn_video_scale_shift.linear.bias": torch.zeros(128),
    "transformer_blocks.0.video_a2v_cross_attn_scale_shift_table": torch.zeros(5, 32),
    "transformer_blocks.0.audio_to_video_attn.to_q.weight": torch.zeros(8, 32),
}

INDEX_FILE = "diffusion_pytorch_model.safetensors.index.json"


def small_connectors() -> TextConnectors:
    connectors = TextConnectors(ConnectorConfig.from_dict(connector_config()))
    randomise(connectors, 4)
    return connectors


def write_folder(folder: Path, config: dict[str, Any], shards: Sequence[Mapping[str, Tensor]]) -> None:
    """Write a folder as diffusers does, in one file or with an index over several."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "X", **config}))
    homes = {}
    for number, shard in enumerate(shards, 1):
        name = f"diffusion_pytorch_model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in shard.items()}, folder / name)
        homes |= dict.fromkeys(shard, name)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": homes}))


def halves(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    names = list(weights)
    middle = len(names) // 2
    return [{name: weights[name] for name in part} for part in (names[:middle], names[middle:])]


def same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    weights = theirs.state_dict()
    return ours.state_dict().keys() == weights.keys() and all(
        torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items()
    )


def test_the_released_sizes_give_the_released_numbers_of_parameters():
    with torch.device("meta"):
        refiner, connectors = Refiner(released_refiner()), TextConnectors(released_connectors())
    assert sum(p.numel() for p in refiner.parameters()) == 13_041_520_768
    assert sum(p.numel() for p in connectors.parameters()) == 1_077_004_800


def test_the_released_names_and_shapes_are_diffusers_video_tensors():
    module = pytest.importorskip("diffusers.models.transformers.transformer_sana_wm_refiner")
    connectors = pytest.importorskip("diffusers.pipelines.ltx2.connectors")
    with torch.device("meta"):
        theirs = module.SanaWMLTX2RefinerTransformer3DModel(rope_type="split").state_dict()
        ours = Refiner(released_refiner()).state_dict()
        their_text = connectors.LTX2TextConnectors(rope_type="split").state_dict()
        our_text = TextConnectors(released_connectors()).state_dict()
    assert len(theirs) == 3510
    for mine, whole in ((ours, theirs), (our_text, their_text)):
        video = {name: tensor.shape for name, tensor in whole.items() if not is_audio(name)}
        assert {name: tensor.shape for name, tensor in mine.items()} == video


def test_the_rope_type_is_read_and_its_default_is_that_of_the_class():
    assert RefinerConfig.from_dict({}).rope_type == "interleaved"
    assert (
        RefinerConfig.from_dict({"rope_type": "split", "audio_attention_head_dim": 64}) == released_refiner()
    )
    assert ConnectorConfig.from_dict({"rope_type": "split"}) == released_connectors()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_attn_mod": True}, "cross_attn_mod"),
        ({"perturbed_attn": True}, "perturbed_attn"),
        ({"use_prompt_embeddings": False}, "use_prompt_embeddings"),
        ({"use_keyframes_abs_pos_embedding": True}, "use_keyframes_abs_pos_embedding"),
        ({"patch_size": 2}, "patch_size"),
        ({"rope_type": "spiral"}, "spiral"),
        ({"num_layers": 0}, "num_layers"),
        ({"attention_head_dim": 7, "cross_attention_dim": 28}, "even"),
        ({"cross_attention_dim": 64}, "cross_attention_dim"),
        ({"out_channels": 3}, "channels in"),
        ({"vae_scale_factors": [8, 32]}, "vae_scale_factors"),
        ({"rope_theta": "much"}, "rope_theta"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_other_variants_are_refused_by_name(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        RefinerConfig.from_dict(refiner_config(**changes))


@pytest.mark.parametrize("changes", [{"per_modality_projections": True}, {"proj_bias": True}, {"wings": 2}])
def test_other_connectors_are_refused_by_name(changes: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ConnectorConfig.from_dict(connector_config(**changes))


def test_a_sharded_folder_loads_and_counts_what_only_sound_needs(tmp_path: Path):
    refiner = small_refiner(torch.float32)
    weights = {**refiner.state_dict(), **SOUND}
    write_folder(tmp_path / "refiner_diffusers" / "transformer", refiner_config(), halves(weights))
    for path in (tmp_path / "refiner_diffusers", tmp_path / "refiner_diffusers" / "transformer"):
        loaded = load_refiner(path)
        assert same_weights(loaded.model, refiner)
        assert loaded.num_audio_tensors == len(SOUND)
    assert load_refiner(path, torch.bfloat16).model.dtype == torch.bfloat16


def test_a_connector_folder_loads(tmp_path: Path):
    connectors = small_connectors()
    weights = {**connectors.state_dict(), "audio_connector.learnable_registers": torch.zeros(4, 24)}
    write_folder(tmp_path / "connectors", connector_config(), halves(weights))
    loaded = load_connectors(tmp_path)
    assert same_weights(loaded.model, connectors)
    assert loaded.num_audio_tensors == 1


def original_name(name: str) -> str:
    """Name a tensor as the first release does."""
    if name.startswith("video_connector."):
        name = name.replace("video_connector.", "video_embeddings_connector.", 1)
        name = name.replace("transformer_blocks.", "transformer_1d_blocks.")
    for ours, theirs in (
        ("proj_in.", "patchify_proj."),
        ("time_embed.", "adaln_single."),
        ("text_proj_in.", "text_embedding_projection.aggregate_embed."),
    ):
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    return name.replace("norm_q.", "q_norm.").replace("norm_k.", "k_norm.")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_the_single_file_of_the_first_release_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
):
    refiner, connectors = small_refiner(torch.float32), small_connectors()
    monkeypatch.setattr(checkpoint_module, "released_refiner", lambda: refiner.config)
    monkeypatch.setattr(checkpoint_module, "released_connectors", lambda: connectors.config)
    sound = {
        "audio_adaln_single.linear.bias": torch.zeros(3),
        "av_ca_v2a_gate_adaln_single.linear.bias": torch.zeros(3),
        "transformer_blocks.0.scale_shift_table_a2v_ca_video": torch.zeros(5, 32),
        "audio_embeddings_connector.learnable_registers": torch.zeros(4, 24),
    }
    weights = {original_name(n): t for n, t in (refiner.state_dict() | connectors.state_dict()).items()}
    file = tmp_path / "refiner.safetensors"
    save_file({prefix + n: t.contiguous() for n, t in (weights | sound).items()}, file)
    loaded = load_refiner(file)
    assert same_weights(loaded.model, refiner)
    assert loaded.num_audio_tensors == len(sound)
    assert same_weights(load_connectors(file).model, connectors)


def test_what_is_missing_left_over_or_of_another_shape_is_named():
    weights = dict(small_refiner(torch.float32).state_dict())
    del weights["proj_in.bias"]
    weights["surprise.weight"] = torch.zeros(3)
    weights["proj_out.bias"] = torch.zeros(5)
    weights["scale_shift_table"] = torch.zeros(2, 32, dtype=torch.int64)
    with pytest.raises(ValueError, match="weights do not fit the refiner") as caught:
        from_diffusers(refiner_config(), weights)
    for words in (
        "missing: proj_in.bias",
        "left over: surprise.weight",
        "proj_out.bias ((5,) instead of (6,))",
        "no floating-point numbers: scale_shift_table",
    ):
        assert words in str(caught.value)


def test_connectors_report_what_is_missing_too():
    with pytest.raises(ValueError, match=r"missing: text_proj_in\.weight.* and \d+ more"):
        connectors_from_diffusers(connector_config(), {})


def test_a_folder_that_cannot_be_read_is_refused_with_a_remedy(tmp_path: Path):
    with pytest.raises(ValueError, match=r"give a folder with its config\.json"):
        load_refiner(tmp_path)
    weights = small_refiner(torch.float32).state_dict()
    write_folder(tmp_path / "a", refiner_config(), halves(weights))
    shard = sorted((tmp_path / "a").glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(ValueError, match="fetch the file again"):
        load_refiner(tmp_path / "a")
    shard.unlink()
    with pytest.raises(ValueError, match="00002-of-00002"):
        load_refiner(tmp_path / "a")
    (tmp_path / "a" / INDEX_FILE).write_text(json.dumps({"weight_map": {"x": "../../etc/x"}}))
    with pytest.raises(ValueError, match="outside its folder"):
        load_refiner(tmp_path / "a")
    (tmp_path / "a" / INDEX_FILE).write_text("[]")
    with pytest.raises(ValueError, match="fetch the index again"):
        load_refiner(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"give the config\.json of the refiner"):
        load_refiner(tmp_path / "a")
