"""Small causal video autoencoder whose decoder is shown what a spatial memory knows of the frames.

Frame 0 alone makes latent frame 0, so a single picture starts a world; latent frame k >= 1 holds frames 4k - 3 to 4k. The encoder
sees nothing outside its own group of frames and nothing of the memory; the decoder sees its own features of the latent frame
before, and for each frame the memory's rendering at full size: it passes through what is known and is left to mend edges and fill
holes. Beside colour it gives inverse depth.

Letters: B batch, T latent frames, R frames per latent frame, H x W pixels, h x w latent grid, C latent channels, N = B T.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.precision import wide
from model.vae.ltx_blocks import once_started
from model.weight_files import read_safetensors

AUTOENCODER_FILE = "autoencoder.safetensors"
"""Weights of the autoencoder."""
RGB = 3
STEM = 4
"""Side of the pixel blocks folded into channels before the first convolution."""
FINISH_WIDTH = 12
"""Channels of the decoder's last layers, at the frame's own resolution."""
GUIDE_CHANNELS = 5
"""Of a frame's rendering: red, green, blue in [-1, 1], coverage in [0, 1], inverse depth in 1/m."""
NOTHING_SHOWN = (-1.0, -1.0, -1.0, 0.0, 0.0)
"""A pixel of the rendering of a memory that holds nothing."""


@dataclass(frozen=True)
class GuidedAutoencoderConfig:
    """Sizes of the autoencoder."""

    latent_channels: int = 96
    temporal_stride: int = 4
    encoder_widths: tuple[int, int, int] = (48, 96, 160)
    """Channels at a quarter, an eighth and a sixteenth of the frame's resolution."""
    frame_width: int = 32
    """Channels that each frame has for itself in the decoder, at a quarter of the resolution."""
    decoder_widths: tuple[int, int, int] = (96, 160, 192)
    """Channels that the frames of a group share, at a quarter, an eighth and a sixteenth of the resolution."""
    num_blocks: tuple[int, int, int] = (2, 3, 1)
    """Residual blocks of the decoder at those resolutions."""
    latent_noise: float = 0.1
    """Standard deviation of the noise added to the latent in training: a posterior of fixed variance."""

    @property
    def spatial_stride(self) -> int:
        return STEM * 8

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GuidedAutoencoderConfig:
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


def folded(x: Tensor, side: int) -> Tensor:
    """`pixel_unshuffle` of [N, C, H, W], by columns and then by whole rows: ONNX Runtime copies those several times as fast."""
    columns = torch.stack([x[..., n::side] for n in range(side)], 2)
    return columns.unflatten(3, (-1, side)).permute(0, 1, 4, 2, 3, 5).flatten(1, 3)


def unfolded(x: Tensor, side: int) -> Tensor:
    """`pixel_shuffle` of [N, C side^2, H, W], by columns and then by whole rows."""
    rows = x.unflatten(1, (-1, side, side)).permute(0, 1, 2, 4, 5, 3).flatten(4)
    return rows.transpose(2, 3).flatten(2, 3)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualBlock(channels) for _ in range(count)])


class Encoder(nn.Module):
    """A group of R frames to one latent frame."""

    def __init__(self, config: GuidedAutoencoderConfig) -> None:
        super().__init__()
        wide, deep, deepest = config.encoder_widths
        self.conv_in = nn.Conv2d(3 * config.temporal_stride * STEM**2, wide, 3, padding=1)
        self.down = nn.Conv2d(wide * 4, deep, 1)
        self.blocks = _blocks(deep, 2)
        self.deeper = nn.Conv2d(deep * 4, deepest, 1)
        self.deep_blocks = _blocks(deepest, 2)
        self.conv_out = nn.Conv2d(deepest, config.latent_channels // 4, 3, padding=1)

    def forward(self, groups: Tensor) -> Tensor:
        """Encode groups [N, 3R, H, W] in [-1, 1] to latents [N, C, h, w]."""
        x = self.conv_in(folded(groups, STEM))
        x = self.blocks(self.down(folded(functional.silu(x), 2)))
        x = self.deep_blocks(self.deeper(folded(x, 2)))
        return folded(self.conv_out(x), 2)


class Decoder(nn.Module):
    """One latent frame, the features of the one before and the memory's rendering of R frames to those frames."""

    def __init__(self, config: GuidedAutoencoderConfig) -> None:
        super().__init__()
        self.stride = config.temporal_stride
        wide, deep, deepest = config.decoder_widths
        frame = config.frame_width
        self.conv_in = nn.Conv2d(config.latent_channels // 4, deepest, 3, padding=1)
        self.mix_past = nn.Conv2d(2 * deepest, deepest, 1)
        self.deepest_blocks = _blocks(deepest, config.num_blocks[2])
        self.up = nn.Conv2d(deepest, 4 * deep, 1)
        self.guide_in = nn.Conv2d(GUIDE_CHANNELS * STEM**2, frame, 3, padding=1)
        self.gather = nn.Conv2d(self.stride * frame, wide, 1)
        self.down = nn.Conv2d(4 * wide, deep, 1)
        self.deep_blocks = _blocks(deep, config.num_blocks[1])
        self.rise = nn.Conv2d(deep, 4 * wide, 1)
        self.blocks = _blocks(wide, config.num_blocks[0])
        self.norm = ChannelNorm(wide)
        self.spread = nn.Conv2d(wide, self.stride * frame, 1)
        self.frame_norm = ChannelNorm(frame)
        self.conv_out = nn.Conv2d(frame, 4 * STEM**2, 3, padding=1)
        self.finish_in = nn.Conv2d(GUIDE_CHANNELS + 4, FINISH_WIDTH, 3, padding=1)
        self.finish_mid = nn.Conv2d(FINISH_WIDTH, FINISH_WIDTH, 3, padding=2, dilation=2)
        self.finish_out = nn.Conv2d(FINISH_WIDTH, 4, 3, padding=1)
        nn.init.zeros_(self.finish_out.weight)

    def features(self, latents: Tensor) -> Tensor:
        """What a latent frame [N, C, h, w] hands to itself and to the next: [N, deepest, 2h, 2w]."""
        return self.conv_in(unfolded(latents, 2))

    def forward(self, features: Tensor, past: Tensor, guide: Tensor) -> Tensor:
        """Decode.

        Args:
            features: Of this latent frame, [N, deepest, 2h, 2w].
            past: Of the one before.
            guide: [N, R, GUIDE_CHANNELS, H, W].

        Returns:
            Colour in about [-1, 1] and inverse depth in about 1/m, [N, R, 4, H, W].
        """
        number, (height, width) = guide.shape[0], guide.shape[-2:]
        x = features + self.mix_past(torch.cat([features, past], 1))
        x = unfolded(self.up(self.deepest_blocks(x)), 2)
        shown = guide.flatten(0, 1)
        each = self.guide_in(folded(shown, STEM))
        seen = self.gather(functional.silu(each).unflatten(0, (number, self.stride)).flatten(1, 2))
        x = x + self.down(folded(seen, 2))
        seen = seen + unfolded(self.rise(self.deep_blocks(x)), 2)
        shared = self.spread(functional.silu(self.norm(self.blocks(seen))))
        each = each + shared.unflatten(1, (self.stride, -1)).flatten(0, 1)
        change = unfolded(self.conv_out(functional.silu(self.frame_norm(each))), STEM)
        drawn = torch.cat([shown[:, :3], shown[:, 4:]], 1) + change
        # At full size: steps of silhouettes and cracks of a pixel are too fine for what was folded.
        drawn = drawn + self.finished(shown, drawn)
        return drawn.view(number, self.stride, 4, height, width)

    def finished(self, shown: Tensor, drawn: Tensor) -> Tensor:
        """What is added at full size: three convolutions of [N, 5 + 4, H, W] to [N, 4, H, W].

        Equal to `finish_out(silu(finish_mid(silu(finish_in(cat([shown, drawn]))))))`, in forms that ONNX Runtime has fast
        kernels for: the first takes fewer than eight channels at a time, the last four pixels as channels of one.
        """
        weight = self.finish_in.weight
        x = functional.conv2d(shown, weight[:, :GUIDE_CHANNELS], self.finish_in.bias, padding=1)
        x = x + functional.conv2d(drawn, weight[:, GUIDE_CHANNELS:], padding=1)
        x = functional.silu(self.finish_mid(functional.silu(x)))
        last = self.finish_out.weight
        places = [functional.pad(last, (q, 1 - q, p, 1 - p)) for p in (0, 1) for q in (0, 1)]
        bias = self.finish_out.bias
        assert bias is not None
        weight = torch.stack(places, 1).flatten(0, 1)
        return unfolded(functional.conv2d(x, weight, bias.repeat_interleave(4), 2, 1), 2)


class GuidedAutoencoder(nn.Module):
    """Encoder, decoder and the statistics that make latents of unit variance."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: GuidedAutoencoderConfig) -> None:
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
        return padded.reshape(-1, stride * RGB, *video.shape[-2:])

    def encode(self, video: Tensor) -> Tensor:
        """Encode a clip [B, F, 3, H, W] in [-1, 1], F = 1 + R * (T - 1), to normalised latents [B, C, T, h, w]."""
        return self.encode_groups(self.group(video)).unflatten(0, (len(video), -1)).transpose(1, 2)

    def encode_groups(self, groups: Tensor) -> Tensor:
        """Encode groups [N, 3R, H, W] in [-1, 1] to normalised latents [N, C, h, w]."""
        return self.normalised(self.encoder(groups))

    def normalised(self, raw: Tensor) -> Tensor:
        return (raw - self.latents_mean[:, None, None]) / self.latents_std[:, None, None]

    def raw(self, normalised: Tensor) -> Tensor:
        return normalised * self.latents_std[:, None, None] + self.latents_mean[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode normalised latents [B, C, T, h, w] of a clip, without a guide, to frames [B, 1 + R * (T - 1), 3, H, W]."""
        frames = self.decode_groups(self.raw(latents.transpose(1, 2))).flatten(1, 2)
        return frames[:, self.config.temporal_stride - 1 :, :RGB]

    def no_guide(self, raw: Tensor) -> Tensor:
        """What the decoder is shown of a memory that holds nothing, black, for latents [B, T, C, h, w]."""
        height, width = (side * self.config.spatial_stride for side in raw.shape[-2:])
        pixel = raw.new_tensor(NOTHING_SHOWN)[:, None, None]
        return pixel.expand(*raw.shape[:2], self.config.temporal_stride, GUIDE_CHANNELS, height, width)

    def decode_groups(self, raw: Tensor, guide: Tensor | None = None) -> Tensor:
        """Decode encoder outputs [B, T, C, h, w] with renderings [B, T, R, GUIDE_CHANNELS, H, W] to colour and inverse
        depth [B, T, R, 4, H, W]; the first latent frame is its own past, and None shows nothing."""
        guide = self.no_guide(raw) if guide is None else guide
        batch, num_latent_frames = raw.shape[:2]
        features = self.decoder.features(raw.flatten(0, 1)).unflatten(0, (batch, num_latent_frames))
        past = torch.cat([features[:, :1], features[:, :-1]], 1)
        frames = self.decoder(features.flatten(0, 1), past.flatten(0, 1), guide.flatten(0, 1))
        return frames.unflatten(0, (batch, num_latent_frames))


class GuidedStreamingDecoder(nn.Module):
    """The decoder as one step of a stream: a latent frame, its guide and caches in, frames, depth and caches out.

    The first latent frame of a stream is recognised by a cache of zeros: its own features then stand for the past, and
    only the last of its R frames means anything.
    """

    def __init__(self, autoencoder: GuidedAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def cache_spec(self, latent_height: int, latent_width: int) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the caches; all start as zeros, float32."""
        width = self.autoencoder.config.decoder_widths[2]
        return [("past_features", (1, width, 2 * latent_height, 2 * latent_width)), ("started", (1,))]

    def forward(
        self,
        latent: Tensor,
        guide_color: Tensor,
        guide_coverage: Tensor,
        guide_inverse_depth: Tensor,
        past_features: Tensor,
        started: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode one latent frame.

        Args:
            latent: Normalised, [1, C, 1, h, w].
            guide_color: What the memory shows of the frames, uint8 [R, H, W, 3].
            guide_coverage: 1 where it knows anything, [R, H, W].
            guide_inverse_depth: 1/m, [R, H, W].
            past_features: Cache, [1, deepest, 2h, 2w].
            started: Cache, [1]: 0 before the first latent frame, 1 after.

        Returns:
            Frames uint8 [R, H, W, 3], inverse depth [R, H, W], then the caches.
        """
        model = self.autoencoder
        color = guide_color.to(latent.dtype).permute(0, 3, 1, 2) / 127.5 - 1.0
        guide = torch.cat([color, guide_coverage[:, None], guide_inverse_depth[:, None]], 1)[None]
        features = model.decoder.features(model.raw(latent[:, :, 0]))
        past = past_features + (1.0 - started)[:, None, None, None] * (features - past_features)
        decoded = wide(model.decoder(features, past, guide)[0])
        frames = ((decoded[:, :3].permute(0, 2, 3, 1) + 1.0) * 127.5).round().clamp(0.0, 255.0)
        return frames.to(torch.uint8), decoded[:, 3].clamp_min(0.0), features, once_started(started)


class StreamingEncoder(nn.Module):
    """The encoder as a graph: R video frames in, one latent frame out."""

    def __init__(self, autoencoder: GuidedAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [R, H, W, 3] to a normalised latent frame [1, C, 1, h, w]."""
        pictures = frames.to(self.autoencoder.latents_mean.dtype).permute(0, 3, 1, 2) / 127.5 - 1.0
        return self.autoencoder.encode_groups(pictures.flatten(0, 1)[None])[:, :, None]


def autoencoder_in(checkpoints: Path) -> Path:
    """Return where the autoencoder of a folder of checkpoints lies, whether it is there or not.

    Where it was published it lies in a bundle beside that folder: the bundle's graphs read their weights from it.
    """
    published = sorted(checkpoints.parent.glob(f"bundles/*/{AUTOENCODER_FILE}"))
    beside = checkpoints / AUTOENCODER_FILE
    return published[0] if published and not beside.exists() else beside


def load_autoencoder_weights(path: Path) -> GuidedAutoencoder:
    """Read an autoencoder, fp32, in evaluation mode.

    Raises:
        ValueError: The file is missing, damaged, or no autoencoder's.
    """
    try:
        weights = {name: tensor.float() for name, tensor in read_safetensors(path)[0].items()}
        model = GuidedAutoencoder(sizes_of(weights))
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(":")
        raise ValueError(f"the autoencoder {path} cannot be used ({reason})") from None
    return model.eval()


def sizes_of(weights: Mapping[str, Tensor]) -> GuidedAutoencoderConfig:
    """Return the sizes of an autoencoder with such weights.

    Raises:
        KeyError: A tensor is missing.
        TypeError: A tensor is a single number.
        ValueError: The first convolution is no matrix.
    """
    width, stem = weights["encoder.conv_in.weight"].shape[:2]
    return GuidedAutoencoderConfig(
        latent_channels=len(weights["latents_mean"]),
        temporal_stride=stem // (RGB * STEM**2),
        encoder_widths=(width, len(weights["encoder.down.weight"]), len(weights["encoder.deeper.weight"])),
        frame_width=len(weights["decoder.guide_in.weight"]),
        decoder_widths=(
            len(weights["decoder.gather.weight"]),
            len(weights["decoder.down.weight"]),
            len(weights["decoder.conv_in.weight"]),
        ),
        num_blocks=(
            _num_blocks(weights, "blocks"),
            _num_blocks(weights, "deep_blocks"),
            _num_blocks(weights, "deepest_blocks"),
        ),
    )


def _num_blocks(weights: Mapping[str, Tensor], part: str) -> int:
    return sum(name.startswith(f"decoder.{part}.") and name.endswith("norm.weight") for name in weights)
