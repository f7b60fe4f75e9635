"""The places that exist, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from holodeck.generator import generate_place, generated_name, generated_seed
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


def has_place(name: str) -> bool:
    """Whether `get_place` knows a name: one of `place_names` or of a generated place."""
    return name in _BUILDERS or generated_seed(name) is not None


def get_place(name: str) -> Place:
    """Build a place by its name, or the generated place of the seed in `generated-SEED`.

    Raises:
        ValueError: No place has this name.
    """
    seed = generated_seed(name)
    if seed is not None:
        return _generated(seed)
    if name not in _BUILDERS:
        raise ValueError(
            f"no place is called {name!r}; choose one of {', '.join(_BUILDERS)}, or {generated_name(17)} for any seed"
        )
    return _built(name)


@cache
def _built(name: str) -> Place:
    return _BUILDERS[name]()


@lru_cache(maxsize=4)
def _generated(seed: int) -> Place:
    """Generated places are many and each ground takes 21 MB, so few are kept."""
    return generate_place(seed)
