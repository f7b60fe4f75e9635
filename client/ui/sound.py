"""Sound of a walk: footsteps and a quiet ambience for each place, synthesised; silence where there is no audio device."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pygame
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RATE_HZ = 22050
LOOP_S = 8.0
"""Length of an ambience; its end goes over into its beginning."""
STEP_M = 0.75
"""Way from one footstep to the next."""
LEAP_M = 1.5
"""A change of position from picture to picture that is no walking: a load, a rewind, a fresh start."""
NUM_STEPS = 4
"""Different footsteps, so that no two in a row are the same."""
STEP_VOLUME, AMBIENCE_VOLUME = 0.35, 0.25
WORDS: Mapping[str, tuple[str, ...]] = {
    "night": ("night", "lantern", "moon", "dusk"),
    "room": ("gallery", "hall", "museum", "room", "library", "indoor"),
    "garden": ("garden", "park", "forest", "meadow", "lawn"),
    "canyon": ("canyon", "desert", "cliff", "mountain"),
    "town": ("town", "street", "city", "square", "colonnade", "market"),
}
"""Kinds of ambience, and the words of a world's title and caption that ask for them; a breeze for all others."""
SOFT = ("garden", "night")
"""Kinds whose ground muffles steps."""


def kind_of(texts: Sequence[str]) -> str:
    """Choose the ambience for a world by its name, title and caption; earlier texts count first."""
    for text in texts:
        words = text.lower()
        for kind, asking in WORDS.items():
            if any(word in words for word in asking):
                return kind
    return "breeze"


def noise_band(low_hz: float, high_hz: float, tilt: float, seconds: float, seed: int) -> Samples:
    """Noise that repeats without a seam, peak 1, [N].

    Args:
        low_hz: Frequencies from here to `high_hz` are in it.
        tilt: Power to which amplitude falls with frequency.
    """
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ)
    frequency = np.fft.rfftfreq(count, 1 / RATE_HZ)
    inside = (frequency >= low_hz) & (frequency <= high_hz)
    amplitude = np.where(inside, np.maximum(frequency, 1.0) ** -tilt, 0.0)
    wave = np.fft.irfft(amplitude * np.exp(2j * np.pi * rng.random(len(frequency))), count)
    return wave / max(float(np.abs(wave).max()), 1e-9)


def footstep(soft: bool, seed: int) -> NDArray[np.int16]:
    """One footstep, mono: a thump and the grit under the sole, [N]."""
    rng = np.random.default_rng(seed)
    seconds = 0.16
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = rng.uniform(62, 82)
    thump = np.sin(2 * np.pi * pitch_hz * time_s) * np.exp(-time_s / 0.03)
    high_hz = 900.0 if soft else 3200.0
    grit = noise_band(150, high_hz, 0.5, seconds, seed) * np.exp(-time_s / (0.035 if soft else 0.02))
    attack = np.minimum(time_s / 0.004, 1.0)
    return _as_int16(attack * (0.7 * thump + (0.5 if soft else 0.8) * grit))


def ambience(kind: str, seed: int = 0) -> NDArray[np.int16]:
    """A loop for a kind of place, stereo, [N, 2]."""
    sides = []
    for side in (0, 1):
        gusts = 0.65 + 0.35 * noise_band(0.1, 0.5, 0.0, LOOP_S, seed + 5)
        wind = gusts * noise_band(90, 1400, 1.0, LOOP_S, seed + 10 + side)
        if kind == "room":
            sides.append(0.5 * noise_band(40, 300, 1.2, LOOP_S, seed + 20 + side))
        elif kind == "night":
            sides.append(0.3 * wind + 0.25 * _crickets(side))
        elif kind in ("garden", "town"):
            share = 0.25 if kind == "garden" else 0.1
            sides.append(0.4 * wind + share * _birds(seed, side))
        else:
            sides.append((1.0 if kind == "canyon" else 0.6) * wind)
    return _as_int16(np.stack(sides, -1))


def _crickets(side: int) -> Samples:
    """Pulses of a high tone in groups, [N]; both ears hear their own."""
    time_s = np.arange(round(LOOP_S * RATE_HZ)) / RATE_HZ
    pulses = np.maximum(np.sin(2 * np.pi * 25 * time_s), 0.0) ** 2
    groups = np.sin(2 * np.pi * (1.0 + 0.25 * side) * time_s + side) > 0.2
    return np.sin(2 * np.pi * (4200 + 150 * side) * time_s) * pulses * groups


def _birds(seed: int, side: int) -> Samples:
    """A few short calls that glide in pitch, [N]; nearer to one ear or the other."""
    rng = np.random.default_rng(seed + 40)
    wave = np.zeros(round(LOOP_S * RATE_HZ))
    for _ in range(9):
        length = round(rng.uniform(0.08, 0.2) * RATE_HZ)
        start = int(rng.integers(len(wave) - length))
        pitch_hz = rng.uniform(2200, 3600) + np.linspace(0, rng.uniform(-900, 900), length)
        call = np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ) * np.hanning(length)
        nearness = rng.uniform(0.1, 1.0)
        wave[start : start + length] += call * (nearness if side else 1.1 - nearness)
    return wave


def _as_int16(wave: Samples) -> NDArray[np.int16]:
    return (np.clip(wave, -1.0, 1.0) * 32000).astype(np.int16)


def has_device(environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether it is worth asking for an audio device: on Linux without one, ALSA fills the terminal with complaints."""
    if "SDL_AUDIODRIVER" in environment or not sys.platform.startswith("linux"):
        return True
    runtime = Path(environment.get("XDG_RUNTIME_DIR", "/nowhere"))
    sockets = (runtime / "pulse" / "native", runtime / "pipewire-0")
    named = "PULSE_SERVER" in environment
    return named or any(map(os.path.exists, sockets)) or any((root / "dev/snd").glob("pcm*p"))


class Synthesis:
    """The sound of a kind of place, made on a thread of its own: it takes the time of many pictures."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.is_done = False
        """Whether the samples below are there."""
        self.steps: list[NDArray[np.int16]] = []
        """Mono, [N] each."""
        self.ambience: NDArray[np.int16] = np.empty((0, 2), np.int16)
        """Stereo, [N, 2]."""
        self._thread = threading.Thread(target=self._run, name="flaneur-sound", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.steps = [footstep(self._kind in SOFT, seed) for seed in range(NUM_STEPS)]
        self.ambience = ambience(self._kind)
        self.is_done = True

    def join(self) -> None:
        """Wait for the samples."""
        self._thread.join()


class Sound:
    """What is heard; does nothing where there is no device, or while it is off."""

    def __init__(self) -> None:
        self._is_open: bool | None = None
        self._coming: Synthesis | None = None
        """Sound of the world that was entered, until it is made."""
        self._steps: list[pygame.mixer.Sound] = []
        self._ambience: pygame.mixer.Sound | None = None
        self._last: NDArray[np.float64] | None = None
        self._way_m = 0.0
        self._count = 0
        self.on = True

    def enter(self, texts: Sequence[str]) -> None:
        """Begin the sound of a world, by its name, title and caption."""
        self.leave()
        if not self._open():
            return
        self._coming = Synthesis(kind_of(texts))

    def _begin(self, synthesis: Synthesis) -> None:
        """Be heard, once the sound of a world is made."""
        self._coming = None
        self._steps = [_sound(_both(step), STEP_VOLUME) for step in synthesis.steps]
        self._ambience = _sound(synthesis.ambience, AMBIENCE_VOLUME if self.on else 0.0)
        self._ambience.play(loops=-1, fade_ms=1500)

    def switch(self, on: bool) -> None:
        """Turn the sound on or off."""
        self.on = on
        if self._ambience is not None:
            self._ambience.set_volume(AMBIENCE_VOLUME if on else 0.0)

    def follow(self, position: NDArray[np.float64], on_foot: bool) -> bool:
        """Play a footstep where the walk has come far enough, and say whether it was time for one; once for each picture.

        Args:
            position: Of the picture that is on, metres, [3].
        """
        if self._coming is not None and self._coming.is_done:
            self._begin(self._coming)
        last, self._last = self._last, position.copy()
        moved_m = 0.0 if last is None else float(np.hypot(*(position - last)[[0, 2]]))
        if not on_foot or moved_m > LEAP_M:
            self._way_m = 0.0
            return False
        self._way_m += moved_m
        if self._way_m < STEP_M:
            return False
        self._way_m %= STEP_M
        self._count += 1
        if self._steps and self.on:
            self._steps[self._count % NUM_STEPS].play()
        return True

    def leave(self) -> None:
        """End the sound of a world."""
        if self._ambience is not None:
            self._ambience.fadeout(300)
        self._coming = None
        self._ambience, self._steps, self._last, self._way_m = None, [], None, 0.0

    def close(self) -> None:
        """Give the device back."""
        self.leave()
        if self._is_open:
            pygame.mixer.quit()
        self._is_open = None

    def _open(self) -> bool:
        if self._is_open is None:
            self._is_open = has_device(os.environ)
            try:
                if self._is_open:
                    pygame.mixer.init(RATE_HZ, -16, 2, 1024)
            except pygame.error:
                self._is_open = False
        return self._is_open


def _both(mono: NDArray[np.int16]) -> NDArray[np.int16]:
    return np.repeat(mono[:, None], 2, 1)


def _sound(samples: NDArray[np.int16], volume: float) -> pygame.mixer.Sound:
    """A sound of stereo samples, [N, 2], at the mixer's own rate."""
    made = pygame.mixer.Sound(buffer=np.ascontiguousarray(samples).tobytes())
    made.set_volume(volume)
    return made
