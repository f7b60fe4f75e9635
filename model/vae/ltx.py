"""Causal LTX-2 video autoencoder: whole clips in, latents out; latents back to frames whole or one latent frame a call.

Parameter names are those of diffusers' `AutoencoderKLLTX2Video`, so released files load as they are. Every convolution is
causal in time: it sees its own frame and those before, and at the start of a clip the first frame repeated. A stream carries
the last inputs of every convolution as explicit caches.

Letters: B batch, F video frames, T latent frames, C channels, H x W pixels, h x w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.precision import wide
from model.vae.ltx_blocks import (
    TAPS,
    CausalConv,
    DownBlock,
    MidBlock,
    Stream,
    UpBlock,
    Upsampler,
    normalise_channels,
    once_started,
)
from model.vae.ltx_config import LtxAutoencoderConfig


class LtxEncoder(nn.Module):
    """Clips to latent means."""

    def __init__(self, config: LtxAutoencoderConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        mode, width = config.encoder_spatial_padding_mode, config.latent_channels
        self.conv_in = CausalConv(config.in_channels * config.patch_size**2, width, mode)
        self.down_blocks = nn.ModuleList()
        for stage, following in enumerate(config.block_out_channels):
            self.down_blocks.append(DownBlock(config, stage, width))
            width = following
        self.mid_block = MidBlock(width, config.layers_per_block[-1], config.resnet_norm_eps, mode)
        # One channel more than the mean: a log variance shared by all, which nobody reads here.
        self.conv_out = CausalConv(width, config.latent_channels + 1, mode)

    def forward(self, video: Tensor) -> Tensor:
        """Encode [B, 3, F, H, W] in [-1, 1] to raw means [B, C, T, h, w]."""
        size = self.patch_size
        patches = video.unflatten(4, (-1, size)).unflatten(3, (-1, size))
        x = self.conv_in(patches.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3), None)
        for block in self.down_blocks:
            x = block(x)
        x = functional.silu(normalise_channels(self.mid_block(x)))
        return self.conv_out(x, None)[:, :-1]


class LtxDecoder(nn.Module):
    """Raw latents to clips."""

    def __init__(self, config: LtxAutoencoderConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        mode, width = config.decoder_spatial_padding_mode, config.decoder_block_out_channels[-1]
        self.conv_in = CausalConv(config.latent_channels, width, mode)
        layers = config.decoder_layers_per_block[-1]
        self.mid_block = MidBlock(width, layers, config.resnet_norm_eps, mode)
        self.up_blocks = nn.ModuleList()
        for stage in range(len(config.decoder_block_out_channels)):
            self.up_blocks.append(UpBlock(config, stage, width))
            width = config.decoder_block_out_channels[::-1][stage] // config.upsample_factor[::-1][stage]
        self.conv_out = CausalConv(width, config.out_channels * config.patch_size**2, mode)

    def forward(self, raw: Tensor, stream: Stream | None = None) -> Tensor:
        """Decode [B, C, T, h, w] to [B, 3, F, H, W] in about [-1, 1]; in a first streaming call all frames are the first."""
        x = self.mid_block(self.conv_in(raw, stream), stream)
        for block in self.up_blocks:
            x = block(x, stream)
        x = self.conv_out(functional.silu(normalise_channels(x)), stream)
        size = self.patch_size
        patches = x.unflatten(1, (-1, size, size)).permute(0, 1, 4, 5, 3, 6, 2)
        return patches.flatten(5, 6).flatten(3, 4)


class LtxAutoencoder(nn.Module):
    """Encoder, decoder and the statistics that make latents of unit variance."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: LtxAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = LtxEncoder(config)
        self.decoder = LtxDecoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))

    def encode(self, video: Tensor) -> Tensor:
        """Encode a clip to the normalised mode of its posterior.

        Args:
            video: [B, 3, F, H, W] in [-1, 1], F = 1 + temporal_stride * (T - 1).

        Returns:
            [B, C, T, h, w].

        Raises:
            ValueError: The clip's length or size does not divide by the strides.
        """
        stride = self.config.temporal_stride
        if (video.shape[2] - 1) % stride:
            raise ValueError(f"a clip of {video.shape[2]} frames does not fit; give 1 + {stride} * n frames")
        if video.shape[3] % self.config.spatial_stride or video.shape[4] % self.config.spatial_stride:
            raise ValueError(
                f"frames of {video.shape[4]}x{video.shape[3]} do not divide by {self.config.spatial_stride}; crop them"
            )
        scale = self.config.scaling_factor / self._column(self.latents_std)
        return (self.encoder(video) - self._column(self.latents_mean)) * scale

    def raw(self, latents: Tensor) -> Tensor:
        """Undo the normalisation of latents [B, C, T, h, w]."""
        scale = self._column(self.latents_std) / self.config.scaling_factor
        return latents * scale + self._column(self.latents_mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode a whole clip of normalised latents [B, C, T, h, w] to [B, 3, F, H, W]."""
        return self.decoder(self.raw(latents))

    def _column(self, values: Tensor) -> Tensor:
        return values[:, None, None, None]


class LtxStreamingDecoder(nn.Module):
    """The decoder as one step of a stream: a latent frame and caches in, uint8 frames and caches out.

    Before the first latent frame all caches are zeros; of the frames of the first call only the last means anything.
    """

    def __init__(self, autoencoder: LtxAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def cache_spec(self, latent_height: int, latent_width: int) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the caches, in the order of `forward`; float32."""
        height, width = latent_height, latent_width
        spec: list[tuple[str, tuple[int, ...]]] = []
        growth = (1, 1)
        # Modules are registered in the order they run; an upsampler comes just before its own convolution.
        for name, module in self.autoencoder.decoder.named_modules():
            if isinstance(module, Upsampler):
                growth = module.stride[1:]
            elif isinstance(module, CausalConv):
                spec.append((f"past.{name}", (1, module.conv.in_channels, TAPS - 1, height, width)))
                height, width = height * growth[0], width * growth[1]
                growth = (1, 1)
        return [*spec, ("started", (1,))]

    def forward(self, latent: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Decode one latent frame.

        Args:
            latent: Normalised, [1, C, 1, h, w].
            caches: As in `cache_spec`.

        Returns:
            Frames uint8 [R, H, W, 3], then the caches.
        """
        *past, started = caches
        stream = Stream(past, started)
        frames = wide(self.autoencoder.decoder(self.autoencoder.raw(latent), stream)[0]).permute(1, 2, 3, 0)
        frames = ((frames + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
        return frames, *stream.after, once_started(started)
