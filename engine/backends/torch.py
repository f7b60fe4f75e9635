"""PyTorch on CUDA, ROCm, MPS or the CPU: a bundle's own checkpoint, or a folder of released weights.

On a GPU built, not yet run on one; the arithmetic and the bookkeeping run in tests on a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.backends.protocol import FRAMES, INVERSE_DEPTH, LATENT, VELOCITY, Backend, State
from engine.backends.torch_graphs import CapturedPasses
from engine.errors import BackendUnavailable, SpecMismatch
from engine.files.bundle import GUIDE_INPUTS, MEMORY, Bundle, ModelSpec, TensorSpec
from engine.machine import assets
from engine.machine.hardware import available_memory_gb
from engine.machine.memory_plan import CONTEXT_BYTES, DecoderSizes, DenoiserSizes, check_memory, memory_plan
from model.checkpoint import load_checkpoint, weights_sha256
from model.conditioning import Conditioning
from model.config import ModelConfig
from model.decoders import decoder_beside, encoder_of, ltx_folder
from model.released import network_config, network_file, open_network
from model.rollout import RolloutState, is_rounded, state_shapes
from model.sampler import STREAMING_TIMESTEPS
from model.vae.ltx_config import LtxAutoencoderConfig
from model.world_model import WorldModel

Module = TypeVar("Module", bound=nn.Module)
RELEASED_FPS = 16.0
"""Of the released model, whose files do not state it."""


@dataclass(frozen=True)
class TorchOptions:
    """How a model is run."""

    device: str = "auto"
    """A device as PyTorch names it, or "auto" for the best here."""
    dtype: str = "auto"
    """float32, bfloat16, float16, or "auto": float32 on a CPU, else bfloat16, or float16 where that is missing."""
    num_threads: int | None = None
    """Of a CPU, for the whole process; None leaves PyTorch's own number."""
    compile: bool = False
    """Whether `torch.compile` is used; off until it was measured on a GPU."""
    graphs: bool = False
    """Whether denoising passes are captured as CUDA graphs, which copies the state once a chunk; off until it was measured."""


@dataclass(frozen=True)
class TorchModel:
    """A network with its decoder, ready to be played."""

    spec: ModelSpec
    sha256: str
    network: WorldModel
    decoder: nn.Module
    encoder: nn.Module | None


def model_spec(
    config: ModelConfig, decoder: nn.Module, weights: str, timesteps: Sequence[float], fps: float
) -> ModelSpec:
    """Describe a model and its streaming decoder.

    Args:
        weights: `weights_sha256` of the network in float32.
    """
    caches = decoder.cache_spec(config.latent_height, config.latent_width)  # type: ignore[operator]
    return ModelSpec(
        name=config.name,
        model=config.to_dict(),
        weights_sha256=weights,
        latent_channels=config.in_channels,
        latent_height=config.latent_height,
        latent_width=config.latent_width,
        frame_height=config.frame_height,
        frame_width=config.frame_width,
        fps=fps,
        temporal_stride=config.temporal_stride,
        spatial_stride=config.spatial_stride,
        chunk_size=config.chunk_size,
        first_chunk_size=config.first_chunk_size,
        timesteps=tuple(timesteps),
        memory_channels=config.memory_channels,
        state=_tensor_specs([(name, (1, *shape)) for name, shape in state_shapes(config).items()]),
        decoder_caches=_tensor_specs(caches),
        text_dim=config.text_dim,
    )


def _tensor_specs(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, shape=tuple(shape), dtype="float32") for name, shape in tensors)


def bundle_model(bundle: Bundle) -> TorchModel:
    """Open the checkpoint that a bundle was exported from.

    Raises:
        BackendUnavailable: It is not here.
        SpecMismatch: It is another one.
    """
    spec = bundle.spec
    path = assets.checkpoints_dir() / f"{spec.name}.safetensors"
    if spec.is_plan or not path.is_file():
        why = f"was built for {spec.target}" if spec.is_plan else f"has no checkpoint in {path.parent}"
        raise BackendUnavailable(
            f"the bundle {spec.name} {why}, which PyTorch needs; use --backend auto, or name weights with --weights"
        )
    return checkpoint_model(bundle, path)


def checkpoint_model(bundle: Bundle, path: Path) -> TorchModel:
    """Open a checkpoint as the model of a bundle, with the decoder that lies beside it.

    Raises:
        SpecMismatch: The bundle was exported from another.
    """
    spec = bundle.spec
    network = load_checkpoint(path, dtype=torch.float32)
    if weights_sha256(network) != spec.weights_sha256:
        raise SpecMismatch(
            f"the bundle {spec.name} was not exported from {path}; export it again, or use --backend onnxruntime"
        )
    decoder = decoder_beside(path, network.config)
    return TorchModel(spec, bundle.sha256, network, decoder, encoder_of(decoder))


def released_model(
    folder: Path, latent_size: tuple[int, int], options: TorchOptions | None = None
) -> TorchModel:
    """Open a folder of released weights, for worlds of `latent_size` rows and columns.

    Args:
        options: Those it will be run with; what their device cannot hold is refused before any weight is read.

    Raises:
        ValueError: A file is missing or unreadable, or no such world can be made with it.
    """
    file = network_file(folder)
    _check_room(file, latent_size, options or TorchOptions())
    network = open_network(file)
    network.config = network.config.for_grid(*latent_size)
    decoder = decoder_beside(file, network.config)
    weights = weights_sha256(network, torch.float32)
    spec = model_spec(network.config, decoder, weights, STREAMING_TIMESTEPS, RELEASED_FPS)
    named = f"{spec.model_dump_json()} {weights_sha256(decoder, torch.float32)}"
    sha256 = hashlib.sha256(named.encode()).hexdigest()
    return TorchModel(spec, sha256, network, decoder, encoder_of(decoder))


def _check_room(file: Path, latent_size: tuple[int, int], options: TorchOptions) -> None:
    """Refuse a network whose plan does not fit into the free memory of its device."""
    device = choose_device(options.device)
    free_bytes = _free_bytes(device)
    if free_bytes is None:
        return
    is_full = choose_dtype(device, options.dtype) == torch.float32
    sizes = DenoiserSizes.of(network_config(file).for_grid(*latent_size).to_dict())
    vae = LtxAutoencoderConfig.from_file(ltx_folder(file) / "config.json")
    decoder = DecoderSizes.of(
        vae.latent_channels, vae.decoder_block_out_channels, vae.decoder_layers_per_block
    )
    context = CONTEXT_BYTES if device.type == "cuda" else 0
    plan = memory_plan("fp32" if is_full else "bf16", False, sizes, decoder, context)
    check_memory(plan, free_bytes, _title(device))


def _free_bytes(device: torch.device) -> int | None:
    """Return what a device has free; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free_gb = available_memory_gb()
    return None if free_gb is None else int(free_gb * 2**30)


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name, or the best here.

    Raises:
        BackendUnavailable: PyTorch has no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackendUnavailable(f"PyTorch has no device {name!r} here ({reason}); use cpu") from error
    return device


def choose_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the precision of a name, or the one for a device."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cpu":
        return torch.float32
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


class TorchBackend(Backend):
    """A model in PyTorch: denoising and decoding have a stream each.

    State stays on the device: a run reads one set of tensors and makes the next, and nothing is copied in between. What the
    network rounds anyway is kept in its own precision.
    """

    name = "torch"

    def __init__(self, model: TorchModel, options: TorchOptions | None = None) -> None:
        """Move the model to its device."""
        options = options or TorchOptions()
        device = choose_device(options.device)
        dtype = choose_dtype(device, options.dtype)
        if options.num_threads is not None and device.type == "cpu":
            torch.set_num_threads(options.num_threads)
        spec = model.spec
        self.device = f"{_title(device)}, {str(dtype).removeprefix('torch.')}"
        self._state, self._caches = spec.state, spec.decoder_caches
        network, decoder = _placed(model.network, device, dtype), _placed(model.decoder, device, dtype)
        self._step, self._decoder = network.step, cast("Any", decoder)
        if options.compile:
            self._step, self._decoder = torch.compile(network.step), torch.compile(decoder)
        self._passes = CapturedPasses(self._velocity) if options.graphs else None
        self._encoder = None if model.encoder is None else _placed(model.encoder, device, dtype)
        self._results = (FRAMES, INVERSE_DEPTH) if spec.memory_channels else (FRAMES,)
        self._denoising, self._decoding = _Lane(device), _Lane(device)
        self._dtype = dtype

    def new_state(self) -> State:
        return {
            name: tensor.to(self._dtype) if is_rounded(name) else tensor
            for name, tensor in self._denoising.zeros(self._state, torch.float32).items()
        }

    def new_caches(self) -> State:
        return self._decoding.zeros(self._caches, self._dtype)

    @torch.inference_mode()
    def run_step(
        self, inputs: Mapping[str, NDArray[Any]], state: State, keep_state: bool
    ) -> tuple[NDArray[Any], State]:
        with self._denoising.current():
            given = {name: self._denoising.upload(name, array) for name, array in inputs.items()}
            if not keep_state:
                run = self._velocity if self._passes is None else self._passes.run
                return self._denoising.download(VELOCITY, run(given, state)), state
            velocity, after = self._run(given, state, keep_state=True)
            result = self._denoising.download(VELOCITY, velocity.float())
        return result, _compact(after.tensors)

    def _velocity(self, given: Mapping[str, Tensor], state: State) -> Tensor:
        return self._run(given, state, keep_state=False)[0].float()

    def _run(
        self, given: Mapping[str, Tensor], state: State, keep_state: bool
    ) -> tuple[Tensor, RolloutState]:
        conditioning = Conditioning(
            given["text"],
            given["text_mask"],
            given["c2w"],
            given["intrinsics"],
            given["start_frame"],
            given.get(MEMORY),
        )
        before = RolloutState(dict(state))
        return self._step(given["latents"], given["timesteps"], conditioning, before, keep_state)

    @torch.inference_mode()
    def run_decoder(
        self, inputs: Mapping[str, NDArray[Any]], caches: State
    ) -> tuple[dict[str, NDArray[Any]], State]:
        lane = self._decoding
        with lane.current():
            names = (LATENT, *GUIDE_INPUTS) if len(self._results) > 1 else (LATENT,)
            given = [lane.upload(name, inputs[name]) for name in names]
            given = [x.to(self._dtype) if x.is_floating_point() else x for x in given]
            made = self._decoder(*given, *(caches[tensor.name] for tensor in self._caches))
            count = len(self._results)
            results = {
                name: lane.download(name, tensor)
                for name, tensor in zip(self._results, made[:count], strict=True)
            }
        after = {tensor.name: value for tensor, value in zip(self._caches, made[count:], strict=True)}
        return results, after

    @torch.inference_mode()
    def run_encoder(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self._encoder is not None, "the model has an encoder"
        with self._denoising.current():
            latent = self._encoder(self._denoising.upload(FRAMES, frames))
            return self._denoising.download(LATENT, latent.float())

    def to_arrays(self, state: State) -> dict[str, NDArray[Any]]:
        lane = self._lane(state)
        with lane.current():
            return {name: lane.download(name, tensor.float()).copy() for name, tensor in state.items()}

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        lane = self._lane(arrays)
        with lane.current():
            return {
                name: lane.copied(array).to(
                    self._dtype if lane is self._decoding or is_rounded(name) else torch.float32
                )
                for name, array in arrays.items()
            }

    def close(self) -> None:
        self._denoising.close()
        self._decoding.close()
        del self._step, self._decoder
        self._encoder = self._passes = None

    def _lane(self, tensors: Mapping[str, Any]) -> _Lane:
        """Tell a state from caches by the names of its tensors."""
        is_state = tensors.keys() == {tensor.name for tensor in self._state}
        return self._denoising if is_state else self._decoding


class _Lane:
    """One device with a stream, the buffers that inputs are copied to, and pinned memory for results."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._inputs: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._results: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def current(self) -> AbstractContextManager[Any]:
        """Queue work on this lane's stream while the block runs."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def upload(self, name: str, array: NDArray[Any]) -> Tensor:
        """Return an input on the device; its memory is written again by the next call for this name and shape."""
        host = _tensor(array)
        if self._device.type == "cpu":
            return host
        key = name, tuple(array.shape)
        if key not in self._inputs:
            self._inputs[key] = torch.empty_like(host, device=self._device)
        return self._inputs[key].copy_(host)

    def copied(self, array: NDArray[Any]) -> Tensor:
        """Return an array in device memory of its own."""
        return _tensor(array).to(self._device, copy=True)

    def download(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """Return a tensor as an array of its own, when the stream has made it."""
        if self._stream is None:
            return tensor.cpu().numpy()
        key = name, tuple(tensor.shape)
        if key not in self._results:
            self._results[key] = torch.empty_like(tensor, device="cpu", pin_memory=True)
        host = self._results[key].copy_(tensor, non_blocking=True)
        self._stream.synchronize()
        return host.numpy().copy()

    def zeros(self, tensors: Sequence[TensorSpec], dtype: torch.dtype) -> dict[str, Tensor]:
        with self.current():
            return {
                tensor.name: torch.zeros(tensor.shape, dtype=dtype, device=self._device) for tensor in tensors
            }

    def close(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()
        self._inputs.clear()
        self._results.clear()


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a CPU tensor; one that may not be written is copied, as PyTorch knows no such tensors."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _compact(tensors: Mapping[str, Tensor]) -> State:
    """Give each tensor memory of its own: slices hold the whole of what they were cut from."""
    return {
        name: tensor.contiguous() if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
        for name, tensor in tensors.items()
    }


def _placed(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    return module.requires_grad_(False).eval().to(device, dtype)


def _title(device: torch.device) -> str:
    """Name a device for reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
