"""Endless places: a seed in, a place in the manner of the hand-made ones out, the same on every machine.

A generated place is called `generated-SEED`. Nothing here renders; a generated place is a `Place` like any other.
"""

from holodeck.generator.building import generate_place, place_kind
from holodeck.generator.names import expand_range, generated_name, generated_seed

__all__ = ["expand_range", "generate_place", "generated_name", "generated_seed", "place_kind"]
