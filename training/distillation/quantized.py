"""Quantisation-aware distillation: a student under NVFP4 learns what it itself says in full precision, on its own rollouts.

Weights and inputs of the layers that the layer table gives 4 bits are rounded as an engine will round them, and gradients pass
straight through. No data is needed but first frames, cameras and text: the student makes its clips.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from export.quantization.layers import STEP_RULES, Recipe, Rules
from export.quantization.quantize import quantise_dynamically, quantised_layers
from training.data.batches import ClipBatches
from training.optimizer import MasterOptimizer
from training.stages.config import StageConfig
from training.stages.conversions import rebuilt
from training.stages.flow_matching import clip_frames, predict_velocity
from training.stages.noise import add_noise
from training.stages.rollout import make_again
from training.stages.scenic_model import ScenicModel, is_hidden_matrix

if TYPE_CHECKING:
    from training.parallel.single_process import Cluster


class QuantizedDistillationStage:
    """Rollouts of the quantised student, and the difference of its velocity from the teacher's."""

    def __init__(
        self, config: StageConfig, student: ScenicModel, clips: ClipBatches, rules: Rules = STEP_RULES
    ) -> None:
        """Prepare the stage.

        Args:
            student: Few-step already; a copy of it, in full precision, is the teacher.
            rules: Layer table that an engine of it will have.
        """
        assert config.distillation is not None
        assert config.quantization is not None
        self.name, self.config, self.clips = config.stage, config, clips
        self.timesteps = config.distillation.timesteps
        self.model = rebuilt(student, student.world.config)
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)
        recipe = Recipe(config.quantization, rules=rules)
        learning = {f"world.{name}.weight" for name in quantised_layers(self.model.world, recipe)}
        quantise_dynamically(self.model.world, recipe)
        self.optimizer = MasterOptimizer(
            self.model, config.optimizer, is_hidden_matrix, learning.__contains__
        )

    @property
    def frames_per_step(self) -> float:
        """Video frames that the student makes."""
        return clip_frames(self.config, self.model.world.config)

    def share_out(self, cluster: Cluster) -> None:
        """Let processes share both networks; rollouts each makes whole.

        Raises:
            ValueError: Clips are to be shared: scales would follow a part of a clip alone.
        """
        if cluster.num_groups < cluster.size:
            raise ValueError(f"{self.name} shares no clips among processes; leave --context-parallel out")
        for model in (self.model, self.teacher):
            cluster.share(model)
        self.optimizer = self.optimizer.anew(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Where the data stands."""
        return self.clips.position()

    def load_state_dict(self, memory: dict[str, Any]) -> None:
        """Go on with the data from there."""
        self.clips.go_on(memory)

    def backward(self, rng: np.random.Generator) -> dict[str, float]:
        """One step: the loss is the squared error of the velocity over the teacher's square, where noise is left."""
        config = self.config
        batch = self.clips.draw(config.batch_size, config.num_latent_frames, rng)
        batch = batch.to(self.model.scenes.device)
        noise = torch.randn_like(batch.latents)
        made = make_again(self.model, batch, self.timesteps, noise).to(batch.latents.dtype)
        sigma = self.levels(rng).to(made.device)
        noisy = add_noise(made, torch.randn_like(made), sigma)
        velocity = predict_velocity(self.model, noisy, sigma, batch, "streaming")
        with torch.no_grad():
            target = predict_velocity(self.teacher, noisy, sigma, batch, "streaming")
        error, size = ((x.float().square().mean((1, 3, 4))) for x in (velocity - target, target))
        counted = (sigma > 0).float()
        loss = (error * counted).sum() / (size * counted).sum()
        loss.backward()
        return {"loss": float(loss.detach())}

    def levels(self, rng: np.random.Generator) -> Tensor:
        """Draw sigma of every latent frame, [B, T]: clean up to some chunk, then levels of the student's that do not fall."""
        config = self.config
        sigmas = np.array(self.timesteps, np.float32) / 1000
        chunks = self.model.world.config.chunk_ranges(config.num_latent_frames)
        levels = np.zeros((config.batch_size, config.num_latent_frames), np.float32)
        for row in levels:
            # The first frame is given, whether it is a chunk of its own or not.
            first = int(rng.integers(int(chunks[0][1] == 1), len(chunks)))
            drawn = np.sort(rng.choice(sigmas, len(chunks) - first))
            for (start, stop), level in zip(chunks[first:], drawn, strict=True):
                row[max(start, 1) : stop] = level
        return torch.from_numpy(levels)
