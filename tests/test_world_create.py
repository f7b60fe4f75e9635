"""Worlds from photos, with a small random Gemma and autoencoder made on the spot."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cli.app import run as flaneur
from engine.files.pictures import open_rgb
from engine.files.world import read_world
from export.photo import (
    fit_photo,
    fov_deg,
    intrinsics_for_crop,
    intrinsics_of_fov,
    read_intrinsics,
)
from export.text import TextEncoder, load_text_encoder, read_preamble
from export.world import WorldRequest, create_world, hash_released
from model.checkpoint import (
    load_checkpoint,
    load_ltx_autoencoder,
    save_checkpoint,
    to_official,
    weights_sha256,
)
from model.config import ModelConfig, tiny
from model.world_model import WorldModel

CONFIG = replace(
    tiny(),
    name="small",
    num_layers=1,
    in_channels=6,
    temporal_stride=8,
    spatial_stride=32,
    frame_height=64,
    frame_width=96,
    text_dim=16,
    text_length=9,
)
PREAMBLE = ["Describe the place .", "Prompt :"]
WORDS = [
    *("<pad>", "<bos>", "<unk>", "Describe", "the", "place", ".", "Prompt", ":"),
    *("a", "quiet", "harbour", "at", "dawn"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the released weights."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    autoencoders = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_ltx2")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    autoencoders.AutoencoderKLLTX2Video(
        latent_channels=6,
        block_out_channels=[8, 8, 16, 16],
        layers_per_block=[1] * 5,
        decoder_block_out_channels=[8, 16, 32],
        decoder_layers_per_block=[1] * 4,
    ).save_pretrained(folder / "vae")
    gemma = transformers.Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    transformers.Gemma2ForCausalLM(gemma).save_pretrained(folder / "gemma-2-2b-it")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>", padding_side="left"
    ).save_pretrained(folder / "gemma-2-2b-it")
    (folder / "config.yaml").write_text(
        "text_encoder:\n  chi_prompt:\n" + "".join(f"  - {x!r}\n" for x in PREAMBLE)
    )
    save_checkpoint(WorldModel(CONFIG), folder / "dit" / "model.safetensors")
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (9, 20, 3)), np.ones((15, 10, 1))).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "harbour.png")
    return tmp_path / "harbour.png"


@pytest.fixture
def encoder(weights: Path) -> TextEncoder:
    return load_text_encoder(weights / "gemma-2-2b-it", torch.float32)


def test_preamble_is_read_but_not_repeated(encoder: TextEncoder) -> None:
    preamble = "\n".join(PREAMBLE)
    ids = encoder.tokenizer.encode(preamble + "a quiet harbour")
    total = len(encoder.tokenizer.encode(preamble)) + CONFIG.text_length - 2
    padded = torch.tensor([ids + [0] * (total - len(ids))])
    real = torch.tensor([[1] * len(ids) + [0] * (total - len(ids))])
    with torch.no_grad():
        hidden = encoder.model(input_ids=padded, attention_mask=real).last_hidden_state[0]
    text, mask = encoder.encode("a quiet harbour", CONFIG.text_length, preamble)
    torch.testing.assert_close(text, torch.cat([hidden[:1], hidden[1 - CONFIG.text_length :]]))
    assert mask.tolist() == [1.0, *real[0, 1 - CONFIG.text_length :].float().tolist()]
    alone, _ = encoder.encode("a quiet harbour", CONFIG.text_length)
    assert alone.shape == text.shape
    assert (alone[1:] - text[1:]).abs().max() > 1e-3


def test_long_prompts_are_cut_to_the_models_length(encoder: TextEncoder) -> None:
    text, mask = encoder.encode("harbour " * 50, CONFIG.text_length, "Prompt :")
    assert text.shape == (CONFIG.text_length, 16)
    assert mask.min() == 1


def test_photo_and_camera_are_fitted_as_the_reference_does(photo: Path) -> None:
    cam_utils = pytest.importorskip("diffusers.pipelines.sana_wm.cam_utils")
    picture = open_rgb(photo)
    for width, height in ((96, 64), (64, 96), (320, 100)):
        frame, fit = fit_photo(picture, width, height)
        theirs, source, resized, offset = cam_utils.resize_and_center_crop(picture, height, width)
        np.testing.assert_array_equal(frame, np.asarray(theirs))
        assert (fit.source, fit.resized, fit.offset) == (source, resized, offset)
        camera = np.array([210.0, 205.0, 99.0, 70.0])
        expected = cam_utils.transform_intrinsics_for_crop(camera, source, resized, offset)
        np.testing.assert_allclose(intrinsics_for_crop(camera, fit), expected, rtol=1e-12)


def test_field_of_view_and_focal_length_are_inverse() -> None:
    for angle in (25.0, 60.0, 120.0):
        assert fov_deg(intrinsics_of_fov(angle, (200, 135)), 200) == pytest.approx(angle)


def test_a_world_holds_everything_that_playing_needs(weights: Path, photo: Path) -> None:
    request = WorldRequest(photo, "a quiet harbour at dawn", "harbour", "Harbour", "CC0", fov_deg=70)
    world = create_world(request, weights, CONFIG, lambda: "0" * 64)
    frame, fit = fit_photo(open_rgb(photo), 96, 64)
    np.testing.assert_array_equal(world.first_frame, frame)
    camera = intrinsics_for_crop(intrinsics_of_fov(70, (200, 135)), fit)
    np.testing.assert_allclose(world.intrinsics, camera, rtol=1e-6)
    autoencoder = load_ltx_autoencoder(weights / "vae")
    video = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        latent = autoencoder.encode(video)[0, :, 0]
    np.testing.assert_allclose(world.first_latent, latent.numpy(), atol=1e-6)
    assert world.text.shape == (CONFIG.text_length, 16)
    assert world.info.caption == "a quiet harbour at dawn"


def run(*arguments: object) -> int:
    return flaneur([str(argument) for argument in arguments])


@pytest.fixture
def small_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelConfig:
    """Let the released model be a small one, and work in an empty folder."""
    monkeypatch.setattr("export.world.sana_wm", lambda: CONFIG)
    monkeypatch.chdir(tmp_path)
    return CONFIG


def test_the_command_makes_a_world(
    weights: Path, photo: Path, small_release: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("world", "create", photo, "--prompt", "a quiet harbour", "--weights", weights, "--fov", 75)
    assert run(*arguments, "--title", "The Harbour", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    world = read_world(result["path"])
    assert (world.name, world.title, world.sha256) == ("harbour", "The Harbour", result["sha256"])
    # The exporter hashes float32 weights, whatever the file holds.
    model = load_checkpoint(weights / "dit" / "model.safetensors", dtype=torch.float32)
    assert world.info.model == weights_sha256(model)


def test_the_command_encodes_the_prompt_for_the_refiner_where_one_is_named(
    weights: Path, photo: Path, small_release: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = np.full((8, 24), 0.5, np.float32)
    monkeypatch.setattr("export.world.find_text_folders", lambda refiner: refiner)
    monkeypatch.setattr(
        "export.world.encode_refiner_text", lambda prompt, refiner: text * len(prompt) * len(refiner.name)
    )
    arguments = ("world", "create", photo, "--prompt", "a quiet harbour", "--weights", weights)
    assert run(*arguments, "--refiner", "refiner_diffusers", "-o", "refined.world") == 0
    found = read_world("refined.world").refiner_text
    assert found is not None
    np.testing.assert_array_equal(found, text * len("a quiet harbour") * len("refiner_diffusers"))


def test_the_student_is_taken_where_the_release_has_one(
    weights: Path, tmp_path: Path, small_release: ModelConfig
) -> None:
    model = WorldModel(CONFIG)
    (tmp_path / "sana_dit").mkdir()
    half = {f"model.{name}": tensor.bfloat16() for name, tensor in to_official(model.state_dict()).items()}
    torch.save({"generator": half}, tmp_path / "sana_dit" / "model.pt")
    assert hash_released(tmp_path) == weights_sha256(model.bfloat16().float())


def test_a_world_for_a_bundle_plays_in_it_without_the_encoders(
    weights: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.onnx import export_bundle
    from export.sources import open_source

    monkeypatch.setattr("export.sources.sana_wm", lambda: CONFIG)
    model, decoder = open_source(str(weights / "dit" / "model.safetensors"), False)
    bundle = export_bundle(model, decoder, tmp_path / "small", timesteps=[1000.0])
    world = tmp_path / "harbour.world"
    arguments = ("world", "create", photo, "--prompt", "a quiet harbour", "--weights", weights)
    assert run(*arguments, "--engine", bundle, "-o", world) == 0
    code = (
        "import sys; from cli.app import run; "
        f"status = run(['play', {str(world)!r}, '--engine', {str(bundle)!r}, '--headless', '--actions', 'w-40']); "
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules); sys.exit(status)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fov", "130"], "outside 25 to 120"),
        (["--fov", "10"], "outside 25 to 120"),
        (["--fov", "60", "--intrinsics", "k.txt"], "leave one of them out"),
        (["--intrinsics", "none.txt"], "cannot read none.txt"),
        (["--intrinsics", "odd.txt"], "holds no camera"),
        (["--intrinsics", "narrow.txt"], "outside 25 to 120"),
        (["-o", "harbour.zip"], "ends in .world"),
        (["-o", "nowhere/harbour.world"], "does not exist"),
        (["--title", "x" * 200], "choose other words, its name with -o"),
        (["-o", "taken.world"], "exists already"),
        (["--intrinsics", "aside.txt"], "lies outside of it"),
        (["--weights", "nowhere"], "has no autoencoder"),
    ],
)
def test_what_cannot_be_made_is_one_sentence_and_leaves_nothing(
    weights: Path,
    photo: Path,
    small_release: ModelConfig,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    Path("odd.txt").write_text("1 2 3")
    Path("narrow.txt").write_text("5000 5000 100 67")
    Path("aside.txt").write_text("200 200 5000 67")
    Path("taken.world").write_text("mine")
    before = sorted(Path().iterdir())
    status = run("world", "create", photo, "--prompt", "a harbour", "--weights", weights, *arguments)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("flaneur: ")
    assert words in error
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("vae", "has no autoencoder"),
        ("vae/config.json", "cannot read"),
        ("vae/diffusion_pytorch_model.safetensors", "0 .safetensors files"),
        ("gemma-2-2b-it", "has no text encoder"),
        ("gemma-2-2b-it/model.safetensors", "cannot load the text encoder"),
        ("config.yaml", "cannot read"),
        ("dit/model.safetensors", "one is needed"),
    ],
)
def test_a_missing_weight_file_is_named(
    weights: Path, photo: Path, tmp_path: Path, small_release: ModelConfig, missing: str, words: str
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(weights, copy)
    gone = copy / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    request = WorldRequest(photo, "a harbour", "harbour", "Harbour", "CC0")
    with pytest.raises(ValueError, match=words) as error:
        create_world(request, copy, CONFIG, lambda: hash_released(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"0" * 40])
def test_unreadable_pictures_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture") as error:
        open_rgb(path)
    assert "\n" not in str(error.value)


def test_a_cut_picture_is_one_sentence(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-60])
    with pytest.raises(ValueError, match="cannot read the picture"):
        open_rgb(photo)


def test_camera_matrices_are_read_too(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([[180.0, 0, 99], [0, 181, 70], [0, 0, 1]]))
    np.testing.assert_array_equal(read_intrinsics(tmp_path / "k.npy"), [180, 181, 99, 70])
    (tmp_path / "k.txt").write_text("180, 181, 99, 70\n")
    np.testing.assert_array_equal(read_intrinsics(tmp_path / "k.txt"), [180, 181, 99, 70])


def test_a_text_encoder_with_a_tensor_missing_is_refused(weights: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(weights / "gemma-2-2b-it", tmp_path / "gemma")
    tensors = load_file(tmp_path / "gemma" / "model.safetensors")
    tensors.pop(next(name for name in tensors if "mlp" in name))
    save_file(tensors, tmp_path / "gemma" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors are missing"):
        load_text_encoder(tmp_path / "gemma")


def test_a_strip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too narrow a strip"):
        fit_photo(Image.new("RGB", (10, 8000)), 96, 64)


def test_a_config_without_instruction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("text_encoder: {name: gemma}\n")
    with pytest.raises(ValueError, match="has no chi_prompt"):
        read_preamble(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name one photo, or posed pictures"),
        (["a.png", "--keyframes", "scan"], "name one photo, or posed pictures"),
        (["a.png", "--model", "sana-wm"], "needs a prompt"),
        (["--keyframes", "scan", "--refiner", "r"], "are for worlds of sana-wm"),
    ],
)
def test_a_world_is_made_of_one_thing(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert flaneur(["world", "create", *arguments]) == 2
    assert problem in capsys.readouterr().err
