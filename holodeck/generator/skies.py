"""Times of day and weather of a generated place."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from holodeck.generator.dice import Dice
from holodeck.generator.palette import mix
from holodeck.shapes import Color, hex_color
from holodeck.sky import Sky


@dataclass(frozen=True)
class Mood:
    """Ranges that a sky is drawn from."""

    phrase: str
    """As it stands in a caption."""
    colors: tuple[tuple[str, str, str], ...]
    """Choices of zenith, horizon and sun."""
    elevation_deg: tuple[float, float]
    ambient: tuple[float, float]
    fog_m: tuple[float, float]
    sun_radius_deg: tuple[float, float] = (4.0, 8.0)
    night: bool = False


MOODS = {
    "noon": Mood(
        "at noon",
        (
            ("1673c9", "c9ecf7", "fffbe0"),
            ("57b8ff", "fde2ef", "fffbe6"),
            ("2f8fd8", "e8f4d8", "fff8d0"),
            ("3a6fd0", "cfe3ff", "ffffff"),
        ),
        (38, 62),
        (0.52, 0.64),
        (45, 80),
    ),
    "sunset": Mood(
        "at sunset",
        (
            ("5b4fa8", "ffb07a", "fff1c4"),
            ("3d4a8f", "ff8f6b", "ffe2a0"),
            ("7a4b94", "ffc56b", "fff4d0"),
            ("28568c", "f79a8c", "ffe9c9"),
        ),
        (18, 32),
        (0.5, 0.62),
        (38, 60),
        (5.0, 10.0),
    ),
    "morning": Mood(
        "in the morning",
        (("7fb2e5", "ffe8c2", "fff6d8"), ("8ec9d6", "fbe3cf", "fffbe8"), ("9aa7e0", "ffd9d4", "fff2e0")),
        (22, 40),
        (0.56, 0.66),
        (32, 60),
    ),
    "overcast": Mood(
        "under a grey sky",
        (("8d99a8", "d3d8dc", "eef0f0"), ("6f7f8f", "c5cdd0", "dde2e4"), ("a09aa8", "ded8d4", "f2eeea")),
        (45, 65),
        (0.66, 0.76),
        (28, 55),
        (3.0, 4.0),
    ),
    "strange": Mood(
        "under a strange sky",
        (
            ("0f9aa8", "fbe6b8", "fffdf0"),
            ("c04d8a", "ffd9a0", "fff6e0"),
            ("2c7a58", "d9f2b0", "fdffe0"),
            ("5a2a83", "8ee0d0", "ffffff"),
            ("b5482f", "f6d58c", "fff0c0"),
        ),
        (25, 50),
        (0.5, 0.64),
        (40, 70),
        (5.0, 12.0),
    ),
    "night": Mood(
        "at night",
        (
            ("0b0a2a", "5a2a83", "f4f0d8"),
            ("07142e", "1f4f78", "e8f0ff"),
            ("120a20", "6b2a4a", "ffe8d0"),
            ("061a1e", "17605c", "f0ffe8"),
        ),
        (24, 45),
        (0.7, 0.82),
        (38, 60),
        (5.0, 10.0),
        True,
    ),
}


def draw_sky(dice: Dice, mood: Mood) -> Sky:
    """Draw a sky of a mood: a choice of its colours, turned a little in hue, with or without hills and bands."""
    turn = dice.between(-14, 14)
    zenith, horizon, sun = (_turned(hex_color(code), turn) for code in dice.pick(mood.colors))
    has_hills = dice.chance(0.7)
    hills = mix(
        mix(zenith, horizon, dice.between(0.3, 0.7)),
        _turned(zenith, dice.between(60, 180)),
        dice.between(0.1, 0.35),
    )
    return Sky(
        zenith=zenith,
        horizon=horizon,
        sun_color=sun,
        sun_azimuth_deg=dice.between(-180, 180),
        sun_elevation_deg=dice.between(*mood.elevation_deg),
        sun_radius_deg=dice.between(*mood.sun_radius_deg),
        halo=dice.between(0.2, 0.5),
        hills=hills if has_hills else None,
        hill_height_deg=dice.between(4, 15),
        hill_seed=dice.count(0, 9999),
        ambient=dice.between(*mood.ambient),
        fog_m=dice.between(*mood.fog_m),
        stripes=dice.count(5, 10) if dice.chance(0.12) else 0,
    )


def _turned(color: Color, degrees: float) -> Color:
    hue, lightness, saturation = colorsys.rgb_to_hls(*color)
    return colorsys.hls_to_rgb((hue + degrees / 360.0) % 1.0, lightness, saturation)
