"""The card where keys are given other actions: every action with its keys, and which of them collide."""

from __future__ import annotations

from client.input.actions import ACTIONS
from client.input.bindings import RESERVED, Bindings
from client.screens.menu import CardMenu, Choice

_HINT = "Enter, then press a key to take it. Delete leaves an action without a key."
_WAITING = "Press the key to take, or Esc to leave things as they are."


class KeysCard(CardMenu):
    """One line for each action; a line can wait for the key it is to have."""

    def __init__(self, bindings: Bindings, chosen: int = 0, waiting: bool = False) -> None:
        self.bindings = bindings
        self.waiting = waiting
        lines = [_line(bindings, number, waiting and number == chosen) for number in range(len(ACTIONS))]
        super().__init__(
            "Keys",
            [*lines, Choice("default_keys", "All as at first"), Choice("back", "Back")],
            _WAITING if waiting else _HINT,
        )
        self.chosen = chosen

    @property
    def on_action(self) -> bool:
        """Whether the chosen line is an action's."""
        return self.chosen < len(ACTIONS)

    def wait(self) -> KeysCard:
        """Return the card with its chosen action waiting for a key."""
        return KeysCard(self.bindings, self.chosen, waiting=True)

    def take(self, scancode: int) -> KeysCard:
        """Return the card with the chosen action on a key, instead of the keys it had."""
        keys = () if scancode in RESERVED else (scancode,)
        bindings = self.bindings.with_keys(ACTIONS[self.chosen].name, keys) if keys else self.bindings
        return KeysCard(bindings, self.chosen)

    def clear(self) -> KeysCard:
        """Return the card with the chosen action on no key."""
        return KeysCard(self.bindings.with_keys(ACTIONS[self.chosen].name, ()), self.chosen)

    def reset(self) -> KeysCard:
        """Return the card with every action on the keys it had at first."""
        return KeysCard(self.bindings.with_defaults(), self.chosen)


def _line(bindings: Bindings, number: int, waiting: bool) -> Choice:
    action = ACTIONS[number]
    rivals = bindings.rivals(action.name)
    names = ", ".join(bindings.label(key) for key in bindings.keys[action.name]) or "none"
    label = action.label[:1].upper() + action.label[1:]
    if rivals:
        label = f"{label} (also {rivals[0].label})"
    return Choice(action.name, label, "..." if waiting else names, warning=bool(rivals), fixed=True)
