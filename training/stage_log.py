"""The log of a stage: means of its metrics, one JSON line every few steps; a metric's mean is that of the steps which gave it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.files.atomic import replacing


class StageLog:
    """A log that is appended to; lines after the step that a run goes on from are taken back."""

    def __init__(
        self,
        path: Path,
        every: int,
        step: int = 0,
        trained_s: float = 0.0,
        rates: Callable[[float], dict[str, float]] = lambda steps_per_s: {},
    ) -> None:
        """Open.

        Args:
            every: Steps of a line.
            step, trained_s: Where training goes on from.
            rates: More metrics of a line, from its steps per second.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.every, self.rates = path, every, rates
        self.begun_s = trained_s
        self.told: dict[str, list[float]] = {}
        """Since the last line."""
        self.count = 0
        self.latest = ""
        if path.exists():
            kept = [line for line in read_log(path) if line["step"] <= step]
            with replacing(path) as file:
                file.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def add(self, step: int, trained_s: float, metrics: dict[str, float]) -> None:
        """Count one step's metrics."""
        for key, value in metrics.items():
            self.told.setdefault(key, []).append(value)
        self.count += 1
        if self.count >= self.every:
            self.flush(step, trained_s)

    def flush(self, step: int, trained_s: float) -> None:
        """Write the means of the steps since the last line, if there were any."""
        if not self.count:
            return
        means = {key: sum(values) / len(values) for key, values in self.told.items()}
        means |= self.rates(self.count / max(trained_s - self.begun_s, 1e-6))
        means = {key: round(value, 6) for key, value in means.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "trained_s": round(trained_s, 1), **means}) + "\n")
        self.latest = " ".join(f"{key} {value:.4g}" for key, value in means.items())
        self.told, self.count, self.begun_s = {}, 0, trained_s


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log's lines; one that was cut off in the middle of writing is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines
