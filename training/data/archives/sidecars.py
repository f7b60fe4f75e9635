"""What lies beside an archive of clips: captions, scores and scales by clip, as JSON or JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

MAX_SIDECAR_BYTES = 1 << 28
SCORE_NAMES = (
    "score",
    "vmafmotion_score",
    "dover_score",
    "quality_pass",
    "entity_count",
    "unimatch_flow_score",
    "median",
)
"""Where the public data keeps the number that counts, in the order of looking."""


def read_sidecar(base: Path) -> dict[str, Any]:
    """Read `base`.json, or `base`.jsonl in its absence, as values by clip; empty where there is neither.

    JSON may be an object by clip, or a list whose items name their clip as "key"; so do JSON lines.

    Raises:
        ValueError: It is too large or not JSON, in one sentence.
    """
    for suffix in (".json", ".jsonl"):
        path = base.with_name(base.name + suffix)
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise ValueError(f"{path} is over {MAX_SIDECAR_BYTES >> 20} MB; split its archive")
        try:
            text = path.read_text(encoding="utf-8-sig")
            lines = [line for line in text.splitlines() if line.strip()]
            values = json.loads(text) if suffix == ".json" else [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON; write it again") from error
        if isinstance(values, list):
            return {str(item["key"]): item for item in values if isinstance(item, dict) and "key" in item}
        return values if isinstance(values, dict) else {}
    return {}


def score_of(value: Any) -> float | None:
    """Find the number in a score: itself, the mean of a list, or what an object calls its score; None where there is none."""
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list):
        numbers = [float(item) for item in value if isinstance(item, int | float)]
        return score_of(sum(numbers) / len(numbers)) if numbers else None
    if isinstance(value, dict):
        named = [value[name] for name in SCORE_NAMES if name in value]
        scores = (score_of(item) for item in [*named, *value.values()] if not isinstance(item, dict))
        return next((score for score in scores if score is not None), None)
    return None


def caption_of(value: Any) -> str | None:
    """Find the words in a caption: itself, or an object's "prompt"; None where there are none."""
    if isinstance(value, dict):
        value = value.get("prompt")
    return value if isinstance(value, str) and value.strip() else None
