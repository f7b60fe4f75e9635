"""Captions, counts and quality by a server that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")

from tests.test_annotation import films as films
from tests.test_annotation import no_bar, plan_for, small_encoder
from training.data.annotation.annotate import annotate
from training.data.annotation.vision_language import VisionLanguageServer, check_address

FRAMES = np.full((9, 64, 96, 3), (200, 30, 30), np.uint8)


class Server:
    """Answers with what it is told to, one answer after the other, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        left = list(answers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers.get("Authorization"))
                content = left.pop(0) if len(left) > 1 else left[0]
                body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
                self.send_response(200 if self.path == "/v1/chat/completions" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator:
    servers: list[Server] = []

    def start(*answers: str) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def said(caption: str, entities: float = 2, quality: float = 1) -> str:
    return json.dumps({"caption": caption, "entities": entities, "quality": quality})


def test_a_clip_is_shown_to_the_model_and_described(serve):
    server = serve("Here it is:\n```json\n" + said("A red  wall.") + "\n```")
    found = VisionLanguageServer(server.address, "qwen", "secret").describe(FRAMES)
    assert found.caption == "A red wall."
    assert found.scores == {"vlm_entity_filter": 2.0, "vlm_quality_filter": 1.0}
    [asked] = server.asked
    assert (asked["model"], asked["temperature"], server.keys) == ("qwen", 0, ["Bearer secret"])
    pictures = [
        part["image_url"]["url"] for part in asked["messages"][0]["content"] if part["type"] == "image_url"
    ]
    shown = cv2.imdecode(
        np.frombuffer(base64.b64decode(pictures[0].split(",")[1]), np.uint8), cv2.IMREAD_COLOR
    )
    assert len(pictures) == 4
    assert shown is not None
    assert shown.shape[1] == 512
    assert shown.mean((0, 1))[2] > 180


def test_captions_that_speak_of_the_camera_are_asked_for_again_and_then_dropped(serve):
    server = serve(said("The camera pans over a wall."), said("A wall in the sun."))
    assert VisionLanguageServer(server.address, "qwen").describe(FRAMES).caption == "A wall in the sun."
    stubborn = serve(said("The camera pans over a wall.", entities=11))
    found = VisionLanguageServer(stubborn.address, "qwen").describe(FRAMES)
    assert (found.caption, found.scores["vlm_entity_filter"], len(stubborn.asked)) == ("", 11.0, 2)


def test_servers_that_do_not_answer_as_asked_are_refused_in_one_sentence(serve):
    with pytest.raises(ValueError, match="where a JSON object was asked for"):
        VisionLanguageServer(serve("I cannot see pictures").address, "qwen").describe(FRAMES)
    with pytest.raises(ValueError, match="does not answer"):
        VisionLanguageServer("http://127.0.0.1:9/v1", "qwen", timeout_s=2.0).describe(FRAMES)
    with pytest.raises(ValueError, match="takes an address such as"):
        check_address("qwen")


def test_counts_and_flags_reject_clips_and_captions_reach_the_set(serve, films: Path, tmp_path: Path):
    (films / "two shots.caption.txt").unlink()
    plan = plan_for(films, tmp_path / "set")
    bounds = {
        **plan.settings.judge.bounds,
        "vlm_entity_filter": (0.0, 10.0),
        "vlm_quality_filter": (0.5, 1.5),
    }
    judge = replace(plan.settings.judge, bounds=bounds)
    server = serve(said("Patches.", 0, 0), said("Coloured patches."))
    described = VisionLanguageServer(server.address, "qwen")
    plan = replace(plan, settings=replace(plan.settings, judge=judge, describer=described))
    done = annotate(plan, small_encoder(), no_bar)
    assert any("vlm_quality_filter" in reason for clip in done.clips for reason in clip.reasons)
    assert {clip.caption for clip in done.clips if clip.kept} == {"Coloured patches."}
