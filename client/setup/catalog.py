"""The worlds and the engines to choose from: worlds read from their files, engines as this machine has them.

The machine is asked on a thread, since drivers answer slowly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.files.world import WorldEntry, list_worlds, read_world
from engine.machine import assets, doctor
from engine.machine.hardware import num_cores
from engine.session.opening import BackendName, check_backend

_FOREIGN = "made for a model that is not installed"


@dataclass(frozen=True, eq=False)
class WorldChoice:
    """A world as the start screen shows it."""

    name: str
    title: str
    note: str
    """What is to be seen there."""
    picture: NDArray[np.uint8] | None
    """First frame, [H, W, 3]; None where it cannot be read."""
    problem: str = ""
    """Why it cannot be played, in one sentence."""
    model: str = ""
    """What makes its pictures."""


def world_choices(folders: Sequence[Path], backend: BackendName) -> list[WorldChoice]:
    """Return a choice for each world; one that cannot be read says why."""
    models = _model_names()
    return [_choice(entry, backend, models) for entry in list_worlds(folders)]


def _model_names() -> dict[str, str]:
    """Return which models are installed: what each is called, by the hash of its weights."""
    names: dict[str, str] = {}
    for name in assets.bundle_names():
        # A damaged bundle is explained when a world is opened with it.
        with suppress(EngineError):
            names[assets.find_bundle(name, verify=False).spec.weights_sha256] = f"dreamed by {name}"
    return names


def _choice(entry: WorldEntry, backend: BackendName, models: Mapping[str, str]) -> WorldChoice:
    path = str(entry.path)
    try:
        world = read_world(entry.path)
    except EngineError as error:
        return WorldChoice(path, entry.title, "", None, entry.problem or str(error))
    made_by = "drawn exactly, no model" if backend == "holodeck" else models.get(world.info.model, _FOREIGN)
    return WorldChoice(path, world.title, world.info.caption, world.first_frame, model=made_by)


def index_of(choices: Sequence[WorldChoice], name_or_path: str | None) -> int:
    """Return the place of a world in the list, 0 if it is not there."""
    if name_or_path is not None:
        for i, choice in enumerate(choices):
            if choice.name == name_or_path or Path(choice.name).stem == Path(name_or_path).stem:
                return i
    return 0


TITLES: Mapping[str, str] = {
    "auto": "The fastest here",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "holodeck": "Exact drawing",
}


@dataclass(frozen=True)
class EngineChoice:
    """One engine, as the start screen offers it."""

    backend: BackendName
    detail: str
    """What it is or why it cannot be had, with the remedy; sentences."""
    available: bool

    @property
    def title(self) -> str:
        return TITLES[self.backend]


def engine_choices() -> tuple[EngineChoice, ...]:
    """Ask this machine what each engine could do here; takes as long as the driver of its GPU."""
    runtime, tensorrt = _onnxruntime(), _tensorrt()
    fastest = "TensorRT" if tensorrt.available else "ONNX Runtime"
    return (
        EngineChoice("auto", f"Takes {fastest} on this machine.", runtime.available or tensorrt.available),
        runtime,
        tensorrt,
        EngineChoice("holodeck", "Draws a place exactly as it was built: no model, and no dream.", True),
    )


def _onnxruntime() -> EngineChoice:
    checks = [doctor.check_module("onnxruntime", "onnxruntime"), doctor.check_cpu_flags(doctor.cpu_flags())]
    checks.append(doctor.check_bundles())
    if problems := [check for check in checks if check.status == "problem"]:
        return EngineChoice("onnxruntime", _sentence(problems[0]), False)
    version, vectors, bundles = (check.detail for check in checks)
    detail = (
        f"Runs {bundles} on the processor: {num_cores()} cores, {vectors}. Version {version}, no GPU needed."
    )
    return EngineChoice("onnxruntime", detail, True)


def _tensorrt() -> EngineChoice:
    gpu = doctor.check_gpu()
    try:
        check_backend("tensorrt")
    except EngineError as error:
        # What follows the reason is a remedy for the command line.
        reason = str(error).partition(";")[0]
        return EngineChoice("tensorrt", f"Cannot be had: {reason.rstrip('.')}. GPU: {gpu.detail}.", False)
    if gpu.status != "ok":
        return EngineChoice("tensorrt", f"Cannot be had: {_sentence(gpu)}", False)
    return EngineChoice("tensorrt", f"Runs on {gpu.detail}.", True)


def _sentence(check: doctor.Check) -> str:
    text = f"{check.detail}; {check.remedy}" if check.remedy else check.detail
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


class EngineSurvey:
    """The question to this machine, put once; None is known until it has answered."""

    def __init__(self, ask: Callable[[], tuple[EngineChoice, ...]] = engine_choices) -> None:
        self._ask = ask
        self.choices: tuple[EngineChoice, ...] | None = None
        """What was learnt; None while nothing is."""
        self._thread = threading.Thread(target=self._run, name="flaneur-survey", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.choices = self._ask()

    def join(self, timeout_s: float) -> None:
        """Wait for the answer."""
        self._thread.join(timeout_s)
