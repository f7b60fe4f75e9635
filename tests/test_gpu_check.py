"""The check for GPUs, gone through on a CPU at a small size."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
from scripts import gpu_check


def test_everything_that_a_gpu_is_asked_runs_at_a_small_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "found"
    assert gpu_check.main(["--small", "--device", "cpu", "--out", str(out)]) == 0
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["left_out"] == []
    assert report["sana-wm"]["realtime_factor"] > 0
    assert report["sana-wm"]["ms"].keys() == {"denoise", "commit", "decode"}
    assert report["pocket"]["cpu auto"]["velocity_error"] == 0
    if importlib.util.find_spec("diffusers"):
        # The same network in float32 on both sides.
        assert report["reference"]["relative_error"] < 1e-3
    table = out.with_suffix(".md").read_text()
    assert "realtime factor" in table
    assert table in capsys.readouterr().out


def test_sections_beyond_the_minutes_are_named(tmp_path: Path):
    out = tmp_path / "found"
    assert gpu_check.main(["--small", "--device", "cpu", "--minutes", "0", "--out", str(out)]) == 0
    report = json.loads(out.with_suffix(".json").read_text())
    assert {"sana-wm", "pocket"} <= set(report["left_out"])


def test_a_section_that_fails_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(scale: gpu_check.Scale) -> dict[str, object]:
        raise RuntimeError("out of memory\nand much more")

    monkeypatch.setattr(gpu_check, "measure_rollout", fail)
    out = tmp_path / "found"
    assert gpu_check.main(["--small", "--device", "cpu", "--out", str(out)]) == 1
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["sana-wm"] == {"failed": "out of memory"}
    assert "pocket" in report
