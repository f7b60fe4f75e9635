"""The documents for whoever carries on, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_walls import ROOMS, import_graph

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"


@pytest.mark.parametrize("document", [ARCHITECTURE, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path):
    named = re.findall(r"`([a-z_./]+/[a-z_.]*)`", document.read_text(encoding="utf-8"))
    assert len(named) > 20
    homes = [ROOT, *(ROOT / room for room in ROOMS)]
    assert not [name for name in named if not any((home / name).exists() for home in homes)]


def test_the_picture_of_the_rooms_shows_their_imports():
    shown = set(re.findall(r"^ +(\w+) --> (\w+)$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE))
    graph = import_graph()
    edges = {(module.split(".")[0], name.split(".")[0]) for module in graph for name in graph[module]}
    assert shown == {(source, target) for source, target in edges if source != target}
