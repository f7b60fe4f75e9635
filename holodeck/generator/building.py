"""One generated place from a seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from holodeck.generator import interiors
from holodeck.generator.dice import Dice
from holodeck.generator.features import FEATURES
from holodeck.generator.grounds import GROUNDS, draw_soil
from holodeck.generator.names import MAX_SEED, generated_name
from holodeck.generator.palette import color_name, draw_palette, mix
from holodeck.generator.plan import Plan, Rectangle, outline, paint_brushes
from holodeck.generator.side import Side
from holodeck.generator.sides import SIDES, skyline
from holodeck.generator.skies import MOODS, draw_sky
from holodeck.generator.themes import INDOORS, MIXTURE, OUTDOORS, THEMES, Theme, mixture
from holodeck.generator.walkable import choose_start, is_walkable
from holodeck.place import Place
from holodeck.shapes import Color
from holodeck.sky import Sky

CEILING_GAP_M = 0.45
"""Least distance of the camera from a ceiling."""
HIGHEST_M = 2.9
HALL_THINGS = replace(
    THEMES["colonnade"],
    landmarks=("fountain", "statue", "totem", "cube", "ball"),
    furniture=("statue", "planter", "bench", "crates", "totem"),
    num_furniture=(2, 5),
)
MOST_NAMED = 5
PLURALS = {feature.phrase: feature.plural for feature in FEATURES.values()}
NUMBERS = {2: "two", 3: "three", 4: "four"}


def place_kind(seed: int) -> str:
    """The kind of place that grows from a seed: a key of OUTDOORS, INDOORS or MIXTURE."""
    return _draw_kind(Dice(seed))


def _draw_kind(dice: Dice) -> str:
    return dice.weighted({**OUTDOORS, **INDOORS, **MIXTURE})


def generate_place(seed: int) -> Place:
    """Generate the place of a seed.

    Raises:
        ValueError: The seed is not a whole number from 0 to MAX_SEED.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"the seed {seed} of a place is out of range; use 0 to {MAX_SEED}")
    dice = Dice(seed)
    kind = _draw_kind(dice)
    if kind in INDOORS:
        return _indoors(seed, dice, kind)
    if kind in THEMES:
        return _outdoors(seed, dice, THEMES[kind])
    first, second = dice.shuffled(list(THEMES))[:2]
    return _outdoors(seed, dice, mixture(THEMES[first], THEMES[second]))


def _outdoors(seed: int, dice: Dice, theme: Theme) -> Place:
    mood = MOODS[dice.weighted(theme.moods)]
    plan = Plan(
        dice, draw_palette(dice, theme.earthy), mood, dice.between(*theme.half_x), dice.between(*theme.half_z)
    )
    soil = draw_soil(plan, dice.weighted(theme.soils))
    GROUNDS[dice.weighted(theme.grounds)](plan, soil)
    sides = _build_sides(plan, theme)
    skyline(plan)
    inset = dice.between(0.0, 0.6)
    bounds = (-plan.half_x + inset, -plan.half_z + inset, plan.half_x - inset, plan.half_z - inset)
    _furnish(plan, theme, bounds)
    noun = dice.pick(theme.nouns)
    caption = describe(plan, noun, mood.phrase, sides)
    edge = mix(plan.palette.light, plan.wall_color(), dice.pick((0.0, 0.0, 0.6)))
    return _finish(seed, plan, noun, caption, soil, draw_sky(dice, mood), bounds, edge)


def _build_sides(plan: Plan, theme: Theme) -> list[str]:
    """Build all four sides; returns what a caption calls them."""
    chosen = [plan.dice.weighted(theme.sides) for _ in range(4)]
    if plan.dice.chance(0.3):
        chosen[2] = chosen[0]
    for index in plan.dice.shuffled(range(4)):
        SIDES[chosen[index]][0](plan, Side(index, plan.half_x, plan.half_z))
    return [SIDES[name][1] for name in chosen]


def _furnish(plan: Plan, theme: Theme, bounds: Rectangle) -> None:
    """Stand landmarks and furniture on the floor as long as it stays walkable."""
    dice = plan.dice
    favourites = dice.shuffled(theme.furniture)[: dice.count(2, 4)]
    names = [dice.pick(theme.landmarks) for _ in range(dice.count(*theme.num_landmarks))]
    names += [dice.pick(favourites) for _ in range(dice.count(*theme.num_furniture))]
    for n, name in enumerate(names):
        for _ in range(6):
            reach = 0.45 if n == 0 else 0.92
            x, z = dice.between(-reach, reach) * plan.half_x, dice.between(-reach, reach) * plan.half_z
            if plan.stand(FEATURES[name].build(plan, x, z), FEATURES[name].phrase):
                if is_walkable(plan, bounds):
                    _set_off(plan, x, z)
                    break
                plan.features.pop()


def _set_off(plan: Plan, x: float, z: float) -> None:
    """Now and then paint a round of ground under what stands there."""
    if plan.dice.chance(0.3):
        low_x, low_z, high_x, high_z = outline(plan.features[-1].shapes)
        radius = max(high_x - low_x, high_z - low_z) / 2 + plan.dice.between(0.3, 1.1)
        color = mix(plan.wall_color(), plan.palette.light, plan.dice.between(0.0, 0.6))
        plan.paint("circle", x, z, radius, mix(color, (0.1, 0.1, 0.2), 0.5) if plan.mood.night else color)


def _indoors(seed: int, dice: Dice, kind: str) -> Place:
    mood = MOODS[dice.weighted({"noon": 3.0, "sunset": 1.0, "morning": 1.0})]
    is_hall = kind == "hall"
    columns, rows = (
        (1, 1) if is_hall else dice.pick(((1, 2), (2, 1), (2, 2), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2)))
    )
    room = (5.5, 8.0) if is_hall else (2.4, 3.8)
    plan = Plan(dice, draw_palette(dice), mood, columns * dice.between(*room), rows * dice.between(*room))
    height = dice.between(3.4, 5.6) if is_hall else dice.between(2.8, 4.2)
    soil = draw_soil(plan, "grass")
    if is_hall:
        interiors.build_hall(plan, height)
    else:
        rooms = interiors.build_rooms(plan, columns, rows, height)
        interiors.furnish_rooms(plan, rooms, height)
    for index in range(4):
        SIDES[dice.pick(("trees", "hedge", "solids", "open"))][0](
            plan, Side(index, plan.half_x + 1.5, plan.half_z + 1.5)
        )
    bounds = (-plan.half_x, -plan.half_z, plan.half_x, plan.half_z)
    while plan.features and not is_walkable(plan, bounds):
        plan.features.pop()
    if is_hall:
        _furnish(plan, HALL_THINGS, bounds)
    noun = "A hall" if is_hall else dice.pick(("A gallery", "A house of rooms", "A museum"))
    sides = [] if is_hall else [f"{columns * rows} rooms joined by doorways"]
    caption = describe(plan, noun, "in daylight", sides)
    sky = replace(draw_sky(dice, mood), ambient=dice.between(0.72, 0.84), fog_m=60.0)
    ceiling_m = min(HIGHEST_M, height - CEILING_GAP_M)
    return replace(_finish(seed, plan, noun, caption, soil, sky, bounds, None), ceiling_m=ceiling_m)


def _finish(
    seed: int,
    plan: Plan,
    noun: str,
    caption: str,
    soil: Color,
    sky: Sky,
    bounds: Rectangle,
    edge_color: Color | None,
) -> Place:
    start = choose_start(plan, bounds)
    return Place(
        name=generated_name(seed),
        title=f"{noun.split(' ', 1)[-1].capitalize()} {seed}",
        caption=caption,
        shapes=plan.shapes,
        sky=sky,
        ground_color=soil,
        paint_ground=partial(paint_brushes, tuple(plan.brushes)),
        bounds=bounds,
        edge_color=edge_color,
        spawn_xz=start.xz,
        spawn_yaw_deg=start.yaw_deg,
    )


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
