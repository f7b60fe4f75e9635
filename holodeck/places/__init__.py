"""The places that exist, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from holodeck.place import Place
from holodeck.places import canyon, colonnade, gallery, garden, night, town

_BUILDERS: dict[str, Callable[[], Place]] = {
    "town": town.build,
    "colonnade": colonnade.build,
    "gallery": gallery.build,
    "canyon": canyon.build,
    "night": night.build,
    "garden": garden.build,
}


def place_names() -> list[str]:
    """Names of all places, in the order they are shown."""
    return list(_BUILDERS)


@cache
def get_place(name: str) -> Place:
    """Build a place.

    Raises:
        ValueError: No place has this name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"no place is called {name!r}; choose one of {', '.join(_BUILDERS)}")
    return _BUILDERS[name]()
