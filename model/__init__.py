"""The world model: a function of tensors, and the arithmetic around it.

It knows nothing about files other than checkpoints, and nothing about threads, clocks or windows.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.conditioning import Conditioning
    from model.config import ModelConfig, pocket, sana_wm, tiny
    from model.world_model import WorldModel

__all__ = ["Conditioning", "ModelConfig", "WorldModel", "pocket", "sana_wm", "tiny"]

_MODULES = {"Conditioning": "model.conditioning", "WorldModel": "model.world_model"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that configs are read without torch."""
    if name not in __all__:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "model.config")), name)
