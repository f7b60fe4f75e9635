"""Captions, counts and a quality flag by a vision-language model that transformers runs in this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.annotation.vision_language import QUESTION, Described, describe_by, shown_frames

MOST_NEW_TOKENS = 512


@dataclass(frozen=True)
class LocalVisionLanguage:
    """A model by its name on the hub or its folder."""

    model: str
    needs_gpu: bool = True

    def describe(self, frames: NDArray[np.uint8]) -> Described:
        """Ask for a caption and scores of a clip, [F, H, W, 3].

        Raises:
            ValueError: transformers or the model is not there, or it does not answer with what was asked for.
        """
        return describe_by(lambda: _ask(self.model, frames))


@torch.inference_mode()
def _ask(name: str, frames: NDArray[np.uint8]) -> str:
    processor, model = open_model(name)
    content: list[dict[str, Any]] = [
        {"type": "image", "image": _picture(shown)} for shown in shown_frames(frames)
    ]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": QUESTION}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    said = model.generate(**inputs, do_sample=False, max_new_tokens=MOST_NEW_TOKENS)
    return str(processor.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])


def _picture(frame: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(frame)


@cache
def open_model(name: str) -> tuple[Any, Any]:
    """Load processor and model once a process.

    Raises:
        ValueError: transformers is not installed, or no such model can be had.
    """
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise ValueError(
            "a vision-language model in this process needs transformers; run pip install 'transformers>=5.0' "
            "torchvision, or give --vlm the address of a server"
        ) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        processor = AutoProcessor.from_pretrained(name)
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype="auto")
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"there is no vision-language model {name} ({reason}); name a folder or a model on the hub, or give --vlm "
            "an address such as http://localhost:8000/v1"
        ) from error
    return processor, model.to(device).eval()
