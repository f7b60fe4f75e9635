"""PyTorch to ONNX: a bundle with one step graph per chunk length, one decoder graph and their description."""

from __future__ import annotations

import copy
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import onnx
import onnx_ir
import torch
from torch import Tensor, nn

from engine.backends.protocol import INVERSE_DEPTH, PICTURE
from engine.backends.torch import model_spec
from engine.errors import BuildFailed
from engine.files.bundle import GUIDE_INPUTS, MEMORY, OUT, STEP_INPUTS, EngineSpec, ModelSpec, hash_file
from export.folders import making_bundle, write_spec
from export.graph import INLINE_LIMIT_BYTES, SharedWeights, fold_graph, refer_to, store_in_int8, tidy_graph
from model.checkpoint import weights_sha256
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.decoders import encoder_of
from model.rollout import RolloutState, state_shapes
from model.sampler import STREAMING_TIMESTEPS, check_timesteps
from model.world_model import WorldModel

DEPTH_GRAPH = "depth.onnx"
WEIGHTS_FILE = "weights.bin"
"""Of graphs too large to hold their weights."""
OPSET = 20
"""Last operator set before attention became one operator that CPU runtimes lack."""
MAX_TEXT_LENGTH = 4096
"""Tokens that cross-attention reads at most."""
Progress = Callable[[str], None]
Module = TypeVar("Module", bound=nn.Module)


class StepGraph(nn.Module):
    """`WorldModel.step` as a function of plain tensors in the order of the graph's inputs."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model
        self.names = list(state_shapes(model.config))

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        c2w: Tensor,
        intrinsics: Tensor,
        start_frame: Tensor,
        text: Tensor,
        text_mask: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        """`others` are the memory, where the model reads one, and the state."""
        memory, state = (others[0], others[1:]) if self.model.config.memory_channels else (None, others)
        before = RolloutState(dict(zip(self.names, state, strict=True)))
        conditioning = Conditioning(text, text_mask, c2w, intrinsics, start_frame, memory)
        velocity, after = self.model.step(latents, timesteps, conditioning, before)
        return velocity, *(after.tensors[name] for name in self.names)


def step_inputs(config: ModelConfig, num_frames: int) -> tuple[Tensor, ...]:
    """Make inputs of the right shapes for a step graph, state included, at the start of a rollout."""
    stride = config.temporal_stride
    grid = (config.latent_height, config.latent_width)
    centre = [config.frame_width, config.frame_width, config.frame_width / 2, config.frame_height / 2]
    inputs = (
        torch.zeros(1, config.in_channels, num_frames, *grid),
        torch.full((1, num_frames), 500.0),
        torch.eye(4).expand(1, num_frames * stride, 4, 4).contiguous(),
        torch.tensor(centre).expand(1, num_frames * stride, 4).contiguous(),
        torch.ones(1, dtype=torch.int64),
        torch.zeros(1, config.text_length, config.text_dim),
        torch.ones(1, config.text_length),
    )
    memory = (torch.zeros(1, config.memory_channels, num_frames, *grid),) if config.memory_channels else ()
    return *inputs, *memory, *RolloutState.zeros(config).tensors.values()


def export_bundle(
    model: WorldModel,
    decoder: nn.Module,
    destination: Path,
    timesteps: Sequence[float] = STREAMING_TIMESTEPS,
    fps: float = 16.0,
    notes: str = "",
    progress: Progress | None = None,
    encoder: nn.Module | None = None,
    depth: nn.Module | Path | None = None,
    tensors: Path | None = None,
) -> Path:
    """Write a bundle for ONNX Runtime, float32, whole or not at all.

    Args:
        decoder: A streaming decoder: `forward(latent, *caches) -> (frames, *caches)` and
            `cache_spec(latent_height, latent_width) -> [(name, shape)]`; it is shown a guide after the latent where the
            model reads a spatial memory.
        encoder: `forward(frames) -> latent`, needed where the model reads a spatial memory; default: the decoder's own.
        depth: `forward(picture) -> inverse depth`, or its graph in another bundle, for worlds that begin with a photo.
        tensors: Safetensors file of weights that becomes part of the bundle; graphs read from it what it holds.
        destination: Folder to make; an existing bundle there is replaced.
        timesteps: Step schedule, without the final 0.
        progress: Told the name of each stage as it starts.

    Raises:
        ValueError: The destination is something else than a bundle, or the schedule is not one.
        BuildFailed: The exporter gave up.
    """
    destination = Path(destination)
    steps = check_timesteps(timesteps)
    with making_bundle(destination) as partial:
        encoder = encoder or encoder_of(decoder)
        report = progress or (lambda _stage: None)
        _fill(partial, model, decoder, encoder, depth, tensors, steps, fps, notes, report)
    return destination


def _fill(
    folder: Path,
    model: WorldModel,
    decoder: nn.Module,
    encoder: nn.Module | None,
    depth: nn.Module | Path | None,
    tensors: Path | None,
    timesteps: list[float],
    fps: float,
    notes: str,
    report: Progress,
) -> None:
    config = model.config
    network = plain(model)
    weights = SharedWeights(folder / WEIGHTS_FILE)
    step_graphs: dict[str, str] = {}
    for num_frames in sorted({config.first_chunk_size, config.chunk_size}):
        report(f"step graph for {num_frames} latent frames")
        step_graphs[str(num_frames)] = f"step_{num_frames}.onnx"
        _export_step(network, num_frames, folder / step_graphs[str(num_frames)], weights)
    report("decoder graph")
    caches = decoder.cache_spec(config.latent_height, config.latent_width)  # type: ignore[operator]
    grid = (config.in_channels, config.latent_height, config.latent_width)
    frame = (config.temporal_stride, config.frame_height, config.frame_width)
    guide = frame if config.memory_channels else None
    export_decoder(plain(decoder), grid, caches, folder / "decoder.onnx", weights, guide)
    if encoder is not None:
        report("encoder graph")
        frames = torch.zeros(*frame, 3, dtype=torch.uint8)
        write_graph(plain(encoder), (frames,), folder / "encoder.onnx", weights, ["frames"], ["latent"], None)
    if isinstance(depth, Path):
        shutil.copyfile(depth, folder / DEPTH_GRAPH)
    elif depth is not None:
        report("depth graph")
        picture = torch.zeros(*frame[1:], 3, dtype=torch.uint8)
        write_graph(plain(depth), (picture,), folder / DEPTH_GRAPH, weights, [PICTURE], [INVERSE_DEPTH], None)
        store_in_int8(folder / DEPTH_GRAPH)
    if tensors is not None:
        shutil.copyfile(tensors, folder / tensors.name)
        for graph in folder.glob("*.onnx"):
            refer_to(graph, folder / tensors.name)
    report("description")
    described = model_spec(config, decoder, weights_sha256(model), timesteps, fps)
    spec = EngineSpec(
        **{name: getattr(described, name) for name in ModelSpec.model_fields},
        format_version=2 if config.memory_channels else 1,
        step_graphs=step_graphs,
        decoder_graph="decoder.onnx",
        encoder_graph=None if encoder is None else "encoder.onnx",
        depth_graph=None if depth is None else DEPTH_GRAPH,
        precision=dict.fromkeys(("step", "decoder", *([] if encoder is None else ["encoder"])), "float32"),
        target="cpu",
        builder=f"torch {torch.__version__}, onnx {onnx.__version__}",
        files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
        notes=notes,
    )
    write_spec(folder, spec)


def plain(module: Module) -> Module:
    """Return a module in float32 that neither learns nor drops; itself where it is that already, for want of memory."""
    learns = module.training or any(parameter.requires_grad for parameter in module.parameters())
    if not learns and all(tensor.dtype == torch.float32 for tensor in module.parameters()):
        return module
    return copy.deepcopy(module).float().eval().requires_grad_(False)


def _export_step(model: WorldModel, num_frames: int, path: Path, weights: SharedWeights) -> None:
    names = list(state_shapes(model.config))
    length = torch.export.Dim("text_length", min=2, max=2 + MAX_TEXT_LENGTH)
    inputs = (*STEP_INPUTS, MEMORY) if model.config.memory_channels else STEP_INPUTS
    dynamic: list[Any] = [{}] * len(inputs)
    dynamic[STEP_INPUTS.index("text")] = {1: length}
    dynamic[STEP_INPUTS.index("text_mask")] = {1: length}
    write_graph(
        StepGraph(model),
        step_inputs(model.config, num_frames),
        path,
        weights,
        inputs=[*inputs, *names],
        outputs=["velocity", *(name + OUT for name in names)],
        dynamic=(*dynamic[: len(STEP_INPUTS)], tuple({} for _ in (*inputs[len(STEP_INPUTS) :], *names))),
    )


def export_decoder(
    decoder: nn.Module,
    latent_size: tuple[int, int, int],
    caches: Sequence[tuple[str, tuple[int, ...]]],
    path: Path,
    weights: SharedWeights,
    guide: tuple[int, int, int] | None = None,
) -> None:
    """Write the graph of a streaming decoder.

    Args:
        latent_size: Channels, rows and columns of one latent frame.
        caches: The decoder's `cache_spec` for that grid.
        weights: Where they go if they are too large for the graph.
        guide: Frames, rows and columns of the guide it is shown; None for decoders without.
    """
    names = [name for name, _ in caches]
    channels, height, width = latent_size
    shown: tuple[Tensor, ...] = ()
    if guide is not None:
        shown = (torch.zeros(*guide, 3, dtype=torch.uint8), torch.zeros(guide), torch.zeros(guide))
    write_graph(
        decoder,
        (torch.zeros(1, channels, 1, height, width), *shown, *(torch.zeros(shape) for _, shape in caches)),
        path,
        weights,
        inputs=["latent", *(GUIDE_INPUTS if shown else ()), *names],
        outputs=["frames", *(["inverse_depth"] if shown else []), *(name + OUT for name in names)],
        dynamic=None,
    )


def write_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    weights: SharedWeights,
    inputs: list[str],
    outputs: list[str],
    dynamic: Any,
) -> None:
    """Write a module's graph with nodes named after its layers.

    Args:
        example: Inputs of the right shapes.
        weights: Where they go if they are too large for the graph.
        inputs, outputs: Names, in the order the module takes and gives tensors.
        dynamic: Axes of any length, as `torch.onnx.export` takes them.

    Raises:
        BuildFailed: The exporter gave up.
    """
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise BuildFailed(f"torch could not export {path.name}: {reason}; use torch 2.13") from error
    assert program is not None
    fold_graph(program.model)
    graph = program.model.graph
    for value, name in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        value.name = name
    if sum(parameter.nbytes for parameter in module.parameters()) > INLINE_LIMIT_BYTES:
        weights.move_out(graph)
    onnx_ir.save(program.model, path)
    tidy_graph(path)
    onnx.checker.check_model(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
