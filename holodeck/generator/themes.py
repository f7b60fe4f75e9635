"""Kinds of generated places: which sides, grounds, things and skies go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Weights from which one place of a kind is drawn."""

    nouns: tuple[str, ...]
    """What a caption calls the place."""
    sides: Mapping[str, float]
    grounds: Mapping[str, float]
    soils: Mapping[str, float]
    moods: Mapping[str, float]
    landmarks: tuple[str, ...]
    furniture: tuple[str, ...]
    half_x: tuple[float, float] = (5.5, 8.0)
    """Range of half the floor's side along x, metres; likewise z."""
    half_z: tuple[float, float] = (5.5, 8.0)
    num_landmarks: tuple[int, int] = (1, 2)
    num_furniture: tuple[int, int] = (3, 8)
    earthy: bool = False


DAY = {"noon": 4.0, "sunset": 3.0, "morning": 3.0, "overcast": 1.5, "strange": 1.5, "night": 1.0}
MONUMENTS = ("fountain", "statue", "obelisk", "arch", "pavilion", "kiosk", "dome", "steps")
SOLIDS = ("ball", "cube", "rocket", "cone", "steps", "totem", "dome", "arch")
STREET = ("lamp", "bench", "planter", "umbrella", "flag", "barrel", "poles", "tree")

THEMES: dict[str, Theme] = {
    "square": Theme(
        ("A market square", "A town square", "A plaza"),
        {
            "houses": 6,
            "arcade": 1.2,
            "colonnade": 0.8,
            "towers": 0.5,
            "wall": 0.6,
            "trees": 0.4,
            "temple": 0.8,
        },
        {"slabs": 4, "rings": 2, "sunburst": 2, "planks": 1},
        {"grass": 3, "earth": 2, "stone": 2, "sand": 1},
        DAY,
        MONUMENTS,
        (*STREET, "stall", "stall", "umbrella", "crates"),
    ),
    "colonnade": Theme(
        ("A colonnade", "A temple court", "A court of columns"),
        {"colonnade": 5, "temple": 2, "wall": 1.5, "arcade": 2, "trees": 1, "open": 0.5},
        {"slabs": 4, "rings": 1, "sunburst": 1.5, "planks": 1},
        {"sand": 3, "stone": 2, "grass": 1, "earth": 1},
        {**DAY, "noon": 6.0},
        ("fountain", "statue", "obelisk", "steps", "dome", "pavilion"),
        ("statue", "pillar", "pillar", "palm", "tree", "planter", "bench", "flag"),
    ),
    "canyon": Theme(
        ("A canyon", "A quarry", "A desert valley"),
        {"terraces": 4, "rocks": 4, "open": 0.8, "near wall": 0.3},
        {"meadow": 3, "paths": 1, "rings": 1, "planks": 0.5},
        {"sand": 4, "earth": 4, "snow": 1, "strange": 1},
        {**DAY, "strange": 4.0},
        ("arch", "totem", "steps", "obelisk", "ball", "cone", "statue", "dome"),
        ("cactus", "boulder", "boulder", "pillar", "mushroom", "poles", "barrel"),
        num_landmarks=(1, 3),
        earthy=True,
    ),
    "street": Theme(
        ("A street", "A crossroads", "An avenue"),
        {"towers": 5, "houses": 3, "near wall": 0.6, "arcade": 0.8, "stacks": 0.3},
        {"road": 6, "slabs": 1},
        {"stone": 4, "grass": 1, "earth": 1},
        {**DAY, "night": 9.0},
        ("kiosk", "fountain", "statue", "ball", "obelisk", "arch"),
        ("lamp", "lamp", "lamp", "bench", "poles", "planter", "tree", "flag", "kiosk"),
        half_x=(4.2, 6.0),
        half_z=(7.0, 9.0),
    ),
    "garden": Theme(
        ("A garden", "A park", "A lawn"),
        {"hedge": 4, "trees": 3, "solids": 3, "fence": 1.5, "wall": 1, "houses": 0.6, "open": 0.6},
        {"paths": 5, "rings": 2, "meadow": 3, "sunburst": 1},
        {"grass": 6, "strange": 1, "snow": 0.5},
        DAY,
        (*SOLIDS, "fountain", "pavilion"),
        ("tree", "tree", "planter", "bench", "mushroom", "flag", "ball", "lamp"),
        num_landmarks=(2, 4),
        num_furniture=(3, 7),
    ),
    "plain": Theme(
        ("A wide plain", "A meadow", "An open field"),
        {"open": 5, "fence": 2.5, "trees": 1, "solids": 1, "hedge": 0.5},
        {"meadow": 4, "paths": 2, "rings": 1, "planks": 1},
        {"grass": 4, "sand": 2, "snow": 2, "strange": 1.5, "earth": 1},
        {**DAY, "strange": 3.0},
        (*SOLIDS, "lighthouse", "obelisk", "pavilion"),
        ("flag", "poles", "tree", "boulder", "mushroom", "bench", "crates", "cactus", "lamp"),
        num_landmarks=(2, 4),
        num_furniture=(4, 9),
    ),
    "harbour": Theme(
        ("A harbour", "A quay", "A yard"),
        {"stacks": 5, "open": 2, "fence": 2, "near wall": 1, "towers": 0.5, "wall": 0.5},
        {"planks": 4, "slabs": 2, "road": 1.5},
        {"stone": 4, "sand": 1, "earth": 1},
        {**DAY, "morning": 5.0, "overcast": 3.0},
        ("lighthouse", "kiosk", "cube", "arch", "totem"),
        ("crates", "crates", "barrel", "barrel", "lamp", "poles", "flag", "bench"),
        num_furniture=(5, 10),
    ),
    "ruins": Theme(
        ("A ruin", "Old ruins", "A forgotten court"),
        {"arcade": 3, "colonnade": 2, "rocks": 2, "trees": 2, "wall": 1.5, "terraces": 1},
        {"slabs": 3, "meadow": 3, "sunburst": 1},
        {"grass": 3, "sand": 2, "earth": 2, "stone": 1},
        {**DAY, "overcast": 3.0},
        ("arch", "obelisk", "statue", "steps", "fountain"),
        ("pillar", "pillar", "pillar", "boulder", "tree", "statue", "cactus"),
        num_furniture=(5, 10),
        earthy=True,
    ),
}
"""Places under the open sky."""
OUTDOORS = {
    "square": 3.0,
    "colonnade": 2.0,
    "canyon": 2.0,
    "street": 2.5,
    "garden": 2.5,
    "plain": 2.0,
    "harbour": 1.2,
    "ruins": 1.5,
}
INDOORS = {"rooms": 2.6, "hall": 1.2}
MIXTURE = {"mixture": 2.5}


def mixture(first: Theme, second: Theme) -> Theme:
    """A place between two kinds: sides and things of both, everything else of the first."""
    return Theme(
        first.nouns,
        _sum(first.sides, second.sides),
        _sum(first.grounds, second.grounds),
        first.soils,
        _sum(first.moods, second.moods),
        first.landmarks + second.landmarks,
        first.furniture + second.furniture,
        first.half_x,
        first.half_z,
        second.num_landmarks,
        second.num_furniture,
        first.earthy or second.earthy,
    )


def _sum(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {
        key: first.get(key, 0.0) + second.get(key, 0.0)
        for key in [*first, *(k for k in second if k not in first)]
    }
