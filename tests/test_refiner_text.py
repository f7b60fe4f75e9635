"""A prompt for the refiner, through a small random Gemma-3 and random connectors, and worlds that carry it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.files.own_worlds import world_from_walk
from engine.files.world import World, read_world, sealed, write_world
from export.text import encode_refiner_text, find_text_folders
from tests.refiner_cases import connector_pair, relative_error

WORDS = ["<pad>", "<bos>", "<unk>", "a", "quiet", "harbour", "at", "dawn"]
PROMPT = "  a quiet harbour at dawn "
LENGTH = 8


def small_gemma(transformers: Any) -> Any:
    """A Gemma-3 with its vision tower, as the releases hold it."""
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 16,
        "patch_size": 8,
    }
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refiner folder as released: connectors, and the text encoder beside it."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("release")
    small_gemma(transformers).save_pretrained(home / "gemma3_12b")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(home / "gemma3_12b")
    connectors, _ = connector_pair(torch.float32)
    connectors.save_pretrained(home / "refiner_diffusers" / "connectors")
    return home / "refiner_diffusers"


def test_a_prompt_is_encoded_as_the_reference_pipeline_does(release: Path):
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("diffusers.pipelines.sana_wm.refiner")
    schedulers = pytest.importorskip("diffusers.schedulers")
    folder = release.parent / "gemma3_12b"
    absent: Any = None
    pipeline = module.SanaWMLTX2Refiner(
        absent,
        connector_pair(torch.float32)[0],
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
        schedulers.FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_max_sequence_length=LENGTH,
    )
    with torch.no_grad():
        theirs, mask = pipeline._encode_prompt(PROMPT, device=torch.device("cpu"), dtype=torch.float32)
    text = encode_refiner_text(PROMPT, find_text_folders(release), LENGTH, torch.float32)
    assert mask.all()
    assert text.shape == (LENGTH, 24)
    # float16 keeps 11 bits.
    assert relative_error(torch.from_numpy(text), theirs[0]) < 5e-4


def test_a_world_carries_the_text_through_its_file_and_into_worlds_begun_in_it(
    toy_world: World, tmp_path: Path
):
    text = np.random.default_rng(0).standard_normal((8, 24)).astype(np.float16).astype(np.float32)
    world = replace(toy_world, refiner_text=text, path=None)
    write_world(tmp_path / "refined.world", world)
    found = read_world(tmp_path / "refined.world")
    assert found.refiner_text is not None
    assert np.array_equal(found.refiner_text, text)
    assert found.sha256 == sealed(world).sha256 != sealed(toy_world).sha256
    begun = world_from_walk(
        found, found.first_latent, found.first_frame, found.c2w, name="begun", title="Begun"
    )
    assert begun.refiner_text is found.refiner_text
    write_world(tmp_path / "plain.world", replace(toy_world, path=None))
    assert read_world(tmp_path / "plain.world").refiner_text is None


def test_what_is_missing_is_named(release: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no connectors/config\.json"):
        find_text_folders(tmp_path)
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no text encoder"):
        find_text_folders(tmp_path)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="fetch gemma-3-12b-it"):
        encode_refiner_text(PROMPT, find_text_folders(tmp_path))


def test_a_text_encoder_of_another_size_is_refused(release: Path, tmp_path: Path):
    config = json.loads((release / "connectors" / "config.json").read_text())
    other, _ = connector_pair(torch.float32, text_proj_in_factor=4)
    other.save_pretrained(tmp_path / "refiner" / "connectors")
    folders = replace(find_text_folders(release), connectors=tmp_path / "refiner")
    assert config["text_proj_in_factor"] == 5
    with pytest.raises(ValueError, match="5 hidden states of 24 numbers, the connectors read 4 of 24"):
        encode_refiner_text(PROMPT, folders, LENGTH)
