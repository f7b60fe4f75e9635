"""Our bidirectional pass against an independent implementation with the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.checkpoint import load_weights
from model.config import ModelConfig, tiny
from model.transformer import WorldModel

pytestmark = pytest.mark.slow


def reference_config() -> ModelConfig:
    """Match the reference's choices: both downscales, the padded camera scale, no pocket extras."""
    return replace(
        tiny(),
        hidden_size=48,
        num_layers=4,
        softmax_every_n=2,
        downscale_gdn=True,
        downscale_softmax=True,
        camera_softmax_scale="padded",
        ray_octaves=0,
        translation_scale=1.0,
        velocity_skip=0.0,
    )


def build_reference(config: ModelConfig) -> torch.nn.Module:
    pytest.importorskip("diffusers")
    try:
        from diffusers.models.transformers.transformer_sana_wm import SanaWMTransformer3DModel
    except RuntimeError as error:
        pytest.skip(f"the reference does not import here: {error}")
    return SanaWMTransformer3DModel(
        in_channels=config.in_channels,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_heads,
        linear_head_dim=config.head_dim,
        softmax_every_n=config.softmax_every_n,
        chunk_plucker_channels=config.temporal_stride * config.ray_channels,
        chunk_plucker_post_attn_blocks=config.num_layers,
        caption_channels=config.text_dim,
        mlp_ratio=config.mlp_ratio,
    ).eval()


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def adopt(model: WorldModel, reference: torch.nn.Module) -> None:
    """Give our model the reference's weights; it names the time embedding differently and has no null caption."""
    weights = dict(reference.state_dict())
    for theirs, ours in (("linear_1", "mlp.0"), ("linear_2", "mlp.2")):
        for kind in ("weight", "bias"):
            weights[f"t_embedder.{ours}.{kind}"] = weights.pop(f"t_embedder.{theirs}.{kind}")
    for name, tensor in model.state_dict().items():
        if name.endswith(("y_embedding", "recall_gate")):
            weights[name] = tensor
    load_weights(model, weights)


def camera_inputs(config: ModelConfig, frames: int) -> tuple[Tensor, Tensor]:
    video = 1 + config.temporal_stride * (frames - 1)
    angle = torch.linspace(0, 0.8, video)
    c2w = torch.eye(4).expand(1, video, 4, 4).clone()
    c2w[0, :, 0, 0] = c2w[0, :, 2, 2] = angle.cos()
    c2w[0, :, 0, 2] = angle.sin()
    c2w[0, :, 2, 0] = -angle.sin()
    c2w[0, :, :3, 3] = torch.linspace(0, 1.5, video)[:, None] * torch.tensor([1.0, -0.3, 2.0])
    intrinsics = torch.tensor([20.0, 22.0, 11.0, 9.0]).expand(1, video, 4)
    return c2w, intrinsics


def test_bidirectional_pass_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    from model.camera import plucker_maps, window_frames

    torch.manual_seed(0)
    config = reference_config()
    reference = build_reference(config)
    randomise(reference)
    model = WorldModel(config)
    adopt(model, reference)
    frames, size = 3, (config.latent_height, config.latent_width)
    latents = torch.randn(1, config.in_channels, frames, *size)
    timesteps = torch.tensor([[0.0, 400.0, 731.0]])
    text = torch.randn(1, config.text_length, config.text_dim)
    mask = torch.tensor([[1.0, 1, 1, 0, 0]])
    c2w, intrinsics = camera_inputs(config, frames)
    order = window_frames(frames, config.temporal_stride, c2w.shape[1])
    maps = plucker_maps(config, c2w[:, order], intrinsics[:, order])
    chunk_plucker = maps.transpose(2, 3).unflatten(-1, size).transpose(1, 2)
    poses = c2w[:, :: config.temporal_stride].flatten(2)
    cameras = torch.cat([poses, intrinsics[:, :frames] / config.spatial_stride], dim=-1)
    # The reference rounds softmax attention to bfloat16 whatever its weights are.
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor)
    with torch.no_grad():
        ours = model(latents, timesteps, text, mask, c2w, intrinsics, mode="bidirectional")
        theirs = reference(
            latents,
            timesteps[:, None],
            text[:, None],
            encoder_attention_mask=mask,
            camera_conditions=cameras,
            chunk_plucker=chunk_plucker,
            return_dict=False,
        )[0]
    # Float32 through four blocks, rays by two routes.
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
