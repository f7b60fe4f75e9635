"""The worlds to choose from, read from their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from client.world_menu import WorldCard
from engine import assets
from engine.errors import EngineError
from engine.session import BackendName
from engine.world import SUFFIX, WorldEntry, list_worlds, read_world


def world_folders(world: str | None) -> list[Path]:
    """Return where worlds are looked for: beside the world file that was named, then among the shipped ones."""
    named = Path(world) if world is not None else None
    beside = [named.parent] if named is not None and named.suffix == SUFFIX else []
    return [*beside, assets.worlds_dir()]


def world_cards(folders: Sequence[Path], backend: BackendName) -> list[WorldCard]:
    """Return a card for each world; one that cannot be read says why."""
    return [_card(entry, backend) for entry in list_worlds(folders)]


def _card(entry: WorldEntry, backend: BackendName) -> WorldCard:
    path = str(entry.path)
    try:
        world = read_world(entry.path)
    except EngineError as error:
        return WorldCard(path, entry.title, "", None, entry.problem or str(error))
    made_by = "Drawn exactly, no model" if backend == "holodeck" else "Generated as you walk"
    # A caption is written for the model and lists everything; its first clause says what a person wants to know.
    note = world.info.caption.partition(";")[0] or made_by
    return WorldCard(path, world.title, note, world.first_frame)


def index_of(cards: Sequence[WorldCard], name_or_path: str | None) -> int:
    """Return the place of a world in the list, 0 if it is not there."""
    if name_or_path is not None:
        for i, card in enumerate(cards):
            if card.name == name_or_path or Path(card.name).stem == Path(name_or_path).stem:
                return i
    return 0
