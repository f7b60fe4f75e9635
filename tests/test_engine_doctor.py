from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from engine.files.bundle import Bundle
from engine.files.world import World, write_world
from engine.machine import assets, doctor
from engine.machine.hardware import Gpu
from engine.machine.installing import TORCH, install_line

ROOT = Path(__file__).resolve().parent.parent


def test_every_row_is_a_status_with_a_remedy_where_it_is_needed() -> None:
    checks = doctor.run_checks(os.environ)
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.detail
        assert bool(check.remedy) == (check.status != "ok"), check
        assert set(check.as_json()) == {"name", "status", "detail", "remedy"}


def test_only_a_problem_keeps_one_from_playing() -> None:
    fine = [doctor.Check("a", "ok", "yes"), doctor.Check("b", "missing", "no", "get it")]
    assert doctor.can_play(fine)
    assert not doctor.can_play([*fine, doctor.Check("c", "problem", "no", "get it")])


def test_a_machine_without_a_display_is_told_of_headless_walks() -> None:
    check = doctor.check_display({}, "linux")
    assert check.status == "missing"
    assert "--headless" in check.remedy
    assert doctor.check_display({"DISPLAY": ":1"}, "linux").detail == "DISPLAY=:1"
    assert doctor.check_display({}, "darwin").status == "ok"


def test_without_a_display_the_verdict_says_what_works_without_a_window() -> None:
    fine, shown = doctor.Check("a", "ok", "yes"), doctor.check_display({"DISPLAY": ":1"}, "linux")
    unseen, broken = doctor.check_display({}, "linux"), doctor.Check("c", "problem", "no", "get it")
    assert doctor.verdict([fine, shown]) == "this machine can play"
    assert "without a window only" in doctor.verdict([fine, unseen])
    assert "flaneur play --headless" in doctor.verdict([fine, unseen])
    assert "cannot play" in doctor.verdict([broken, unseen])
    assert [doctor.can_open_window([fine, check]) for check in (shown, unseen)] == [True, False]


def test_too_little_of_anything_is_noticed() -> None:
    assert doctor.check_cores(1).status == "missing"
    assert doctor.check_cores(2).status == "ok"
    assert doctor.check_memory(0.5).status == "problem"
    assert doctor.check_memory(8.0).status == "ok"
    assert doctor.check_memory(None).status == "ok"


def test_a_package_that_is_not_there_is_a_problem() -> None:
    assert doctor.check_module("numpy", "numpy").status == "ok"
    check = doctor.check_module("no_such_module", "no-such-package")
    assert (check.status, check.remedy) == ("problem", "install it with `pip install no-such-package`")


def test_an_extra_names_what_it_lacks() -> None:
    check = doctor.check_extra("odd", {"numpy": "numpy", "no_such_module": "no-such-package"})
    assert check.detail == "no no-such-package"
    assert ".[odd]" in check.remedy


def test_torch_is_installed_before_the_extra_that_wants_it_and_by_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.setitem(sys.modules, "torch", None)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    pip = ".venv/bin/python -m pip install"
    assert install_line("train") == f"{pip} 'torch==2.13.*' && {pip} -e '.[train]'"
    assert install_line("rtx") == f"{pip} -e '.[rtx]'"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n', encoding="utf-8")
    assert install_line("rtx") == f"{tmp_path}/{pip} -e '.[rtx]'"
    (tmp_path / "pyproject.toml").unlink()
    assert install_line("rtx") == f"{tmp_path}/{pip} -e '.[rtx]'"
    monkeypatch.setattr(sys, "executable", "/opt/python here/python")
    assert install_line("rtx") == "'/opt/python here/python' -m pip install -e '.[rtx]'"


def test_the_torch_that_is_named_is_the_one_of_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert {line for lines in extras.values() for line in lines if line.startswith("torch")} == {TORCH}


def test_memory_and_flags_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4194304 kB\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512_bf16\n")
    assert doctor.available_memory_gb(tmp_path / "meminfo") == 4.0
    assert doctor.available_memory_gb(tmp_path / "absent") is None
    assert doctor.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512_bf16"}
    assert doctor.cpu_flags(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("capability", "free_gb", "held"),
    [
        ("sm120", 30, "holds it in nvfp4, fp8;"),
        ("sm120", 12, ""),
        ("sm90", 78, "holds it in fp8, bf16;"),
        ("sm89", 20, ""),
        ("sm75", 78, ""),
    ],
)
def test_a_gpu_holds_the_refiner_where_it_has_kernels_and_memory(
    capability: str, free_gb: float, held: str
) -> None:
    check = doctor.check_refiner([Gpu("A card", capability, int(free_gb * 1e9))])
    assert check.status == ("ok" if held else "missing")
    assert held in check.detail
    assert "16.3 GB in nvfp4, 21.9 GB in fp8, 34.8 GB in bf16" in check.detail


def test_the_refiner_is_asked_about_only_on_request() -> None:
    asked = [check.name for check in doctor.run_checks(os.environ, refiner=True)]
    assert set(asked) - {check.name for check in doctor.run_checks(os.environ)} == {"refiner"}
    assert doctor.check_refiner(None).status == "missing"


def test_shipped_bundles_and_worlds_are_opened(
    toy_bundle: Bundle, toy_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "assets_dir", lambda: tmp_path)
    assert doctor.check_bundles().status == "problem"
    assert doctor.check_worlds().status == "problem"
    (tmp_path / "worlds").mkdir()
    (tmp_path / "bundles" / "toy").mkdir(parents=True)
    for file in toy_bundle.path.iterdir():
        (tmp_path / "bundles" / "toy" / file.name).write_bytes(file.read_bytes())
    write_world(tmp_path / "worlds" / "toy.world", toy_world)
    assert doctor.check_bundles().detail == "toy"
    assert doctor.check_worlds().detail == "toy"
    opened = assets.bundle_for(toy_world.info.model)
    assert opened is not None
    assert opened.spec == toy_bundle.spec
    (tmp_path / "worlds" / "toy.world").write_bytes(b"junk")
    (tmp_path / "bundles" / "toy" / "decoder.onnx").write_bytes(b"junk")
    assert "not a world file" in doctor.check_worlds().detail
    assert "decoder.onnx" in doctor.check_bundles().detail
