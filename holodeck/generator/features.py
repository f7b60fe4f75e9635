"""The table of what can stand on the floor of a generated place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holodeck.generator import furniture, landmarks
from holodeck.generator.plan import Plan
from holodeck.shapes import Shape


@dataclass(frozen=True)
class Feature:
    """One kind of thing."""

    build: Callable[[Plan, float, float], list[Shape]]
    """Makes its shapes, centred on (x, z) in metres."""
    phrase: str
    """One of it, as in a caption."""
    plural: str


FEATURES = {
    "fountain": Feature(landmarks.fountain, "a fountain", "fountains"),
    "statue": Feature(landmarks.statue, "a statue", "statues"),
    "obelisk": Feature(landmarks.obelisk, "an obelisk", "obelisks"),
    "arch": Feature(landmarks.arch, "an arch", "arches"),
    "ball": Feature(landmarks.giant_ball, "a giant ball", "giant balls"),
    "cube": Feature(landmarks.giant_cube, "a giant cube", "giant cubes"),
    "rocket": Feature(landmarks.rocket, "a rocket", "rockets"),
    "cone": Feature(landmarks.giant_cone, "a giant cone", "giant cones"),
    "dome": Feature(landmarks.dome, "a dome", "domes"),
    "steps": Feature(landmarks.steps, "a stepped pyramid", "stepped pyramids"),
    "pavilion": Feature(landmarks.pavilion, "a pavilion", "pavilions"),
    "totem": Feature(landmarks.totem, "a totem", "totems"),
    "kiosk": Feature(landmarks.kiosk, "a kiosk", "kiosks"),
    "lighthouse": Feature(landmarks.lighthouse, "a lighthouse", "lighthouses"),
    "lamp": Feature(furniture.lamp, "a lamp", "lamps"),
    "umbrella": Feature(furniture.umbrella, "an umbrella", "umbrellas"),
    "tree": Feature(furniture.tree, "a tree", "trees"),
    "palm": Feature(furniture.palm, "a palm", "palms"),
    "cactus": Feature(furniture.cactus, "a cactus", "cacti"),
    "mushroom": Feature(furniture.mushroom, "a mushroom", "mushrooms"),
    "bench": Feature(furniture.bench, "a bench", "benches"),
    "planter": Feature(furniture.planter, "a planter", "planters"),
    "crates": Feature(furniture.crates, "a stack of crates", "stacks of crates"),
    "barrel": Feature(furniture.barrel, "a barrel", "barrels"),
    "flag": Feature(furniture.flag, "a flag", "flags"),
    "poles": Feature(furniture.poles, "a row of poles", "rows of poles"),
    "stall": Feature(furniture.stall, "a market stall", "market stalls"),
    "boulder": Feature(furniture.boulder, "a boulder", "boulders"),
    "pillar": Feature(furniture.pillar, "a column", "columns"),
}
