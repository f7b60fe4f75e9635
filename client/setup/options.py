"""What `flaneur play` and `flaneur replay` hand to the window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.machine.assets import find_bundle
from engine.session.opening import BackendName, check_backend


@dataclass(frozen=True)
class PlayOptions:
    """One start of the client, as asked for on the command line."""

    world: str | None = None
    """Name of a world or path of a world file; None opens the start menu, or the replay's world."""
    engine: str | None = None
    """Name or folder of a bundle; None takes the shipped one the world was made for."""
    backend: BackendName = "auto"
    seed: int = 0
    record: Path | None = None
    """Recording to write from the first chunk on; it must not exist yet."""
    record_latents: bool = False
    """Whether that recording holds its latents."""
    fullscreen: bool = False
    trace: Path | None = None
    """File for the walk's timing, one JSON object a line; it must not exist yet."""
    replay: Path | None = None
    """Recording or camera track to walk along instead of the player's own input."""


def check_engine(engine: str | None, backend: BackendName) -> None:
    """Refuse a bundle that is not there or not used, and a backend that this version lacks.

    Raises:
        ValueError: No bundle has that name, or the backend takes none.
        EngineError: The bundle is damaged, or the backend cannot be had.
    """
    check_backend(backend)
    if engine is not None and backend == "holodeck":
        raise ValueError("--backend holodeck draws the truth and takes no --engine; leave one of them out")
    if engine is not None:
        find_bundle(engine, verify=False)
