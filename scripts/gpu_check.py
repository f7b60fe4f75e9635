"""Measures what only a GPU can show, in at most eight minutes: one command on any NVIDIA GPU with PyTorch 2.11 or later.

    python scripts/gpu_check.py [--minutes 8] [--out gpu-check] [--small --device cpu]

Random weights in bf16: nothing is downloaded. It writes OUT.json, and OUT.md: a table for docs/engines.md with the card's name.
Sections that no longer fit into the minutes are left out and named. diffusers is compared where it is installed, and the tests
marked gpu run where pytest is. --small goes through all of it at sizes for a CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from engine.backends.providers import made_up_inputs, try_chunk  # noqa: E402
from engine.backends.torch import (  # noqa: E402
    TorchBackend,
    TorchModel,
    TorchOptions,
    bundle_model,
    choose_device,
    choose_dtype,
    model_spec,
)
from engine.machine import assets  # noqa: E402
from engine.machine.memory_plan import CONTEXT_BYTES, DenoiserSizes, memory_plan  # noqa: E402
from model.config import ModelConfig, sana_wm  # noqa: E402
from model.sampler import STREAMING_TIMESTEPS  # noqa: E402
from model.vae.ltx import LtxAutoencoder, LtxStreamingDecoder  # noqa: E402
from model.vae.ltx_config import LtxAutoencoderConfig  # noqa: E402
from model.world_model import WorldModel  # noqa: E402
from scripts.bench_reference import clip, reference_inputs  # noqa: E402

FPS = 16.0
NUM_CHUNKS, WARM_CHUNKS = 40, 5
SMALL = replace(
    sana_wm(), hidden_size=112, num_heads=1, num_layers=4, frame_height=64, frame_width=96, text_length=8
)
SMALL_DECODER = LtxAutoencoderConfig(
    decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1,) * 4
)
GPU_TESTS_S = 120


@dataclass(frozen=True)
class Scale:
    """What is measured, and on what."""

    config: ModelConfig
    decoder: LtxAutoencoderConfig
    options: TorchOptions
    num_chunks: int


def build(scale: Scale) -> tuple[TorchModel, TorchBackend]:
    """Make the model with random weights, on its device from the start."""
    device = choose_device(scale.options.device)
    before = torch.get_default_dtype()
    torch.set_default_dtype(choose_dtype(device, scale.options.dtype))
    torch.manual_seed(0)
    try:
        with device:
            network = WorldModel(scale.config, fresh=True)
            autoencoder = LtxAutoencoder(scale.decoder)
    finally:
        torch.set_default_dtype(before)
    del autoencoder.encoder
    decoder = LtxStreamingDecoder(autoencoder)
    spec = model_spec(scale.config, decoder, "0" * 64, STREAMING_TIMESTEPS, FPS)
    model = TorchModel(spec, "", network, decoder, None)
    return model, TorchBackend(model, scale.options)


class Rollout:
    """A stream of chunks, as a session runs it, with the time of each stage."""

    def __init__(self, model: TorchModel, backend: TorchBackend) -> None:
        self._spec, self._backend = model.spec, backend
        self._state, self._caches = backend.new_state(), backend.new_caches()
        self._rng = np.random.default_rng(0)
        self.index = 0

    def denoise(self) -> np.ndarray:
        """Make and commit a chunk; returns its latents [1, C, T, h, w]."""
        size = self._spec.first_chunk_size if self.index == 0 else self._spec.chunk_size
        inputs = made_up_inputs(self._spec, size)
        inputs["latents"] = self._rng.standard_normal(inputs["latents"].shape, np.float32)
        steps = self._spec.timesteps
        for step, following in zip(steps, (*steps[1:], 0.0), strict=True):
            inputs["timesteps"][:] = step
            velocity, _ = self._backend.run_step(inputs, self._state, keep_state=False)
            inputs["latents"] = inputs["latents"] - np.float32((step - following) / 1000) * velocity
        return inputs["latents"]

    def commit(self, latents: np.ndarray) -> None:
        inputs = made_up_inputs(self._spec, latents.shape[2])
        inputs["latents"], inputs["timesteps"][:] = latents, 0
        _, self._state = self._backend.run_step(inputs, self._state, keep_state=True)
        self.index += 1

    def decode(self, latents: np.ndarray) -> None:
        for t in range(latents.shape[2]):
            latent = np.ascontiguousarray(latents[:, :, t : t + 1])
            _, self._caches = self._backend.run_decoder({"latent": latent}, self._caches)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Time work whose results come back to the host, so that it is over when it returns."""
    began_s = time.perf_counter()
    result = work()
    return time.perf_counter() - began_s, result


def measure_rollout(scale: Scale) -> dict[str, Any]:
    """Stage by stage for `num_chunks`, then as many again with decoding beside the next chunk; memory all the while."""
    model, backend = build(scale)
    rollout, device = Rollout(model, backend), choose_device(scale.options.device)
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    times: dict[str, list[float]] = {"denoise": [], "commit": [], "decode": []}
    memory: list[int] = []
    for _ in range(scale.num_chunks):
        denoise_s, latents = seconds(rollout.denoise)
        commit_s, _ = seconds(lambda latents=latents: rollout.commit(latents))
        decode_s, _ = seconds(lambda latents=latents: rollout.decode(latents))
        for name, value in (("denoise", denoise_s), ("commit", commit_s), ("decode", decode_s)):
            times[name].append(value)
        memory.append(torch.cuda.memory_allocated(device) if is_cuda else 0)
    warm = {
        name: values[WARM_CHUNKS if scale.num_chunks > 2 * WARM_CHUNKS else 1 :]
        for name, values in times.items()
    }
    chunk_s = scale.config.chunk_size * scale.config.temporal_stride / FPS
    median = {name: statistics.median(values) for name, values in warm.items()}
    overlapped_s = _overlapped(rollout, scale.num_chunks)
    plan = memory_plan("bf16", False, DenoiserSizes.of(scale.config.to_dict()))
    return {
        "ms": {name: 1e3 * value for name, value in median.items()},
        "ms_p95": {name: 1e3 * float(np.percentile(values, 95)) for name, values in warm.items()},
        "growth": statistics.median(times["denoise"][-5:]) / statistics.median(warm["denoise"][:5]),
        "one_after_the_other": chunk_s / sum(median.values()),
        "realtime_factor": chunk_s / overlapped_s,
        "minute_s": 60 * overlapped_s / chunk_s,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if is_cuda else None,
        "planned_bytes": plan.num_bytes - CONTEXT_BYTES,
        "memory_growth": memory[-1] / memory[1] if is_cuda else None,
    }


def _overlapped(rollout: Rollout, num_chunks: int) -> float:
    """Return the seconds of a chunk where one thread decodes while the other denoises the next."""
    began_s = time.perf_counter()
    with ThreadPoolExecutor(1) as decoding:
        waiting = None
        for _ in range(num_chunks):
            latents = rollout.denoise()
            rollout.commit(latents)
            if waiting is not None:
                waiting.result()
            waiting = decoding.submit(rollout.decode, latents)
        assert waiting is not None
        waiting.result()
    return (time.perf_counter() - began_s) / num_chunks


def measure_reference(scale: Scale, num_frames: int = 4) -> dict[str, Any]:
    """One pass over a clip, bidirectional, ours and diffusers' side by side with the same weights."""
    from diffusers.models.transformers.transformer_sana_wm import SanaWMTransformer3DModel

    from model.checkpoint import from_diffusers

    config, device = scale.config, choose_device(scale.options.device)
    dtype = choose_dtype(device, scale.options.dtype)
    torch.manual_seed(0)
    with device:
        reference = SanaWMTransformer3DModel(
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_heads,
            linear_head_dim=config.head_dim,
            chunk_plucker_post_attn_blocks=config.num_layers,
        )
    reference = cast("Any", reference).to(dtype).eval()
    ours = from_diffusers(dict(reference.config), reference.state_dict()).eval()
    given = clip(ours, num_frames, (config.latent_height, config.latent_width))
    theirs = {
        name: value.to(device, dtype) if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in reference_inputs(ours, given).items()
    }
    given = {name: tensor.to(device) for name, tensor in given.items()}
    latents, timesteps = given.pop("latents"), given.pop("timesteps")
    from model.conditioning import Conditioning

    conditioning = Conditioning(**given)
    with torch.inference_mode():
        passes = {
            "ours": lambda: ours(latents, timesteps, conditioning, mode="bidirectional").float().cpu(),
            "diffusers": lambda: reference(**theirs)[0].float().cpu(),
        }
        outputs = {name: work() for name, work in passes.items()}
        times = {name: statistics.median(seconds(work)[0] for _ in range(5)) for name, work in passes.items()}
    error = (outputs["ours"] - outputs["diffusers"]).abs().max() / outputs["diffusers"].abs().max()
    ratio = times["diffusers"] / times["ours"]
    return {
        "latent_frames": num_frames,
        "ms": {k: 1e3 * v for k, v in times.items()},
        "ratio": ratio,
        "relative_error": float(error),
    }


def measure_pocket(scale: Scale) -> dict[str, Any]:
    """The pocket on the device, in float32 and in its own precision, against the CPU."""
    bundle = assets.find_bundle("pocket", verify=False)
    found: dict[str, Any] = {}
    options = {"cpu float32": TorchOptions("cpu", "float32")}
    device = choose_device(scale.options.device)
    options[f"{device.type} float32"] = replace(scale.options, dtype="float32")
    options[f"{device.type} auto"] = scale.options
    truth = None
    for name, chosen in options.items():
        trial = try_chunk(TorchBackend(bundle_model(bundle), chosen), bundle.spec)
        truth = truth or trial
        error = float(np.abs(trial.velocity - truth.velocity).max())
        found[name] = {"chunk_ms": 1e3 * trial.seconds, "velocity_error": error}
    return found


def run_gpu_tests(_: Scale) -> dict[str, Any]:
    """Run the tests that are marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_export_engine.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GPU_TESTS_S)
    return {"exit_status": done.returncode, "summary": (done.stdout.strip().splitlines() or [""])[-1]}


def sections(scale: Scale) -> Mapping[str, Callable[[Scale], dict[str, Any]]]:
    """Return what is measured, the most wanted first."""
    is_cuda = choose_device(scale.options.device).type == "cuda"
    found: dict[str, Callable[[Scale], dict[str, Any]]] = {
        "sana-wm": measure_rollout,
        "pocket": measure_pocket,
    }
    if importlib.util.find_spec("diffusers"):
        found["reference"] = measure_reference
    if is_cuda and importlib.util.find_spec("pytest"):
        found["gpu_tests"] = run_gpu_tests
    if is_cuda:
        found["sana-wm graphs"] = lambda scale: measure_rollout(
            replace(scale, options=replace(scale.options, graphs=True))
        )
        found["sana-wm compiled"] = lambda scale: measure_rollout(
            replace(scale, options=replace(scale.options, compile=True))
        )
    return found


def check(scale: Scale, minutes: float) -> dict[str, Any]:
    """Run every section that the time allows; one that fails says why and does not end the others."""
    began_s = time.perf_counter()
    device = choose_device(scale.options.device)
    is_cuda = device.type == "cuda"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "capability": torch.cuda.get_device_capability(device) if is_cuda else None,
        "torch": torch.__version__,
        "dtype": str(choose_dtype(device, scale.options.dtype)).removeprefix("torch."),
        "frame_size": [scale.config.frame_width, scale.config.frame_height],
        "num_chunks": scale.num_chunks,
        "left_out": [],
    }
    for name, measure in sections(scale).items():
        if time.perf_counter() - began_s > 60 * minutes * 0.75:
            report["left_out"].append(name)
            continue
        print(name, file=sys.stderr)
        try:
            report[name] = measure(scale)
        except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
            report[name] = {"failed": str(error).splitlines()[0]}
        if is_cuda:
            torch.cuda.empty_cache()
    report["wall_s"] = time.perf_counter() - began_s
    return report


def table(report: Mapping[str, Any]) -> str:
    """Return the report as a table for docs/engines.md."""
    width, height = report["frame_size"]
    lines = [
        f"{report['device']}, PyTorch {report['torch']}, {report['dtype']}, {width}x{height}, {report['num_chunks']} chunks:",
        "",
        "| what | value |",
        "|---|---|",
    ]
    for name in ("sana-wm", "sana-wm graphs", "sana-wm compiled"):
        if "ms" not in (row := report.get(name, {})):
            continue
        for stage, value in row["ms"].items():
            lines.append(f"| {name}, {stage}, p50 and p95 | {value:.1f}, {row['ms_p95'][stage]:.1f} ms |")
        lines.append(f"| {name}, realtime factor, decoder beside denoiser | {row['realtime_factor']:.2f} |")
        lines.append(f"| {name}, a minute of video | {row['minute_s']:.1f} s |")
        if row["peak_bytes"]:
            gib = f"{row['peak_bytes'] / 2**30:.2f}, {row['planned_bytes'] / 2**30:.2f} GiB"
            lines.append(f"| {name}, peak memory, planned | {gib} |")
    if "ratio" in (row := report.get("reference", {})):
        lines.append(f"| one pass, diffusers over ours | {row['ratio']:.2f} |")
    for name, row in report.get("pocket", {}).items():
        if isinstance(row, Mapping):
            lines.append(f"| pocket, {name} | {row['chunk_ms']:.1f} ms |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU, to see that all of it runs")
    chosen = parser.parse_args(arguments)
    options = TorchOptions(chosen.device)
    config, decoder, chunks = sana_wm(), LtxAutoencoderConfig(), NUM_CHUNKS
    if chosen.small:
        config, decoder, chunks = SMALL, SMALL_DECODER, 3
    report = check(Scale(config, decoder, options, chunks), chosen.minutes)
    chosen.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    chosen.out.with_suffix(".md").write_text(table(report), encoding="utf-8")
    print(table(report))
    failed = [name for name, row in report.items() if isinstance(row, dict) and "failed" in row]
    for name in failed:
        print(f"{name} failed: {report[name]['failed']}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
