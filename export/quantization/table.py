"""A searched layer table as a file: which layers keep more bits than the others, for some weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.files.atomic import replacing
from engine.files.bundle import Sha256, first_problem
from engine.machine.assets import checkpoints_dir
from export.quantization.layers import STEP_RULES, LayerRule, Rules, find_rule

SUFFIX = ".layers.json"
MAX_TABLE_BYTES = 1 << 20
LayerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,256}$")]


class SearchedTable(BaseModel):
    """What `flaneur export search` found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    weights_sha256: Sha256
    effective_bits: Annotated[float, Field(ge=4, le=16)]
    """Of the layers that were searched, scales included."""
    layers: Annotated[dict[LayerName, Literal["nvfp4", "fp8", "bf16"]], Field(max_length=65536)]
    """Precision of every layer that was searched."""

    def rules(self) -> Rules:
        """Return the built-in table with the searched layers before it."""
        searched = tuple(
            LayerRule(
                name, precision, f"searched at {self.effective_bits:.2f} bits: 4 cost the velocity too much"
            )
            for name, precision in self.layers.items()
            if precision != "nvfp4"
        )
        return searched + STEP_RULES


def rules_for(path: Path | None, name: str, weights_sha256: str, notice: Callable[[str], None]) -> Rules:
    """Read a table that was searched for some weights: the one named, else the one that is shipped, else the built-in one.

    Args:
        name: Of the model; its table is shipped beside its checkpoint.
        notice: Told in a sentence where the shipped table is for other weights.

    Raises:
        ValueError: The named file is missing, no table, or was searched for other weights or layers.
    """
    found = path or shipped_table(name)
    if found is None:
        return STEP_RULES
    table = read_table(found)
    if table.weights_sha256 == weights_sha256:
        return table.rules()
    if path is not None:
        raise ValueError(f"{path} was searched for other weights; search again with `flaneur export search`")
    notice(f"{found.name} was searched for other weights; the built-in layer table is used")
    return STEP_RULES


def shipped_table(name: str) -> Path | None:
    """Return the table that lies beside a model's checkpoint."""
    path = checkpoints_dir() / f"{name}{SUFFIX}"
    return path if path.is_file() else None


def read_table(path: Path) -> SearchedTable:
    """Read a table.

    Raises:
        ValueError: It cannot be read, is no table, or speaks of layers whose precision is fixed.
    """
    again = "make one with `flaneur export search`"
    try:
        with path.open("rb") as file:
            table = SearchedTable.model_validate_json(file.read(MAX_TABLE_BYTES))
    except OSError as error:
        raise ValueError(f"cannot read the layer table {path} ({error.strerror}); {again}") from None
    except ValidationError as error:
        raise ValueError(f"{path} is no layer table ({first_problem(error)}); {again}") from None
    for name in table.layers:
        if find_rule(name).precision != "low":
            raise ValueError(f"{path} names {name}, whose precision is fixed; {again}")
    return table


def write_table(table: SearchedTable, path: Path) -> None:
    """Write a table, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(table.model_dump_json(indent=1) + "\n")
