"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class BackendChoice(StrEnum):
    """What makes the picture."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    TENSORRT = "tensorrt"
    HOLODECK = "holodeck"


class ProviderChoice(StrEnum):
    """What ONNX Runtime runs graphs on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    DML = "dml"
    COREML = "coreml"
    OPENVINO = "openvino"
    NV_TENSORRT_RTX = "nv_tensorrt_rtx"


class RefinerChoice(StrEnum):
    """Whether the second stage refines what the first makes."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Precision(StrEnum):
    """Of the large linear layers on a GPU, or of stored weights on a CPU."""

    NVFP4 = "nvfp4"
    FP8 = "fp8"
    INT8 = "int8"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class DecoderPrecision(StrEnum):
    """Of a decoder's convolutions on a GPU."""

    BF16 = "bf16"
    FP8 = "fp8"


class AlgorithmChoice(StrEnum):
    """How ModelOpt chooses the scales of quantised layers."""

    MAX = "max"
    MSE = "mse"
    AWQ = "awq"
    SVDQUANT = "svdquant"


World = Annotated[
    str | None,
    typer.Argument(
        help="Name of a world, path of a .world file, or generated-SEED with --backend holodeck; "
        "default without a window: the first of the shipped."
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(help="Name or folder of an engine bundle; default: the shipped one the world was made for."),
]
Provider = Annotated[
    ProviderChoice,
    typer.Option(help="What ONNX Runtime runs on; auto checks what is installed against the cpu."),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Folder of released SANA-WM weights to play with PyTorch, in place of a bundle."),
]
Backend = Annotated[BackendChoice, typer.Option(help="What makes the picture; holodeck draws the truth.")]
Refiner = Annotated[
    RefinerChoice,
    typer.Option(
        help="The engine's refiner: on; off, not even loaded; or auto, as its bundle has it (an option waits for F7), and "
        "dropped in the window while chunks are late."
    ),
]
KEYS_OF_ACTIONS = "w/s walk, a/d turn, j/l step aside, i/k look up and down, none lets go"
"""What an action string's keys do in the key map `current`."""
KeyMap = Annotated[
    str,
    typer.Option(
        help="What the keys of action strings do: current, or v1, where a/d step aside and j/l turn, "
        "twice as fast and without inertia."
    ),
]
Fullscreen = Annotated[bool, typer.Option("--fullscreen", help="Cover the whole screen.")]
Headless = Annotated[bool, typer.Option("--headless", help="Open no window.")]
Video = Annotated[Path | None, typer.Option(help="Write the walk to this .mp4 file.")]
Frames = Annotated[Path | None, typer.Option(help="Write frames and poses to this .npz file.")]
Hadamard = Annotated[
    bool, typer.Option("--hadamard", help="Rotate blocks of 16 before NVFP4 (random Hadamard transform).")
]
Model = Annotated[str, typer.Option(help="pocket, sana-wm, or a checkpoint with its autoencoder beside it.")]
CalibrationAlgorithm = Annotated[
    AlgorithmChoice,
    typer.Option(
        help="Scales from largest values, from the least error of weights, with smoothed inputs (awq), or that and a low rank."
    ),
]
Student = Annotated[
    Path | None,
    typer.Option(help="Checkpoint of `train qad`, whose weights take the place of the quantised layers'."),
]
LayerTable = Annotated[
    Path | None, typer.Option("--layers", help="Layer table of `export search`; default: the built-in one.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write over files that are there; without it they are refused.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def own_worlds_folder() -> Path | None:
    """Return the folder of the worlds that this user began; None where no home is known."""
    from client.setup.folders import OWN_WORLDS, pictures_dir

    try:
        return pictures_dir() / OWN_WORLDS
    except ValueError:
        return None


def known_folders(world: str | None = None) -> list[Path]:
    """Return where this user's worlds are looked for by name, as the window does; a user without a home has none."""
    # Here, since it brings NumPy along, and `--help` must be quick.
    from client.setup.folders import pictures_dir, world_folders

    try:
        pictures = pictures_dir()
    except ValueError:
        pictures = None
    return world_folders(world, pictures)


def pixels(text: str) -> tuple[int, int]:
    """Read a width and a height such as 640x352."""
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise ValueError(f"--frame-size takes a width and a height such as 640x352, got {text!r}")
    return int(found[1]), int(found[2])
