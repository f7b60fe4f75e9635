"""Errors of the engine that a user can act upon.

    EngineError
      SpecMismatch          a file is damaged, foreign, or does not fit the file beside it
      BackendUnavailable    this machine cannot run what was asked for
      BuildFailed           an engine could not be built
      RolloutDiverged       the latents are not finite

Every message is one sentence with its remedy. A bad argument is a ValueError.
"""

from __future__ import annotations


class EngineError(Exception):
    """Anything of the engine's that a user can read and act upon."""


class SpecMismatch(EngineError):
    """A bundle or a world is damaged, from another version, or does not fit what it is used with."""


class BackendUnavailable(EngineError):
    """This machine or installation cannot run the backend that was asked for."""


class BuildFailed(EngineError):
    """An engine could not be built from a bundle."""


class RolloutDiverged(EngineError):
    """A step made latents that are not finite; the rollout must be reset or restored."""
