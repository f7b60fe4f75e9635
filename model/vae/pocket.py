"""Small causal video autoencoder: four frames to a latent frame, decoded one latent frame a call with explicit caches.

Frame 0 alone makes latent frame 0, so one image starts a world; latent frame k >= 1 holds frames 4k - 3 to 4k. The encoder
sees nothing outside its own group of frames; the decoder also sees its own features of the latent frame before.

Letters: B batch, T latent frames, R frames per latent frame, H x W pixels, h x w latent grid, C latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.weight_files import read_safetensors

AUTOENCODER_FILE = "autoencoder.safetensors"
"""Weights of the autoencoder, in the folder of the checkpoint."""
RGB = 3
STEM = 4
"""Side of the pixel blocks folded into channels before the first convolution."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder."""

    latent_channels: int = 64
    """At the latent grid; the bottleneck has a quarter as many at twice the resolution."""
    temporal_stride: int = 4
    width: int = 96
    """Channels at a quarter of the frame's resolution."""
    deep_width: int = 192
    """Channels at an eighth of the frame's resolution."""
    num_encoder_blocks: tuple[int, int] = (1, 3)
    """Residual blocks at a quarter and at an eighth of the resolution."""
    num_decoder_blocks: tuple[int, int] = (3, 4)
    latent_noise: float = 0.1
    """Standard deviation of the noise added to the latent in training: a posterior of fixed variance."""

    @property
    def spatial_stride(self) -> int:
        return STEM * 2 * 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AutoencoderConfig:
        """Rebuild from JSON values.

        Raises:
            ValueError: A key is unknown.
        """
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown autoencoder settings {sorted(unknown)}; this file was made by another version"
            )
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**known)


class ChannelNorm(nn.Module):
    """RMS norm over the channels of each pixel: no statistics over time or space, so streaming is exact."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [N, C, H, W]."""
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
        return x * scale * self.weight[:, None, None]


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv_out.weight, std=0.2 / (9 * channels) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(functional.silu(self.conv_in(functional.silu(self.norm(x)))))


class Encoder(nn.Module):
    """A group of R frames to one latent frame."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        stem_channels = 3 * config.temporal_stride * STEM**2
        self.conv_in = nn.Conv2d(stem_channels, config.width, 3, padding=1)
        self.blocks = nn.Sequential(
            *[ResidualBlock(config.width) for _ in range(config.num_encoder_blocks[0])]
        )
        self.down = nn.Conv2d(config.width * 4, config.deep_width, 1)
        self.deep_blocks = nn.Sequential(
            *[ResidualBlock(config.deep_width) for _ in range(config.num_encoder_blocks[1])]
        )
        self.conv_out = nn.Conv2d(config.deep_width, config.latent_channels // 4, 3, padding=1)

    def forward(self, groups: Tensor) -> Tensor:
        """Encode groups [N, 3R, H, W] in [-1, 1] to latents [N, C, h, w]."""
        x = self.blocks(self.conv_in(functional.pixel_unshuffle(groups, STEM)))
        x = self.deep_blocks(self.down(functional.pixel_unshuffle(x, 2)))
        return functional.pixel_unshuffle(self.conv_out(x), 2)


class Decoder(nn.Module):
    """One latent frame and the features of the one before to R frames."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(config.latent_channels // 4, config.deep_width, 3, padding=1)
        self.mix_past = nn.Conv2d(2 * config.deep_width, config.deep_width, 1)
        self.deep_blocks = nn.Sequential(
            *[ResidualBlock(config.deep_width) for _ in range(config.num_decoder_blocks[1])]
        )
        self.up = nn.Conv2d(config.deep_width, 4 * config.width, 1)
        self.blocks = nn.Sequential(
            *[ResidualBlock(config.width) for _ in range(config.num_decoder_blocks[0])]
        )
        self.norm = ChannelNorm(config.width)
        self.conv_out = nn.Conv2d(config.width, 3 * config.temporal_stride * STEM**2, 3, padding=1)

    def features(self, latents: Tensor) -> Tensor:
        """Compute what decoding a latent frame [N, C, h, w] and the next one reads: [N, deep_width, 2h, 2w]."""
        return self.conv_in(functional.pixel_shuffle(latents, 2))

    def forward(self, features: Tensor, past: Tensor) -> Tensor:
        """Decode from this latent frame's features and those of the one before to frames [N, 3R, H, W] in about [-1, 1]."""
        x = features + self.mix_past(torch.cat([features, past], 1))
        x = functional.pixel_shuffle(self.up(self.deep_blocks(x)), 2)
        x = self.conv_out(functional.silu(self.norm(self.blocks(x))))
        return functional.pixel_shuffle(x, STEM)


class Autoencoder(nn.Module):
    """Encoder, decoder and the statistics that make latents of unit variance."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))

    def group(self, video: Tensor) -> Tensor:
        """Arrange a clip [B, F, 3, H, W], F = 1 + R * (T - 1), as groups [B * T, 3R, H, W]; frame 0 fills its group alone.

        Raises:
            ValueError: F does not fit the temporal stride.
        """
        stride = self.config.temporal_stride
        if (video.shape[1] - 1) % stride:
            raise ValueError(f"a clip of {video.shape[1]} frames does not fit; give 1 + {stride} * n frames")
        padded = torch.cat([video[:, :1].expand(-1, stride - 1, -1, -1, -1), video], 1)
        return padded.reshape(-1, stride * 3, *video.shape[-2:])

    def encode(self, video: Tensor) -> Tensor:
        """Encode a clip to normalised latents.

        Args:
            video: [B, F, 3, H, W] in [-1, 1], F = 1 + R * (T - 1).

        Returns:
            [B, C, T, h, w], about unit variance per channel.
        """
        batch = video.shape[0]
        raw = self.encoder(self.group(video))
        normalised = (raw - self.latents_mean[:, None, None]) / self.latents_std[:, None, None]
        return normalised.unflatten(0, (batch, -1)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode a whole clip.

        Args:
            latents: Normalised, [B, C, T, h, w]; frame 0 is the clip's first.

        Returns:
            [B, 1 + R * (T - 1), 3, H, W] in about [-1, 1].
        """
        raw = latents.transpose(1, 2) * self.latents_std[:, None, None] + self.latents_mean[:, None, None]
        frames = self.decode_groups(raw).unflatten(2, (self.config.temporal_stride, 3))
        return frames.flatten(1, 2)[:, self.config.temporal_stride - 1 :]

    def decode_groups(self, raw: Tensor) -> Tensor:
        """Decode encoder outputs [B, T, C, h, w] to whole groups [B, T, 3R, H, W]; the first is its own past."""
        batch, num_latent_frames = raw.shape[:2]
        features = self.decoder.features(raw.flatten(0, 1)).unflatten(0, (batch, num_latent_frames))
        past = torch.cat([features[:, :1], features[:, :-1]], 1)
        frames = self.decoder(features.flatten(0, 1), past.flatten(0, 1))
        return frames.unflatten(0, (batch, num_latent_frames))


class StreamingDecoder(nn.Module):
    """The decoder as one step of a stream: a latent frame and caches in, uint8 frames and caches out.

    The first latent frame of a stream is recognised by a cache of zeros: its own features then stand for the past, and
    only the last of its R frames means anything.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def cache_spec(self, latent_height: int, latent_width: int) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the caches; all start as zeros, float32."""
        width = self.autoencoder.config.deep_width
        return [("past_features", (1, width, 2 * latent_height, 2 * latent_width)), ("started", (1,))]

    def forward(
        self, latent: Tensor, past_features: Tensor, started: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one latent frame.

        Args:
            latent: Normalised, [1, C, 1, h, w].
            past_features: Cache, [1, deep_width, 2h, 2w].
            started: Cache, [1]: 0 before the first latent frame, 1 after.

        Returns:
            Frames uint8 [R, H, W, 3], then the caches.
        """
        model = self.autoencoder
        raw = latent[:, :, 0] * model.latents_std[:, None, None] + model.latents_mean[:, None, None]
        features = model.decoder.features(raw)
        past = past_features + (1.0 - started)[:, None, None, None] * (features - past_features)
        frames = model.decoder(features, past).unflatten(1, (model.config.temporal_stride, 3))[0]
        frames = ((frames.permute(0, 2, 3, 1) + 1.0) * 127.5).round().clamp(0.0, 255.0)
        return frames.to(torch.uint8), features, torch.ones_like(started)


def load_autoencoder_weights(path: Path) -> Autoencoder:
    """Read an autoencoder, fp32, in evaluation mode.

    Raises:
        ValueError: The file is missing, damaged, or no autoencoder's.
    """
    try:
        weights, _ = read_safetensors(path)
        model = Autoencoder(sizes_of(weights))
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(":")
        raise ValueError(f"the autoencoder {path} cannot be used ({reason})") from None
    return model.eval()


def sizes_of(weights: Mapping[str, Tensor]) -> AutoencoderConfig:
    """Return the sizes of an autoencoder with such weights.

    Raises:
        KeyError: A tensor is missing.
        TypeError: A tensor is a single number.
        ValueError: The first convolution is no matrix.
    """
    width, stem = weights["encoder.conv_in.weight"].shape[:2]
    return AutoencoderConfig(
        latent_channels=len(weights["latents_mean"]),
        temporal_stride=stem // (RGB * STEM**2),
        width=width,
        deep_width=len(weights["encoder.down.weight"]),
        num_encoder_blocks=_num_blocks(weights, "encoder"),
        num_decoder_blocks=_num_blocks(weights, "decoder"),
    )


def _num_blocks(weights: Mapping[str, Tensor], half: str) -> tuple[int, int]:
    shallow, deep = (
        sum(name.startswith(f"{half}.{blocks}.") and name.endswith("norm.weight") for name in weights)
        for blocks in ("blocks", "deep_blocks")
    )
    return shallow, deep
