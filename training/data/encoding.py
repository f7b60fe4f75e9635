"""Films encoded on the way: a source of clips with frames becomes one of clips with latents."""

from __future__ import annotations

from typing import Protocol

from model.vae.pocket import Autoencoder
from training.data.clip import Clip, ClipSource
from training.data.latent_cache import LatentCache
from training.data.latents import encoded


class FilmSource(ClipSource, Protocol):
    """A source whose clips have frames."""

    def content(self, index: int) -> str:
        """Hash of all that a clip is made from, fit for a file name; found without decoding it."""
        ...


class EncodedClips:
    """A source of films as latents; each film is encoded once and kept."""

    def __init__(self, films: FilmSource, cache: LatentCache, autoencoder: Autoencoder) -> None:
        """Prepare the source; the cache belongs to the autoencoder."""
        self.films, self.cache, self.autoencoder = films, cache, autoencoder
        self.name, self.left_out = films.name, films.left_out
        self.num_encoded = 0
        """Clips that had to be encoded so far."""

    def __len__(self) -> int:
        return len(self.films)

    def label(self, index: int) -> str:
        return self.films.label(index)

    def __getitem__(self, index: int) -> Clip:
        return self.cache.clip(self.films.content(index), lambda: self._encode(index))

    def _encode(self, index: int) -> Clip:
        self.num_encoded += 1
        return encoded(self.films[index], self.autoencoder)
