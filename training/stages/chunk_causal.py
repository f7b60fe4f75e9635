"""Chunk-causal stage: a model that saw whole clips learns to see no further than its own chunk.

Chunks carry noise of their own, mostly more the later they are, which is what a rollout looks like from inside.
"""

from __future__ import annotations

from training.clips import ClipBatches
from training.configs import StageConfig
from training.stages.flow_matching import FlowMatchingStage
from training.stages.generator import ScenicModel


def chunk_causal_stage(config: StageConfig, before: ScenicModel, clips: ClipBatches) -> FlowMatchingStage:
    return FlowMatchingStage(config, before, clips, sight="chunk_causal")
