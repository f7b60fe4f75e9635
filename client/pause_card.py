"""The card of a paused walk: going on, settings, leaving."""

from __future__ import annotations

from typing import get_args

from client.menu import CardMenu, Choice
from client.picture import Style
from client.settings import Settings

_MOUSE_STEP = 1.25
_PACE_STEP = 1.25
_STYLES: tuple[Style, ...] = get_args(Style)


def pause_card(settings: Settings, chosen: int = 0) -> CardMenu:
    """Return the card with the settings' present values."""
    card = CardMenu(
        "Paused",
        [
            Choice("resume", "Go on"),
            Choice("pace", "Walking speed", f"{100 * settings.pace:.0f} %"),
            Choice("mouse", "Mouse speed", f"{settings.mouse_deg_px:.2f} deg/px"),
            Choice("invert", "Mouse up looks", "down" if settings.invert_y else "up"),
            Choice("picture", "Edges", settings.picture),
            Choice("reproject", "Instant look", "on" if settings.reproject else "off"),
            Choice("hud", "Figures", "on" if settings.hud else "off"),
            Choice("reset", "Start again"),
            Choice("worlds", "Other worlds"),
            Choice("quit", "Quit"),
        ],
    )
    card.chosen = chosen
    return card


def adjust(settings: Settings, key: str, direction: int) -> Settings:
    """Return the settings with one value moved up (1) or down (-1); unchanged for a line without a value."""
    if key == "mouse":
        mouse_deg_px = settings.mouse_deg_px * _MOUSE_STEP**direction
        return settings.model_copy(update={"mouse_deg_px": max(0.01, min(2.0, mouse_deg_px))})
    if key == "pace":
        return settings.model_copy(update={"pace": changed_pace(settings.pace, direction)})
    if key == "invert":
        return settings.model_copy(update={"invert_y": not settings.invert_y})
    if key == "picture":
        style = _STYLES[(_STYLES.index(settings.picture) + direction) % len(_STYLES)]
        return settings.model_copy(update={"picture": style})
    if key == "reproject":
        return settings.model_copy(update={"reproject": not settings.reproject})
    if key == "hud":
        return settings.model_copy(update={"hud": not settings.hud})
    return settings


def changed_pace(pace: float, direction: int) -> float:
    """Return the walking speed one step faster (1) or slower (-1), within a quarter and four times the world's."""
    return max(0.25, min(4.0, round(pace * _PACE_STEP**direction, 3)))
