"""A clone without Git LFS holds pointers: every reader says so, and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.files.array_files import read_npy, read_npz
from engine.files.bundle import Bundle, open_bundle
from engine.files.pictures import read_rgb
from engine.files.recording import read_recording
from engine.files.saved_walk import read_saved_info
from engine.files.world import list_worlds, read_world

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 123\n"
)
READERS: dict[str, Callable[[Path], object]] = {
    ".world": read_world,
    ".flaneur": read_recording,
    ".state": read_saved_info,
    ".npy": lambda path: read_npy(path, 9),
    ".npz": lambda path: read_npz(path, ("c2w",), (), 9),
    ".png": read_rgb,
}


@pytest.mark.parametrize("suffix", READERS)
def test_a_pointer_is_named_as_one_with_the_remedy(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"town{suffix}"
    file.write_bytes(POINTER)
    with pytest.raises(Exception, match=r"Git LFS pointer.*git lfs pull"):
        READERS[suffix](file)


def test_the_list_of_worlds_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "town.world").write_bytes(POINTER)
    (entry,) = list_worlds([tmp_path])
    assert "git lfs pull" in entry.problem


@pytest.mark.parametrize("name", ["bundle.json", "decoder.onnx"])
def test_a_bundle_with_a_pointer_in_it_is_refused(name: str, toy_bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(toy_bundle.path, folder)
    file = folder / name if (folder / name).exists() else folder / toy_bundle.spec.decoder_graph
    file.write_bytes(POINTER)
    with pytest.raises(Exception, match=r"Git LFS pointer.*git lfs pull"):
        open_bundle(folder, verify=False)
