"""A layer table is searched under a budget, written, read back and used; files of strangers are refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxscript")
from export.quantization.layers import (
    STEP_RULES,
    SearchedTable,
    find_rule,
    read_table,
    rules_for,
    write_table,
)
from export.quantization.search import search_layers, searched_bytes
from export.scenes import Pass
from model.conditioning import Conditioning
from model.config import tiny
from model.rollout import RolloutState
from model.world_model import WorldModel
from tests.models import random_model
from training.pocket.publish import kept_table

CONFIG = replace(tiny(), hidden_size=32, num_layers=2, softmax_every_n=2)
SENSITIVE = "blocks.1.attn.proj"


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """One layer's errors count fifty times as much as they did."""
    torch.manual_seed(0)
    model = random_model(CONFIG)
    with torch.no_grad():
        model.get_parameter(f"{SENSITIVE}.weight").mul_(50)
    return model


@pytest.fixture(scope="module")
def tables(model: WorldModel) -> list[SearchedTable]:
    grid = (CONFIG.latent_height, CONFIG.latent_width)
    stride = CONFIG.temporal_stride
    conditioning = Conditioning(
        torch.randn(1, CONFIG.text_length, CONFIG.text_dim),
        torch.ones(1, CONFIG.text_length),
        torch.eye(4).expand(1, stride, 4, 4),
        torch.tensor([20.0, 20.0, 12.0, 8.0]).expand(1, stride, 4),
        torch.tensor([0]),
    )
    latents = torch.randn(1, CONFIG.in_channels, 1, *grid)
    run = Pass(latents, torch.full((1, 1), 700.0), conditioning, RolloutState.zeros(CONFIG))
    return search_layers(model, [run], [4.5, 6.0, 16.0])


def test_bits_go_where_the_velocity_needs_them(model: WorldModel, tables: list[SearchedTable]) -> None:
    least, middle, most = tables
    assert set(least.layers.values()) == {"nvfp4"}
    # Layers that one frame never reaches may have any precision.
    assert most.layers[SENSITIVE] == "bf16"
    assert least.effective_bits == 4.5 < middle.effective_bits <= 6.0
    assert middle.layers[SENSITIVE] != "nvfp4"
    assert "nvfp4" in middle.layers.values()
    sizes = [searched_bytes(model, table) for table in tables]
    assert sizes == sorted(sizes)
    assert sizes[1] <= sizes[0] * 6.0 / 4.5 + 1


def test_a_table_goes_before_the_built_in_one(
    tables: list[SearchedTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, path = tables[1], tmp_path / "tiny.layers.json"
    write_table(table, path)
    monkeypatch.setattr("export.quantization.layers.checkpoints_dir", lambda: tmp_path)
    told: list[str] = []
    for named in (path, None):
        # The second is found beside the checkpoints.
        rules = rules_for(named, "tiny", table.weights_sha256, told.append)
        assert find_rule(SENSITIVE, rules).precision == table.layers[SENSITIVE]
        assert re.match(r"searched at 5\.\d\d bits", find_rule(SENSITIVE, rules).why)
        assert rules[-len(STEP_RULES) :] == STEP_RULES
    assert not told
    assert rules_for(None, "tiny", "0" * 64, told.append) == STEP_RULES
    assert told == ["tiny.layers.json was searched for other weights; the built-in layer table is used"]
    assert rules_for(None, "other", table.weights_sha256, told.append) == STEP_RULES
    with pytest.raises(ValueError, match="searched for other weights; search again"):
        rules_for(path, "tiny", "0" * 64, told.append)


def test_files_that_are_no_tables_are_refused(tables: list[SearchedTable], tmp_path: Path) -> None:
    path = tmp_path / "tiny.layers.json"
    write_table(tables[1].model_copy(update={"layers": {"final_layer.linear": "nvfp4"}}), path)
    with pytest.raises(ValueError, match="precision is fixed"):
        read_table(path)
    path.write_text('{"layers": {"../x": "nvfp4"}}')
    with pytest.raises(ValueError, match="is no layer table"):
        read_table(path)
    with pytest.raises(ValueError, match="cannot read the layer table"):
        read_table(tmp_path / "none")


def test_budgets_lie_between_the_formats(model: WorldModel) -> None:
    with pytest.raises(ValueError, match=r"--bits takes 4\.5"):
        search_layers(model, [], [4.0])


def test_publishing_keeps_the_table_of_the_same_generator(
    tables: list[SearchedTable], tmp_path: Path
) -> None:
    table, path = tables[1], tmp_path / "pocket.layers.json"
    assert kept_table(tmp_path, table.weights_sha256) is None
    write_table(table, path)
    assert kept_table(tmp_path, table.weights_sha256) == path
    assert kept_table(tmp_path, "0" * 64) is None
    path.write_text("{")
    assert kept_table(tmp_path, table.weights_sha256) is None
