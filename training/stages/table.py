"""The paper's stages by name: their order, what each does and which one it goes on from; needs no tensor library."""

from __future__ import annotations

PURPOSES = {
    "base-autoencoder": "train the causal autoencoder that the base speaks, on crops of films",
    "base": "train a camera-blind model with cumulative linear attention to begin from",
    "autoencoder": "train the causal autoencoder that stays",
    "autoencoder-swap": "put it under the model: patchify and output projection begin anew, everything learns",
    "framewise-gdn": "replace cumulative linear attention by frame-wise gated delta nets",
    "hybrid-attention": "make every 4th block a softmax block that keeps its projections",
    "minute-camera": "lengthen clips and add both camera branches, silent at first",
    "best-clips": "fine-tune on the best clips",
    "chunk-causal": "see no further than the own chunk, with noise of its own for each chunk",
    "ode-regression": "learn in few steps where the teacher's trajectories end",
    "self-forcing-short": "match the teacher's distribution on own rollouts, remembering every chunk",
    "self-forcing-long": "the same at full length, remembering a sink and a window",
}
"""What each stage does, in the order in which they follow one another."""
ORDER = tuple(PURPOSES)
STARTS_FROM = {
    "autoencoder-swap": "base",
    "framewise-gdn": "autoencoder-swap",
    "hybrid-attention": "framewise-gdn",
    "minute-camera": "hybrid-attention",
    "best-clips": "minute-camera",
    "chunk-causal": "best-clips",
    "ode-regression": "chunk-causal",
    "self-forcing-short": "ode-regression",
    "self-forcing-long": "self-forcing-short",
}
"""Whose weights a stage takes over; the others begin with random ones."""
TEACHER = "best-clips"
"""Stage whose model, which sees whole clips, teaches the distilled ones."""
