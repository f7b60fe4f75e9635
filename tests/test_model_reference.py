"""Our model, cameras and action strings against diffusers' independent implementation, side by side, on small random sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.camera.actions import integrate_actions, parse_actions
from model.camera import plucker_maps, relative_poses, window_frames
from model.checkpoint import from_diffusers
from model.conditioning import Conditioning
from model.diffusers_format import config_from_diffusers
from model.world_model import WorldModel
from tests.models import perturb

reference_module = pytest.importorskip("diffusers.models.transformers.transformer_sana_wm")
cam_utils = pytest.importorskip("diffusers.pipelines.sana_wm.cam_utils")

SPATIAL_STRIDE = 32


@dataclass(frozen=True)
class Case:
    """One small random model and clip."""

    heads: int
    head_dim: int
    layers: int
    every: int
    frames: int
    grid: tuple[int, int]
    stride: int = 8

    def config(self) -> dict[str, Any]:
        return {
            "in_channels": 6,
            "num_layers": self.layers,
            "hidden_size": self.heads * self.head_dim,
            "num_attention_heads": self.heads,
            "linear_head_dim": self.head_dim,
            "softmax_every_n": self.every,
            "chunk_plucker_channels": 6 * self.stride,
            "chunk_plucker_post_attn_blocks": self.layers,
            "caption_channels": 20,
            "mlp_ratio": 2.0,
        }


CASES = [
    Case(2, 16, 4, 4, 1, (3, 5)),
    Case(2, 24, 4, 2, 3, (5, 7)),
    Case(3, 32, 5, 4, 4, (4, 3), stride=4),
    Case(1, 40, 8, 4, 7, (3, 4)),
    Case(4, 16, 4, 4, 13, (2, 5)),
    Case(2, 112, 4, 2, 2, (3, 3)),
]


def build(case: Case, dtype: torch.dtype) -> tuple[torch.nn.Module, WorldModel]:
    """A random reference and our model with its weights."""
    torch.manual_seed(case.frames)
    reference = reference_module.SanaWMTransformer3DModel(**case.config()).eval()
    perturb(reference)
    reference = reference.to(dtype)
    return reference, from_diffusers(dict(reference.config), reference.state_dict()).eval()


def random_cameras(num_frames: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two clips of poses that turn about every axis and move, [2, F, 4, 4], and cameras that zoom, [2, F, 4]."""
    turns = torch.randn(2, num_frames, 3, dtype=torch.float64).mul(0.06).cumsum(1)
    skew = torch.zeros(2, num_frames, 3, 3, dtype=torch.float64)
    for row, column, axis, sign in ((2, 1, 0, 1), (0, 2, 1, 1), (1, 0, 2, 1)):
        skew[..., row, column] = sign * turns[..., axis]
        skew[..., column, row] = -sign * turns[..., axis]
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, num_frames, 1, 1)
    c2w[..., :3, :3] = torch.linalg.matrix_exp(skew)
    c2w[..., :3, 3] = torch.randn(2, num_frames, 3, dtype=torch.float64).mul(0.2).cumsum(1)
    lens = torch.tensor([150.0, 160.0, 90.0, 70.0], dtype=torch.float64)
    zoom = torch.linspace(1.0, 1.2, num_frames, dtype=torch.float64)[:, None]
    return c2w.to(dtype), (lens * zoom).expand(2, -1, -1).to(dtype)


def inputs(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(7)
    c2w, intrinsics = random_cameras(1 + case.stride * (case.frames - 1), dtype)
    timesteps = 1 + 998 * torch.rand(2, case.frames, dtype=dtype)
    timesteps[:, 0] = 0
    mask = torch.ones(2, 9)
    mask[0, 5:] = 0
    return {
        "latents": torch.randn(2, 6, case.frames, *case.grid, dtype=dtype),
        "timesteps": timesteps,
        "text": torch.randn(2, 9, 20, dtype=dtype),
        "text_mask": mask,
        "c2w": c2w,
        "intrinsics": intrinsics,
    }


def run(model: WorldModel, given: dict[str, Tensor]) -> Tensor:
    names = ("text", "text_mask", "c2w", "intrinsics")
    conditioning = Conditioning(**{name: given[name] for name in names})
    return model(given["latents"], given["timesteps"], conditioning, mode="bidirectional")


def reference_forward(reference: torch.nn.Module, case: Case, given: dict[str, Tensor]) -> Tensor:
    packed = [packed_cameras(case, c, k) for c, k in zip(given["c2w"], given["intrinsics"], strict=True)]
    with torch.no_grad():
        return reference(
            given["latents"],
            given["timesteps"][:, None],
            given["text"][:, None],
            encoder_attention_mask=given["text_mask"],
            camera_conditions=torch.stack([p["raymap"] for p in packed]),
            chunk_plucker=torch.stack([p["chunk_plucker"] for p in packed]),
            return_dict=False,
        )[0]


def packed_cameras(case: Case, c2w: Tensor, intrinsics: Tensor) -> dict[str, Tensor]:
    """The reference's own packing of poses and cameras."""
    size = (case.grid[0] * SPATIAL_STRIDE, case.grid[1] * SPATIAL_STRIDE)
    stride = (case.stride, SPATIAL_STRIDE, SPATIAL_STRIDE)
    return cam_utils.prepare_camera(c2w.numpy(), intrinsics.numpy(), target_size=size, vae_stride=stride)


@contextmanager
def everything_in(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the reference work in one precision: it rounds attention to bfloat16 and scans to float32 whatever its weights are."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor)
        if dtype == torch.float64:
            patch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())
            patch.setattr(torch, "float32", torch.float64)
            patch.setattr(torch, "complex64", torch.complex128)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=["fp32", "fp64"]
)
def test_bidirectional_pass_equals_the_reference(
    case: Case, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with everything_in(dtype, monkeypatch):
        reference, model = build(case, dtype)
        given = inputs(case, dtype)
        theirs = reference_forward(reference, case, given)
    with torch.no_grad():
        ours = run(model, given)
    assert ours.dtype == dtype
    assert relative_error(ours, theirs) < bound
    # The bound means something only where cameras and text matter to the result.
    still = {**given, "c2w": given["c2w"][:, :1].expand_as(given["c2w"])}
    mute = {**given, "text": torch.zeros_like(given["text"])}
    with torch.no_grad():
        if case.frames > 1:
            assert relative_error(run(model, still), theirs) > 1e-2
        assert relative_error(run(model, mute), theirs) > 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pluecker_packing_and_poses_equal_the_reference(case: Case) -> None:
    config = config_from_diffusers(case.config()).for_grid(*case.grid)
    c2w, intrinsics = random_cameras(1 + case.stride * (case.frames - 1), torch.float32)
    theirs = packed_cameras(case, c2w[0], intrinsics[0])
    order = window_frames(case.frames, case.stride, c2w.shape[1])
    poses = relative_poses(c2w[:1])
    maps = plucker_maps(config, poses[:, order], intrinsics[:1, order])[0]
    packed = maps.transpose(1, 2).unflatten(-1, case.grid).transpose(0, 1)
    torch.testing.assert_close(packed, theirs["chunk_plucker"], atol=2e-6, rtol=1e-5)
    raymap = torch.cat([poses[0].flatten(1), intrinsics[0] / SPATIAL_STRIDE], dim=-1)[:: case.stride]
    torch.testing.assert_close(raymap, theirs["raymap"], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("actions", ["w-10", "none-3,wd-7,jl-2,IK-4", "i-90,s-5,aj-40", "wasdijkl-6, k-80"])
def test_action_strings_of_version_1_equal_the_reference(actions: str) -> None:
    ours = integrate_actions(parse_actions(actions), 16.0, "v1")
    # Ours guards directions by 1e-6, as the newer key map does; near the zenith that is a hundredth of a millimetre.
    np.testing.assert_allclose(ours, cam_utils.action_string_to_c2w(actions), atol=1e-5)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"patch_size": [1, 2, 2]}, "patch_size"),
        ({"linear_head_dim": 56}, "heads"),
        ({"chunk_plucker_channels": 50}, "multiple of 6"),
        ({"chunk_plucker_post_attn_blocks": 3}, "leaves blocks out"),
        ({"pred_sigma": True}, "pred_sigma"),
        ({"rope_fhw_dim": [1, 2, 3]}, "rope_fhw_dim"),
    ],
)
def test_options_that_are_not_built_are_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_from_diffusers(option)


def test_the_released_config_is_ours() -> None:
    ours = config_from_diffusers({})
    assert (ours.hidden_size, ours.num_heads, ours.num_layers, ours.temporal_stride) == (2240, 20, 20, 8)
