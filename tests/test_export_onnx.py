"""An exported bundle opens, runs like PyTorch over carried state, and appears whole or not at all."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn

from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.errors import BuildFailed
from engine.files.bundle import Bundle, open_bundle
from model.checkpoint import weights_sha256
from model.vae.guided import (
    AUTOENCODER_FILE,
    FINISH_WIDTH,
    GuidedAutoencoder,
    GuidedAutoencoderConfig,
    GuidedStreamingDecoder,
)
from model.world_model import WorldModel
from tests.exported_bundles import TINY, tiny_bundle, tiny_decoder, tiny_model
from tests.models import SmallDecoder, random_model

pytest.importorskip("onnxscript")
from export.graph import HALF_FROM_BYTES, SharedWeights, num_bytes
from export.onnx import export_bundle, export_decoder, plain
from export.verify import VerifyReport, verify_bundle
from model.decoders import encoder_of
from training.pocket.publish import in_half, save_autoencoder


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_model()


@pytest.fixture(scope="module")
def decoder() -> SmallDecoder:
    return tiny_decoder()


@pytest.fixture(scope="module")
def bundle(shared_folder: Path) -> Bundle:
    return tiny_bundle(shared_folder)


def verified(
    bundle: Bundle, model: WorldModel, decoder: nn.Module, num_chunks: int, mapped: bool = False
) -> VerifyReport:
    def open_runner() -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(bundle, 1, 1, mapped)

    return verify_bundle(lambda: (model, decoder), open_runner, bundle.spec, num_chunks)


def test_graphs_follow_pytorch_over_four_chunks(
    bundle: Bundle, model: WorldModel, decoder: SmallDecoder
) -> None:
    report = verified(bundle, model, decoder, 4)
    assert len(report.chunks) == 5
    # Float32 sums in another order, over two blocks.
    assert report.velocity < 1e-4
    assert report.state < 1e-4
    # A value within rounding of a half may fall to either side.
    assert report.frames <= 1
    assert report.to_dict()["chunks"][4]["chunk_index"] == 4


def test_a_wrong_model_does_not_verify(bundle: Bundle, decoder: SmallDecoder) -> None:
    torch.manual_seed(5)
    other = WorldModel(TINY, fresh=True).eval()
    report = verified(bundle, other, decoder, 1)
    assert report.velocity > 0.01


def test_the_description_names_weights_and_sizes(bundle: Bundle, model: WorldModel) -> None:
    spec = bundle.spec
    assert spec.weights_sha256 == weights_sha256(model)
    assert spec.model == TINY.to_dict()
    assert set(spec.files) == {"step_1.onnx", "decoder.onnx"}
    assert spec.frames_per_chunk == TINY.temporal_stride
    assert spec.notes == "a test"


def test_foreign_folders_are_left_alone(model: WorldModel, decoder: SmallDecoder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="no bundle"):
        export_bundle(model, decoder, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_failed_export_leaves_nothing_behind(
    model: WorldModel, decoder: SmallDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(BuildFailed, match="no such operator"):
        export_bundle(model, decoder, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_half_precision_holds_are_stored_in_it(
    bundle: Bundle, decoder: SmallDecoder, tmp_path: Path
) -> None:
    rounded = copy.deepcopy(decoder).half().float()
    path, config = tmp_path / "decoder.onnx", TINY
    caches = decoder.cache_spec(config.latent_height, config.latent_width)
    size = (config.in_channels, config.latent_height, config.latent_width)
    export_decoder(plain(rounded), size, caches, path, SharedWeights(tmp_path / "weights.bin"))
    graphs = [bundle.path / "decoder.onnx", path]
    assert graphs[1].stat().st_size < 0.8 * graphs[0].stat().st_size
    # Nothing is lost: the graph computes with the very numbers that were exported.
    latent, past = torch.randn(1, *size[:1], 1, *size[1:]), torch.randn(*caches[0][1])
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    frames, kept = session.run(None, {"latent": latent.numpy(), "past": past.numpy()})
    expected = rounded(latent, past)
    # A value within rounding of a half may fall to either side.
    assert np.abs(np.asarray(frames, np.int16) - expected[0].numpy()).max() <= 1
    np.testing.assert_allclose(np.asarray(kept), expected[1].numpy(), rtol=1e-6)


def test_graphs_share_the_file_of_their_large_weights(
    decoder: SmallDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.onnx.INLINE_LIMIT_BYTES", 0)
    torch.manual_seed(0)
    two_sizes = random_model(replace(TINY, num_layers=1, chunk_size=2, first_chunk_size=3))
    stages: list[str] = []
    folder = tmp_path / "export" / "bundle"
    opened = open_bundle(
        export_bundle(two_sizes, decoder, folder, timesteps=[1000.0], progress=stages.append)
    )
    step_stages = [f"step graph for {size} latent frames" for size in (2, 3)]
    assert stages == [*step_stages, "decoder graph", "description"]
    assert list(folder.parent.iterdir()) == [folder]
    assert set(opened.spec.files) == {"step_2.onnx", "step_3.onnx", "decoder.onnx", "weights.bin"}
    sizes = [tensor.numel() * 4 for tensor in [*two_sizes.parameters(), *decoder.parameters()]]
    # Each tensor begins at a multiple of 64 KiB.
    assert (opened.path / "weights.bin").stat().st_size < sum(size + (1 << 16) for size in sizes)
    for mapped in (False, True):
        report = verified(opened, two_sizes, decoder, 2, mapped)
        assert report.velocity < 1e-4
        assert report.frames <= 1


def test_graphs_do_not_name_the_machine_that_made_them(bundle: Bundle) -> None:
    for graph in bundle.path.glob("*.onnx"):
        assert str(Path(torch.__file__).parent).encode() not in graph.read_bytes()
        assert str(Path(__file__).parent.parent).encode() not in graph.read_bytes()


def test_a_published_bundle_holds_the_weights_of_its_autoencoder_once(tmp_path: Path) -> None:
    config = replace(
        TINY,
        name="remembering",
        num_layers=1,
        in_channels=8,
        memory_channels=9,
        temporal_stride=4,
        spatial_stride=32,
        frame_height=64,
        frame_width=96,
    )
    torch.manual_seed(0)
    sizes = GuidedAutoencoderConfig(8, 4, (8, 8, 8), 8, (8, 8, 8), (1, 1, 1))
    autoencoder = in_half(GuidedAutoencoder(sizes))
    decoder = GuidedStreamingDecoder(autoencoder).eval()
    model = random_model(config)
    opened = open_bundle(
        export_bundle(
            model,
            decoder,
            tmp_path / "remembering",
            timesteps=(1000,),
            encoder=encoder_of(decoder),
            tensors=save_autoencoder(autoencoder, tmp_path / AUTOENCODER_FILE),
        )
    )
    assert AUTOENCODER_FILE in opened.spec.files
    # The decoder's last layer, 432 weights at each of four pixels, is the one tensor that a graph makes of another.
    for_four_pixels = [16, FINISH_WIDTH, 4, 4]
    for graph in ("encoder.onnx", "decoder.onnx"):
        stored = onnx.load(opened.path / graph, load_external_data=False).graph.initializer
        large = [tensor for tensor in stored if num_bytes(tensor) >= HALF_FROM_BYTES]
        assert large
        assert all(tensor.external_data or list(tensor.dims) == for_four_pixels for tensor in large)
    report = verified(opened, model, decoder, 2)
    assert report.passed
    assert 0 < report.inverse_depth < 1e-3
