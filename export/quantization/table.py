"""A searched layer table as a file: which layers keep more bits than the others, for some weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.files.atomic import replacing
from engine.files.bundle import Sha256, first_problem
from export.quantization.layers import STEP_RULES, LayerRule, Rules, find_rule

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


def read_rules(path: Path | None, weights_sha256: str) -> Rules:
    """Read a table that was searched for these weights; the built-in one where there is no path.

    Raises:
        ValueError: The file is missing, no table, or was searched for other weights or layers.
    """
    if path is None:
        return STEP_RULES
    try:
        with path.open("rb") as file:
            table = SearchedTable.model_validate_json(file.read(MAX_TABLE_BYTES))
    except OSError as error:
        raise ValueError(
            f"cannot read the layer table {path} ({error.strerror}); make one with `flaneur export search`"
        ) from None
    except ValidationError as error:
        raise ValueError(
            f"{path} is no layer table ({first_problem(error)}); make one with `flaneur export search`"
        ) from None
    if table.weights_sha256 != weights_sha256:
        raise ValueError(f"{path} was searched for other weights; search again with `flaneur export search`")
    for name in table.layers:
        if find_rule(name).precision != "low":
            raise ValueError(
                f"{path} names {name}, whose precision is fixed; search again with `flaneur export search`"
            )
    return table.rules()


def write_table(table: SearchedTable, path: Path) -> None:
    """Write a table, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(table.model_dump_json(indent=1) + "\n")
