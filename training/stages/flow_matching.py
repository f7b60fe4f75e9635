"""Flow matching on whole clips: the step that every stage before distillation shares.

x_t = (1 - sigma) x0 + sigma noise, and the network says v = noise - x0. All frames see one another, or chunks see the chunks
before them; nothing is streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from model.attention.gdn import Chunks
from model.config import ModelConfig
from model.world_model import Mode as NetworkMode
from training.data.batches import ClipBatches, WindowBatch
from training.optimizer import MasterOptimizer
from training.stages.config import StageConfig
from training.stages.noise import add_noise, frame_sigmas
from training.stages.scenic_model import ScenicModel, is_hidden_matrix
from training.stages.table import Mode

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster


class FlowMatchingStage:
    """Batches of noisy clips and the velocity loss."""

    def __init__(
        self,
        config: StageConfig,
        model: ScenicModel,
        clips: ClipBatches,
        mode: Mode = "bidirectional",
        trained: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Prepare the stage.

        Args:
            trained: Whether a parameter learns, by its name.
        """
        self.name, self.config = config.stage, config
        self.model, self.clips = model, clips
        self.mode: Mode = mode
        self.optimizer = MasterOptimizer(model, config.optimizer, is_hidden_matrix, trained)

    @property
    def frames_per_step(self) -> float:
        """Video frames of a batch's clips, without the first frames."""
        return clip_frames(self.config, self.model.world.config)

    def share_out(self, cluster: Cluster) -> None:
        """Let processes share the network."""
        cluster.share(self.model)
        self.optimizer = self.optimizer.anew(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands."""
        return self.clips.position()

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Go on with the data from there."""
        self.clips.go_on(memory)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step."""
        config = self.config
        device = self.model.scenes.device
        batch = self.clips.draw(config.batch_size, config.num_latent_frames, rng).to(device)
        levels = self.levels(rng)
        nulled = torch.from_numpy(rng.random(config.batch_size) < config.noise.caption_dropout)
        sigma, counted, nulled = (tensor.to(device) for tensor in (*levels, nulled))
        loss = velocity_loss(self.model, batch, sigma, counted, self.mode, nulled)
        loss.backward()
        return {"loss": float(loss.detach())}

    def levels(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Sigma of every latent frame, and which frames the loss counts, both [B, T]."""
        config = self.config
        chunks = chunks_of(self.model.world.config, config.num_latent_frames, self.mode)
        noise = config.noise
        drawn = frame_sigmas(chunks, config.batch_size, noise.mixture, noise.shift, rng)
        sigma = torch.from_numpy(drawn)
        counted = torch.ones_like(sigma, dtype=torch.bool)
        given = torch.from_numpy(rng.random(config.batch_size) < noise.image_conditioning)
        sigma[given, 0] = 0.0
        counted[given, 0] = False
        return sigma, counted


def clip_frames(config: StageConfig, model: ModelConfig) -> float:
    """Count the video frames of a batch's clips, without the first frames."""
    return float(config.batch_size * (config.num_latent_frames - 1) * model.temporal_stride)


def chunks_of(config: ModelConfig, num_latent_frames: int, mode: Mode) -> Chunks:
    """Cut a clip into the ranges that see one another in both directions."""
    if mode == "bidirectional":
        return [(0, num_latent_frames)]
    return config.chunk_ranges(num_latent_frames)


def text_of(model: ScenicModel, batch: WindowBatch, nulled: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Give tokens [B, L, D] and mask [B, L] of a batch's captions; the null caption where `nulled` [B] says so."""
    if batch.text is None or batch.text_mask is None:
        tokens, mask = model.text(batch.scene)
    else:
        tokens, mask = batch.text, batch.text_mask
    if nulled is not None:
        caption = model.world.y_embedder.y_embedding.to(tokens.dtype)
        tokens = torch.where(nulled[:, None, None], caption, tokens)
    return tokens, mask


def predict_velocity(
    model: ScenicModel,
    latents: Tensor,
    sigma: Tensor,
    batch: WindowBatch,
    mode: NetworkMode,
    nulled: Tensor | None = None,
) -> Tensor:
    """Predict the velocity of a batch's noisy latents [B, C, T, H, W] at sigma [B, T], at least float32."""
    conditioning = batch.conditioning(*text_of(model, batch, nulled))
    return model.world(latents, 1000.0 * sigma, conditioning, mode=mode)


def velocity_loss(
    model: ScenicModel,
    batch: WindowBatch,
    sigma: Tensor,
    counted: Tensor,
    mode: Mode,
    nulled: Tensor | None = None,
) -> Tensor:
    """Mean square error of the velocity over the frames that count, [B, T] bool."""
    noise = torch.randn_like(batch.latents)
    noisy = add_noise(batch.latents, noise, sigma)
    velocity = predict_velocity(model, noisy, sigma, batch, mode, nulled)
    error = (velocity - (noise - batch.latents)).square().mean((1, 3, 4))
    return error[counted].mean()
