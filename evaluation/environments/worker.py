"""Run in another environment: answer requests, one JSON object a line, by a module beside this file.

    python worker.py MODULE OPTIONS

The module has `open_scorer(options)`, which returns a function from a request to an answer. What its packages print goes to
stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Say whether the packages are there, then answer until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(value: dict) -> None:
        replies.write(json.dumps(value) + "\n")

    try:
        answer = importlib.import_module(sys.argv[1]).open_scorer(json.loads(sys.argv[2]))
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        return
    reply({"ready": True})
    for line in sys.stdin:
        try:
            reply(answer(json.loads(line)))
        except Exception as error:
            reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
