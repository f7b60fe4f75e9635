"""What `flaneur play` and `flaneur replay` hand to the window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.session.opening import BackendName, EngineRequest, Provider, RefinerMode


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
    """Recording to write from the first chunk on."""
    record_latents: bool = False
    """Whether that recording holds its latents."""
    overwrite: bool = False
    """Whether older files may be lost where recording and trace are written."""
    fullscreen: bool = False
    trace: Path | None = None
    """File for the walk's timing, one JSON object a line."""
    replay: Path | None = None
    """Recording or camera track to walk along instead of the player's own input."""
    saved: Path | None = None
    """Saved walk to go on with."""
    provider: Provider = "auto"
    weights: Path | None = None
    """Folder of released weights, played in place of a bundle."""
    refiner: RefinerMode = "auto"
    """Whether the bundle's refiner is opened; "on" also keeps it where chunks are late."""

    @property
    def engine_request(self) -> EngineRequest:
        return EngineRequest(self.engine, self.backend, self.provider, self.weights)
