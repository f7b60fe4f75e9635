"""The list of saved walks with their pictures, in the pause and on the start screen: gone on with, and deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from client.playback.saves import SavedEntry, list_saves
from client.screens.menu_stack import DELETE, MenuStack
from client.setup.catalog import WorldChoice, day_and_time
from client.setup.folders import SAVES
from client.ui.app_context import AppContext
from client.ui.menu import Choice, Menu

SAVED = "saved"
"""Key of the line that opens the list."""
MAX_SHOWN = 100
_GO_ON, _DELETE_NOW, _KEEP = "saved:go_on:", "saved:delete:", "saved:keep"
_HINT = "Enter or A goes on with a walk, Delete or X deletes it."


class SavedWalks:
    """The list, over whatever screen is on."""

    def __init__(self, app: AppContext, menus: MenuStack, go_on: Callable[[SavedEntry], None]) -> None:
        """Answer for a screen.

        Args:
            menus: The screen's, on which the list is laid.
            go_on: Given the walk that was picked.
        """
        self._app = app
        self._menus = menus
        self._go_on = go_on
        self._identity: str | None = None
        self._entries: dict[str, SavedEntry] = {}

    def open(self, identity: str | None = None) -> None:
        """Show the walks saved in a session's world with its engine, or all of them."""
        self._identity = identity
        self._menus.show(self._list())

    def take(self, key: str) -> bool:
        """Deal with a line that was picked; say whether it was one of these menus."""
        if key.startswith(_GO_ON):
            self._go_on(self._entries[key])
        elif key.startswith(f"{DELETE}{_GO_ON}"):
            self._ask(key.removeprefix(DELETE))
        elif key.startswith(_DELETE_NOW):
            self._delete(Path(key.removeprefix(_DELETE_NOW)))
        elif key == _KEEP:
            self._menus.back()
        else:
            return False
        return True

    def _list(self) -> Menu:
        found: list[SavedEntry] = []
        for entry in list_saves(self._app.pictures_dir / SAVES, self._identity):
            found.append(entry)
            if len(found) == MAX_SHOWN:
                break
        self._entries = {f"{_GO_ON}{entry.path}": entry for entry in found}
        worlds = self._app.list_worlds() if self._app.worlds_changed else self._app.worlds
        lines = [
            Choice(
                key,
                title_of(entry, worlds),
                f"{_length(entry)}{day_and_time(entry.saved_s)}",
                fixed=True,
                picture=entry.picture,
                deletable=True,
            )
            for key, entry in self._entries.items()
        ]
        size_mb = sum(entry.num_bytes for entry in found) / 1e6
        save, load = self._app.key_of("quick_save"), self._app.key_of("quick_load")
        text = f"Nothing is saved here yet; {save} saves."
        if found:
            text = f"{_HINT} {load} loads the newest of a world. They take {size_mb:.0f} MB."
        return Menu("Saved walks", [*lines, Choice("back", "Back")], text)

    def _ask(self, key: str) -> None:
        entry = self._entries[key]
        lines = [Choice(_KEEP, "Keep it"), Choice(f"{_DELETE_NOW}{entry.path}", "Delete it")]
        title = title_of(entry, self._app.worlds)
        self._menus.show(Menu("Delete this saved walk?", lines, f"{title}, {day_and_time(entry.saved_s)}."))

    def _delete(self, path: Path) -> None:
        self._menus.back()
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._app.say(f"{path} cannot be deleted: {error.strerror}.", warning=True)
        menu = self._list()
        before = self._menus.top
        if before is not None:
            menu.chosen = min(before.chosen, len(menu.choices) - 1)
        self._menus.replace(menu)


def title_of(entry: SavedEntry, worlds: Sequence[WorldChoice]) -> str:
    """Return what the world of a saved walk is called; its plain name where it is not here any more."""
    world = world_of(entry, worlds)
    return entry.info.world if world is None else world.title


def world_of(entry: SavedEntry, worlds: Sequence[WorldChoice]) -> WorldChoice | None:
    """Return the world of a saved walk where it can be opened, whatever it is called by now."""
    name = entry.info.world
    fitting = [
        world for world in worlds if not world.problem and name in (Path(world.name).stem, world.made_as)
    ]
    return next((world for world in fitting if world.made_as == name), fitting[0] if fitting else None)


def _length(entry: SavedEntry) -> str:
    duration_s = entry.info.duration_s
    return "" if duration_s is None else f"{duration_s:.1f} s, "
