"""The worlds to choose from, read from their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from client.screens.world_menu import WorldCard
from engine.errors import EngineError
from engine.files.world import WorldEntry, list_worlds, read_world
from engine.machine import assets
from engine.session.opening import BackendName

_FOREIGN = "made for a model that is not installed"


def world_cards(folders: Sequence[Path], backend: BackendName) -> list[WorldCard]:
    """Return a card for each world; one that cannot be read says why."""
    models = _model_names()
    return [_card(entry, backend, models) for entry in list_worlds(folders)]


def _model_names() -> dict[str, str]:
    """Return which models are installed: what each is called, by the hash of its weights."""
    names: dict[str, str] = {}
    for name in assets.bundle_names():
        # A damaged bundle is explained when a world is opened with it.
        with suppress(EngineError):
            names[assets.find_bundle(name, verify=False).spec.weights_sha256] = f"dreamed by {name}"
    return names


def _card(entry: WorldEntry, backend: BackendName, models: Mapping[str, str]) -> WorldCard:
    path = str(entry.path)
    try:
        world = read_world(entry.path)
    except EngineError as error:
        return WorldCard(path, entry.title, "", None, entry.problem or str(error))
    made_by = "drawn exactly, no model" if backend == "holodeck" else models.get(world.info.model, _FOREIGN)
    return WorldCard(path, world.title, world.info.caption, world.first_frame, model=made_by)


def index_of(cards: Sequence[WorldCard], name_or_path: str | None) -> int:
    """Return the place of a world in the list, 0 if it is not there."""
    if name_or_path is not None:
        for i, card in enumerate(cards):
            if card.name == name_or_path or Path(card.name).stem == Path(name_or_path).stem:
                return i
    return 0
