"""Captions, counts and a quality flag by a vision-language model; here one behind an OpenAI-compatible address.

Any server will do that speaks `POST /v1/chat/completions` with pictures: vLLM, llama.cpp, Ollama, a hosted one. The key of the
latter is read by the command line from the environment and never written to a set.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.clip_quality import camera_words

NUM_FRAMES = 4
"""Of a clip, that the model is shown."""
FRAME_WIDTH_PX = 512
JPEG_QUALITY = 85
TRIES = 2
"""Of a caption: one that speaks of the camera is asked for once more."""
MAX_ANSWER_BYTES = 1 << 20
QUESTION = (
    "These are frames of one video of a place, in order. Answer with one JSON object and nothing else: "
    '{"caption": one or two sentences about what stands there, its materials, light and weather, '
    "with no word about the camera, its movement, the video or the viewer; "
    '"entities": how many people, vehicles and animals are to be seen in all, a number; '
    '"quality": 1 if the pictures are clean, 0 if they show overlays, text, heavy blur, glitches or menus}'
)


@dataclass(frozen=True)
class Described:
    """What a model says of a clip."""

    caption: str
    """Empty where it could not but speak of the camera."""
    scores: dict[str, float]
    """`vlm_entity_filter` and `vlm_quality_filter`, where it gave numbers."""


class Describer(Protocol):
    """Describes clips."""

    @property
    def needs_gpu(self) -> bool:
        """Whether the model runs on a GPU of the process that asks."""
        ...

    def describe(self, frames: NDArray[np.uint8]) -> Described:
        """Ask for a caption and scores of a clip, [F, H, W, 3].

        Raises:
            ValueError: There is no model, or it does not answer with what was asked for.
        """
        ...


def describe_by(ask: Callable[[], str]) -> Described:
    """Ask a model, and once more where its caption speaks of the camera.

    Raises:
        ValueError: It does not answer with a JSON object.
    """
    described = Described("", {})
    for _ in range(TRIES):
        answer = _object(ask())
        caption = " ".join(str(answer.get("caption", "")).split())
        scores = {
            f"vlm_{name}_filter": float(answer[said])
            for name, said in (("entity", "entities"), ("quality", "quality"))
            if isinstance(answer.get(said), int | float)
        }
        if caption and not camera_words(caption):
            return Described(caption, scores)
        described = Described("", scores)
    return described


def shown_frames(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The frames of a clip that a model is shown, FRAME_WIDTH_PX wide, RGB."""
    picks = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
    height, width = frames.shape[1:3]
    size = FRAME_WIDTH_PX, max(1, round(FRAME_WIDTH_PX * height / width))
    return [np.asarray(cv2.resize(frames[n], size, interpolation=cv2.INTER_AREA), np.uint8) for n in picks]


@dataclass(frozen=True)
class VisionLanguageServer:
    """A model at an address."""

    address: str
    """Such as http://localhost:8000/v1 ."""
    model: str
    key: str = field(default="", repr=False)
    """Sent as a bearer token; not part of what a result depends on."""
    timeout_s: float = 120.0

    needs_gpu: bool = False

    def describe(self, frames: NDArray[np.uint8]) -> Described:
        """Ask for a caption and scores of a clip, [F, H, W, 3].

        Raises:
            ValueError: The server does not answer, or not with what was asked for.
        """
        return describe_by(lambda: self._ask(frames))

    def _ask(self, frames: NDArray[np.uint8]) -> str:
        content: list[dict[str, Any]] = [{"type": "text", "text": QUESTION}]
        content += [{"type": "image_url", "image_url": {"url": url}} for url in _data_urls(frames)]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "seed": 0,
        }
        request = urllib.request.Request(
            f"{self.address.rstrip('/')}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:
                answer = json.loads(reply.read(MAX_ANSWER_BYTES))
            return str(answer["choices"][0]["message"]["content"])
        except (OSError, urllib.error.URLError) as error:
            raise ValueError(
                f"the model at {self.address} does not answer ({error}); check the address"
            ) from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"the model at {self.address} answers with no completion; is it OpenAI-compatible?"
            ) from error


def check_address(address: str) -> str:
    """Refuse what is no address of a web server.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"https?://[^\s]+", address):
        raise ValueError(f"--vlm takes an address such as http://localhost:8000/v1, got {address!r}")
    return address


def _object(text: str) -> dict[str, Any]:
    """The JSON object in an answer, which models like to wrap in a fence or in words."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"the model answers {text[:60]!r} where a JSON object was asked for; take another model"
        )
    return found


def _data_urls(frames: NDArray[np.uint8]) -> list[str]:
    urls = []
    for small in shown_frames(frames):
        ok, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert ok, "a uint8 picture always encodes"
        urls.append("data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode())
    return urls
