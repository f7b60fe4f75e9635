"""The README's commands, run as they stand there, but for shorter walks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from cli.app import COMMANDS, run
from engine.files.world import list_worlds
from engine.machine import assets

ROOT = Path(__file__).resolve().parent.parent
LONG_WORK = ("train", "bench")
"""Commands that take minutes; their options are checked by `--help` alone."""
MOST_CHUNKS = "4"
"""Longer walks are cut to this."""


def readme_commands() -> list[list[str]]:
    """Return the arguments of every `flaneur` line in the README's shell blocks, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("flaneur ")]


def opens_a_window(arguments: list[str]) -> bool:
    windowless = {"--headless", "--verify", "--json", "--video", "--frames"}
    return arguments[0] in ("play", "replay") and not windowless & set(arguments)


def test_the_readme_shows_commands_that_exist():
    commands = readme_commands()
    assert len(commands) >= 5
    assert {arguments[0] for arguments in commands} <= COMMANDS.keys()


@pytest.mark.skipif(
    not list_worlds([assets.worlds_dir()]), reason="this checkout has no worlds in assets/worlds"
)
def test_the_readme_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((640, 400), 50).convert("RGB").save("photo.jpg")
    for arguments in readme_commands():
        if opens_a_window(arguments) or arguments[0] in LONG_WORK:
            arguments = [arguments[0], "--help"]
        if "--chunks" in arguments:
            arguments[arguments.index("--chunks") + 1] = MOST_CHUNKS
        status = run(arguments)
        assert status == 0, f"flaneur {shlex.join(arguments)}: {capsys.readouterr().err}"
