"""Asking a program that runs in another environment's Python, line by line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")


@dataclass
class OtherPython:
    """A scorer in another environment; its process starts with the first request and ends with `close`."""

    python: Path
    """Of the environment."""
    module: str
    """Beside the worker."""
    needs: str
    """What must be installed there, for a sentence."""
    options: Mapping[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            ValueError: There is no such Python, something is missing there, or the request failed; in one sentence.
        """
        if self._process is None:
            self._process = self._start()
            answer = self._receive()
            if "error" in answer:
                self.close()
                raise ValueError(
                    f"{self.needs} cannot be used in the environment of {self.python} ({_short(answer['error'])}); "
                    "install it there with its weights, or leave the option out"
                )
        assert self._process.stdin is not None, "it is a pipe"
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        answer = self._receive()
        if "error" in answer:
            raise ValueError(f"{self.needs} failed: {_short(answer['error'])}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "it is a pipe"
            pipe.close()
        self._process.wait()
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        command = [str(self.python), str(WORKER), self.module, json.dumps(dict(self.options))]
        try:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise ValueError(
                f"cannot run {self.python} ({error.strerror}); name the Python of an environment with {self.needs}"
            ) from error

    def _receive(self) -> dict[str, Any]:
        assert self._process is not None, "it was started"
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return dict(json.loads(line))

    def _ended(self) -> ValueError:
        self.close()
        return ValueError(f"the program of {self.python} ended without an answer; its last lines say why")


def _short(text: str) -> str:
    """The first line of an error, cut to a sentence's length."""
    return text.strip().splitlines()[0][:200].rstrip(".") if text.strip() else "no reason given"
