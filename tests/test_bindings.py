"""Keys can be given other actions, collisions are shown, and what was changed is kept and no more."""

import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.input.actions import ACTIONS
from client.input.bindings import DEFAULT_BINDINGS, DEFAULT_KEYS, RESERVED, Bindings, key_name, letter_of
from client.screens.menus import KeysMenu

NAMES = [action.name for action in ACTIONS]


def test_a_key_that_two_actions_have_is_shown_on_both_lines() -> None:
    bindings = DEFAULT_BINDINGS.with_keys("photo", DEFAULT_KEYS["record"])
    menu = KeysMenu(bindings)
    warned = [choice.key for choice in menu.choices if choice.warning]
    assert sorted(warned) == ["photo", "record"]
    assert not any(choice.warning for choice in KeysMenu(DEFAULT_BINDINGS).choices)


def test_a_chosen_action_takes_the_next_key_and_loses_its_others() -> None:
    menu = KeysMenu(DEFAULT_BINDINGS, NAMES.index("rise")).wait()
    assert menu.waiting
    taken = menu.take(pygame.KSCAN_O)
    assert not taken.waiting
    assert taken.bindings.action(pygame.KSCAN_O) == "rise"
    assert taken.bindings.action(pygame.KSCAN_SPACE) is None
    assert taken.clear().bindings.keys["rise"] == ()
    assert taken.reset().bindings.changed == {}


@pytest.mark.parametrize("scancode", sorted(RESERVED))
def test_the_way_out_of_menus_cannot_be_taken(scancode: int) -> None:
    menu = KeysMenu(DEFAULT_BINDINGS).wait().take(scancode)
    assert not menu.waiting
    assert menu.bindings == DEFAULT_BINDINGS


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.integers(1, 511), max_size=3).map(tuple)))
def test_bindings_are_made_again_from_what_was_changed(changed: dict[str, tuple[int, ...]]) -> None:
    bindings = Bindings.changed_by(changed, {})
    assert Bindings.changed_by(bindings.changed, {}) == bindings
    for name, keys in changed.items():
        assert bindings.keys[name] == keys


def test_keys_are_named_as_on_the_players_keyboard_once_it_is_known() -> None:
    azerty = Bindings(labels={pygame.KSCAN_W: letter_of(pygame.K_z)})
    assert azerty.label(pygame.KSCAN_W) == "Z"
    assert azerty.label(pygame.KSCAN_A) == "A"
    assert letter_of(pygame.K_F1) == letter_of(pygame.K_SPACE) == letter_of(pygame.K_UNKNOWN) == ""


def test_every_key_at_first_has_a_name_of_its_own() -> None:
    names = [key_name(key) for keys in DEFAULT_KEYS.values() for key in keys]
    assert len(names) == len(set(names))
    assert not any(name.startswith("Key ") for name in names)
