"""The second stage: SANA-WM's LTX-2 refiner, its text connectors and its streaming loop."""

from model.refiner.checkpoint import (
    connectors_from_diffusers,
    from_diffusers,
    load_connectors,
    load_refiner,
    save_refiner,
)
from model.refiner.config import (
    ConnectorConfig,
    RefinerConfig,
    released_connectors,
    released_refiner,
)
from model.refiner.connectors import TextConnectors
from model.refiner.streaming import Refiner

__all__ = [
    "ConnectorConfig",
    "Refiner",
    "RefinerConfig",
    "TextConnectors",
    "connectors_from_diffusers",
    "from_diffusers",
    "load_connectors",
    "load_refiner",
    "released_connectors",
    "released_refiner",
    "save_refiner",
]
