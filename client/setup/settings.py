"""What the player set once and finds again: a small JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from client.input.bindings import DEFAULT_KEYS, RESERVED
from client.setup.folders import make_folder
from engine.files.atomic import replacing

MAX_FILE_BYTES = 1 << 16


def _check_action(name: str) -> str:
    if name not in DEFAULT_KEYS:
        raise ValueError(f"no action is called {name}")
    return name


def _check_free(scancode: int) -> int:
    if scancode in RESERVED:
        raise ValueError(f"key {scancode} leads out of every menu and cannot be bound")
    return scancode


def _as_switch(value: object) -> object:
    """Read what was a truth value in earlier files: true was what nobody had changed."""
    return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value


Switch = Literal["auto", "on", "off"]
Scancode = Annotated[int, Field(ge=1, le=511), AfterValidator(_check_free)]
ActionName = Annotated[str, AfterValidator(_check_action)]


class Settings(BaseModel):
    """Every field has a default, so an older file still opens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    mouse_deg_px: Annotated[float, Field(ge=0.01, le=2.0)] = 0.1
    """Turn for each pixel of mouse motion, degrees."""
    invert_y: bool = False
    """Whether moving the mouse up looks down."""
    pace: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    """Speed of walking, as a multiple of the world's own."""
    window_width: Annotated[int, Field(ge=160, le=16384)] = 1280
    window_height: Annotated[int, Field(ge=96, le=16384)] = 768
    hud: bool = False
    """Whether the metrics are on."""
    reproject: bool = True
    """Whether the mouse turns the picture at once, before the model answers."""
    refiner: Annotated[Switch, BeforeValidator(_as_switch)] = "auto"
    """Whether chunks are refined by the second stage, where the engine has one and there is time; "auto" as the engine has it."""
    show_map: bool = False
    """Whether the map of the walk is on."""
    show_held: bool = False
    """Whether what is held on keys and sticks is shown."""
    text_size: Annotated[float, Field(ge=0.75, le=2.0)] = 1.0
    """Size of texts and panels, against what fits the window; for dense screens and tired eyes."""
    dead_zone: Annotated[float, Field(ge=0.05, le=0.5)] = 0.15
    """How far a stick moves before it means anything, of its whole way."""
    keys: dict[ActionName, Annotated[tuple[Scancode, ...], Field(max_length=8)]] = Field(default_factory=dict)
    """Scancodes of the actions that are on other keys than at first."""
    past_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 256
    """Memory for the moments a walk can go back to, megabytes."""
    sound: bool = True
    """Whether footsteps and the place are heard."""
    picture: Literal["crisp", "smooth", "pixels"] = "crisp"
    """How small frames are enlarged to the window."""


def load_settings(file: Path) -> tuple[Settings, str]:
    """Read the settings.

    Returns:
        The settings, and a sentence for the player if the file was broken and had to be set aside.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError(f"over {MAX_FILE_BYTES} bytes")
        return Settings.model_validate_json(raw), ""
    except (FileNotFoundError, NotADirectoryError):
        return Settings(), ""
    except OSError as error:
        return Settings(), f"The settings in {file} cannot be read ({error.strerror}); using the defaults."
    except (ValidationError, ValueError):
        return Settings(), _set_aside(file)


def _set_aside(file: Path) -> str:
    aside = file.with_name(file.name + ".broken")
    try:
        file.replace(aside)
    except OSError as error:
        return (
            f"The settings in {file} are damaged and cannot be moved ({error.strerror}); using the defaults."
        )
    return f"The settings were damaged; they are kept as {aside.name} and the defaults are used."


def save_settings(file: Path, settings: Settings) -> None:
    """Write the settings whole or not at all.

    Raises:
        ValueError: The folder cannot be written, in one sentence.
    """
    make_folder(file.parent)
    with replacing(file) as temporary:
        temporary.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
