"""Layers of the pocket's autoencoder that are written for ONNX Runtime's speed: they compute what PyTorch's plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from model.vae.guided import Decoder, GuidedAutoencoder, GuidedStreamingDecoder, folded, unfolded
from tests.models import perturb, small_autoencoder


@pytest.mark.parametrize("side", [2, 4])
def test_pixels_are_folded_and_unfolded_as_pytorch_does(side: int) -> None:
    x = torch.randn(2, 3, 5 * side, 7 * side)
    assert torch.equal(folded(x, side), functional.pixel_unshuffle(x, side))
    assert torch.equal(unfolded(folded(x, side), side), x)


@torch.no_grad()
def test_the_last_layers_are_three_plain_convolutions() -> None:
    torch.manual_seed(0)
    decoder = Decoder(small_autoencoder(8, 4))
    perturb(decoder)
    shown, drawn = torch.randn(4, 5, 32, 64), torch.randn(4, 4, 32, 64)
    x = functional.silu(decoder.finish_in(torch.cat([shown, drawn], 1)))
    plain = decoder.finish_out(functional.silu(decoder.finish_mid(x)))
    torch.testing.assert_close(decoder.finished(shown, drawn), plain, rtol=0, atol=1e-6)


@torch.no_grad()
def test_decoding_in_a_stream_equals_decoding_the_clip() -> None:
    torch.manual_seed(1)
    autoencoder = GuidedAutoencoder(small_autoencoder(8, 4)).eval()
    perturb(autoencoder)
    latents = torch.randn(1, 8, 3, 1, 2)
    guide = torch.rand(1, 3, 4, 5, 32, 64)
    color = (guide[:, :, :, :3] * 255).round().to(torch.uint8)
    guide[:, :, :, :3] = color / 127.5 - 1
    whole = autoencoder.decode_groups(autoencoder.raw(latents.transpose(1, 2)), guide)
    decoder = GuidedStreamingDecoder(autoencoder)
    caches = [torch.zeros(shape) for _, shape in decoder.cache_spec(1, 2)]
    for t in range(3):
        shown = color[0, t].permute(0, 2, 3, 1), guide[0, t, :, 3], guide[0, t, :, 4]
        frames, inverse_depth, *caches = decoder(latents[:, :, t : t + 1], *shown, *caches)
        expected = ((whole[0, t, :, :3] + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        assert (frames.float() - expected).abs().max() <= 1
        torch.testing.assert_close(inverse_depth, whole[0, t, :, 3].clamp_min(0), rtol=0, atol=1e-5)
