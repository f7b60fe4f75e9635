"""The engines to choose from, with what this machine says of each; asked on a thread, since drivers answer slowly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.errors import EngineError
from engine.machine import doctor
from engine.machine.hardware import num_cores
from engine.session.opening import BackendName, check_backend

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
