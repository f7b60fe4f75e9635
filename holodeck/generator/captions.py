"""Captions of generated places: what stands there, without a word about the camera."""

from __future__ import annotations

from collections import Counter

from holodeck.generator.features import FEATURES
from holodeck.generator.palette import color_name
from holodeck.generator.plan import Plan

MOST_NAMED = 5
PLURALS = {feature.phrase: feature.plural for feature in FEATURES.values()}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def describe(plan: Plan, noun: str, time: str, sides: list[str]) -> str:
    """Write one sentence: kind of place, time of day, what surrounds it, what stands in it."""
    colors = list(dict.fromkeys(color_name(color) for color in plan.palette.walls))[:3]
    parts = [f"{noun} {time} in {_joined(colors)}"]
    around = list(dict.fromkeys(sides))
    if around:
        parts.append(f"with {_joined(around)}")
    counts = Counter(group.phrase for group in plan.groups if group.phrase and group.phrase not in around)
    things = [_counted(phrase, count) for phrase, count in counts.most_common(MOST_NAMED)]
    return " ".join(parts) + (f"; {', '.join(things)}." if things else ".")


def _counted(phrase: str, count: int) -> str:
    if count == 1 or phrase not in PLURALS:
        return phrase
    return f"{NUMBERS.get(count, 'many')} {PLURALS[phrase]}"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
