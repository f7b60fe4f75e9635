"""Colours of a generated place: a harmony of hues with a light, a dark, foliage, water and lights."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from holodeck.generator.dice import Dice
from holodeck.shapes import Color, hex_color

HARMONIES = {
    "triad": (0, 120, 240, 30),
    "tetrad": (0, 85, 180, 265),
    "complement": (0, 22, 180, 205),
    "split": (0, 150, 210, 25),
    "warm cool": (0, 35, 200, 330),
    "near": (0, 28, 52, 180),
}
"""Hue angles of the four main colours from a random first, degrees."""
FAVOURITES = (
    ("d8452e", "2f6fb5", "f2b42c", "3f9b6c"),
    ("ee7b30", "1fa6a0", "f5c518", "1d3f72"),
    ("cf3f3a", "2d62b0", "2f9461", "f0b323"),
    ("e07a5f", "3d405b", "81b29a", "f2cc8f"),
    ("264653", "2a9d8f", "e9c46a", "e76f51"),
    ("8ecae6", "219ebc", "ffb703", "fb8500"),
    ("f25c9a", "2b59c3", "ffd23f", "e63946"),
    ("606c38", "dda15e", "bc6c25", "a3b18a"),
    ("9b5de5", "f15bb5", "fee440", "00a0d9"),
    ("ef476f", "ffd166", "16b890", "118ab2"),
    ("6d597a", "b56576", "e56b6f", "eaac8b"),
    ("335c67", "e09f3e", "9e2a2b", "d9c58f"),
    ("c1666b", "48639c", "d4b483", "4c956c"),
    ("f4845f", "f7b267", "4f518c", "907ad6"),
    ("7fb069", "e6aa68", "ca3c25", "3d6a8a"),
    ("b8402a", "e8793a", "17a5b4", "7b3fa0"),
)
"""Tried sets of four main colours."""
GARISH = ((70.0, 165.0), (280.0, 335.0))
"""Ranges of hue that look cheap when they are pure, degrees."""
TONES = {
    "bold": ((0.62, 0.86), (0.68, 0.94)),
    "pastel": ((0.26, 0.45), (0.84, 0.95)),
    "deep": ((0.5, 0.75), (0.38, 0.6)),
}
"""Ranges of saturation and value."""
LEAVES = ("2f9e44", "1b6b3a", "6a9c2f", "17753a", "d98324", "e8a0bf", "2a8f83", "9bbf3b", "b5442e", "47845a")
TRUNKS = ("7a4a2b", "5a3d2b", "8c6239", "4a3b3a")
WATERS = ("4fc3d9", "1fa6a0", "39c0d8", "2f7fc1", "7fd6c2", "5468b5")
LIGHTS = ("ff2f92", "22d3ee", "ffb627", "9be15d", "ff6b3d", "b388ff", "fff3b0")
EARTH = (15.0, 48.0)
"""Hues of stone, clay and sand, degrees."""


@dataclass(frozen=True)
class Palette:
    """What everything in a place is painted with."""

    walls: tuple[Color, ...]
    """Four main colours."""
    light: Color
    dark: Color
    leaves: tuple[Color, Color]
    trunk: Color
    water: Color
    lights: tuple[Color, ...]


def draw_palette(dice: Dice, earthy: bool = False) -> Palette:
    """Draw a palette; an earthy one keeps two of its main colours to stone, clay and sand."""
    walls = _favourite(dice) if dice.chance(0.6) else _harmony(dice)
    if earthy:
        stone = tuple(
            hsv(dice.between(*EARTH), dice.between(0.4, 0.72), dice.between(0.55, 0.9)) for _ in range(2)
        )
        walls = (*stone, *walls[2:])
    tint = colorsys.rgb_to_hsv(*dice.pick(walls))[0] * 360
    leaf = hex_color(dice.pick(LEAVES))
    return Palette(
        walls=walls,
        light=hsv(tint, dice.between(0.02, 0.14), dice.between(0.92, 0.98)),
        dark=hsv(tint, dice.between(0.25, 0.5), dice.between(0.14, 0.26)),
        leaves=(leaf, shade(leaf, dice.between(0.62, 0.85))),
        trunk=hex_color(dice.pick(TRUNKS)),
        water=hex_color(dice.pick(WATERS)),
        lights=tuple(hex_color(code) for code in dice.shuffled(LIGHTS)[:4]),
    )


def _favourite(dice: Dice) -> tuple[Color, ...]:
    """One of the tried sets, its hues turned a little."""
    turn, colors = dice.between(-16, 16), []
    for code in dice.shuffled(dice.pick(FAVOURITES)):
        hue, saturation, value = colorsys.rgb_to_hsv(*hex_color(code))
        colors.append(
            hsv(
                hue * 360 + turn + dice.between(-4, 4), min(1.0, saturation * dice.between(0.88, 1.08)), value
            )
        )
    return tuple(colors)


def _harmony(dice: Dice) -> tuple[Color, ...]:
    """Four hues in harmony from a random first."""
    (low_s, high_s), (low_v, high_v) = TONES[dice.weighted({"bold": 0.64, "pastel": 0.18, "deep": 0.18})]
    first, colors = dice.between(0, 360), []
    for turn in dice.pick(list(HARMONIES.values())):
        hue = (first + turn + dice.between(-10, 10)) % 360
        saturation, value = dice.between(low_s, high_s), dice.between(low_v, high_v)
        if any(low < hue < high for low, high in GARISH):
            saturation, value = saturation * 0.7, value * 0.84
        colors.append(hsv(hue, saturation, value))
    return tuple(colors)


def hsv(hue_deg: float, saturation: float, value: float) -> Color:
    """Turn hue, saturation and value into RGB in [0, 1]."""
    return colorsys.hsv_to_rgb(hue_deg / 360.0 % 1.0, saturation, value)


def shade(color: Color, factor: float) -> Color:
    """Make a colour darker (factor under 1) or lighter."""
    return tuple(min(1.0, channel * factor) for channel in color)  # type: ignore[return-value]


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colours; `share` is the second's."""
    a, b, c = (x + share * (y - x) for x, y in zip(first, second, strict=True))
    return a, b, c


def luminance(color: Color) -> float:
    """Brightness as the eye weighs it, in [0, 1]."""
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def color_name(color: Color) -> str:
    """Name a colour in one plain word."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    if value < 0.25:
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.8 else "grey"
    names = (
        (14, "red"),
        (42, "orange"),
        (68, "yellow"),
        (160, "green"),
        (195, "turquoise"),
        (255, "blue"),
        (290, "purple"),
        (340, "pink"),
    )
    name = next((name for limit, name in names if hue * 360 < limit), "red")
    return "brown" if name == "orange" and value < 0.6 else name
