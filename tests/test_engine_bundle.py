from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SpecMismatch
from engine.files.bundle import Bundle, hash_file, open_bundle
from export.folders import write_spec


@pytest.fixture
def folder(toy_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle.path, tmp_path / "bundle"))


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_bundle_opens_and_names_its_graphs(toy_bundle: Bundle) -> None:
    assert toy_bundle.step_graph(1).is_file()
    assert toy_bundle.decoder_graph.is_file()
    assert toy_bundle.spec.frames_per_chunk == 4
    assert len(toy_bundle.sha256) == 64


def test_walks_fit_a_bundle_however_it_tells_the_depth_of_photos(folder: Path) -> None:
    write_spec(folder, open_bundle(folder).spec)
    bare = open_bundle(folder)
    names = []
    for depth in (b"a network", b"a better one"):
        (folder / "depth.onnx").write_bytes(depth)
        files = {**bare.spec.files, "depth.onnx": hash_file(folder / "depth.onnx")}
        write_spec(folder, bare.spec.model_copy(update={"depth_graph": "depth.onnx", "files": files}))
        names.append(open_bundle(folder).sha256)
    assert names == [bare.sha256] * 2
    edit(folder, timesteps=[900])
    assert open_bundle(folder).sha256 != bare.sha256


def test_a_spec_survives_its_own_json(toy_bundle: Bundle) -> None:
    assert type(toy_bundle.spec).model_validate_json(toy_bundle.spec.model_dump_json()) == toy_bundle.spec


def test_a_folder_without_a_spec_says_how_to_make_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="flaneur export onnx"):
        open_bundle(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(SpecMismatch, match="name the folder"):
        open_bundle(folder / "bundle.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format_version": 3}, "format_version"),
        ({"surprise": 1}, "surprise"),
        ({"latent_width": 0}, "latent_width"),
        ({"latent_width": 10**9}, "latent_width"),
        ({"latent_width": 5}, "frame size"),
        ({"fps": "NaN"}, "fps"),
        ({"timesteps": [500, 960]}, "decrease"),
        ({"timesteps": []}, "timesteps"),
        ({"first_chunk_size": 3}, "first_chunk_size"),
        ({"step_graphs": {"2": "step_1.onnx"}}, "no step graph for 1"),
        ({"decoder_graph": "other.onnx"}, "not listed"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "files"),
        ({"files": {"/etc/passwd": "0" * 64}}, "files"),
        ({"state": [{"name": "a", "shape": [1 << 24, 1 << 24], "dtype": "float32"}]}, "larger"),
        ({"state": [{"name": "a", "shape": [1], "dtype": "object"}]}, "dtype"),
        ({"state": [{"name": "a", "shape": [1], "dtype": "uint8"}] * 2}, "same name"),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused_by_name(folder: Path, changes: Any, reason: str) -> None:
    edit(folder, **changes)
    with pytest.raises(SpecMismatch, match=reason) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_spec_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "bundle.json").write_bytes(b"\x80\x04pickle")
    with pytest.raises(SpecMismatch, match="export the bundle again"):
        open_bundle(folder)


def test_a_spec_nested_without_end_is_refused(folder: Path) -> None:
    (folder / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(SpecMismatch):
        open_bundle(folder)


def test_an_enormous_spec_is_not_read(folder: Path) -> None:
    with (folder / "bundle.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpecMismatch, match="larger than"):
        open_bundle(folder)


def test_a_changed_file_is_noticed(folder: Path) -> None:
    graph = folder / "decoder.onnx"
    raw = bytearray(graph.read_bytes())
    raw[-1] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(SpecMismatch, match=r"decoder\.onnx is not the one"):
        open_bundle(folder)
    open_bundle(folder, verify=False)


def test_a_missing_file_is_noticed_without_verifying(folder: Path) -> None:
    (folder / "step_1.onnx").unlink()
    with pytest.raises(SpecMismatch, match=r"lacks its file step_1\.onnx"):
        open_bundle(folder, verify=False)


def test_a_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    graph = folder / "decoder.onnx"
    graph.rename(tmp_path / "elsewhere.onnx")
    graph.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(SpecMismatch, match="lacks its file"):
        open_bundle(folder)


def test_a_first_chunk_one_longer_than_the_others_is_accepted(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(3, 4)
    assert bundle.spec.frames_per_chunk == 12
    assert bundle.step_graph(4) != bundle.step_graph(3)
