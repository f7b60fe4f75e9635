"""`flaneur data annotate`: from videos without poses to a training set."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import Json, pixels
from cli.report import extra_needed, print_json, print_table, say, stages

if TYPE_CHECKING:
    from evaluation.poses.estimator import PoseEstimator
    from training.data.annotation.annotate import Annotation, AnnotationPlan
    from training.data.annotation.cameras import CameraSettings
    from training.data.annotation.clip_job import ClipSettings
    from training.data.annotation.cut_detectors import CutDetector
    from training.data.annotation.dover import QualityScorer
    from training.data.annotation.runners import Runner
    from training.data.annotation.vision_language import Describer

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key of a hosted model."""
NAMED_LEFT_OUT = 20
"""Sources that are named when they are left out; the rest is counted."""


class PoseMode(StrEnum):
    """Where poses come from."""

    ESTIMATED = "estimated"
    GIVEN = "given"


class Estimator(StrEnum):
    """What recovers poses."""

    PYCOLMAP = "pycolmap"
    VIPE = "vipe"
    PI3X = "pi3x"


class Cuts(StrEnum):
    """What looks for cuts."""

    ADAPTIVE = "adaptive"
    TRANSNETV2 = "transnetv2"


class DepthMode(StrEnum):
    """Where metric depth comes from."""

    NONE = "none"
    GIVEN = "given"
    MOGE = "moge"


class Preset(StrEnum):
    """Kept ranges of scores, by set of the paper's Table 6."""

    MEASURED = "measured"
    OMNIWORLD = "omniworld"
    SEKAI_GAME = "sekai-game"
    SEKAI_WALKING = "sekai-walking"
    MIRADATA = "miradata"
    DL3DV_GS = "dl3dv-gs"
    SPATIALVID = "spatialvid"


Sources = Annotated[list[Path], typer.Argument(help="Videos, folders of videos, folders of pictures.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the set.")]
PresetOption = Annotated[
    Preset, typer.Option(help="Kept ranges of scores; measured asks only for what needs no network.")
]
KeepMissing = Annotated[
    bool, typer.Option("--keep-missing", help="Keep clips that lack a score of the preset.")
]
Frames = Annotated[int, typer.Option(min=17, max=9601, help="Longest clip, at 16 a second.")]
LeastFrames = Annotated[int, typer.Option(min=17, max=9601, help="Shortest clip.")]
Stride = Annotated[
    int, typer.Option(min=1, max=9601, help="Frames between starts of clips of one long shot.")
]
Lens = Annotated[
    str | None, typer.Option(help="fx,fy,cx,cy in pixels of the sources, where the lens is known.")
]
Speed = Annotated[
    float,
    typer.Option(min=0.001, max=1000, help="Mean speed of the cameras, m/s: gives poses their scale."),
]
Poses = Annotated[
    PoseMode, typer.Option(help="Recover poses from the frames, or take those beside each video.")
]
EstimatorOption = Annotated[
    Estimator, typer.Option(help="What recovers poses: pycolmap, or VIPE or Pi3X where installed.")
]
VipeProgram = Annotated[str, typer.Option("--vipe", help="The program of VIPE, where it is not on the path.")]
CutsOption = Annotated[
    Cuts, typer.Option(help="PySceneDetect's adaptive detector, or TransNetV2 where installed.")
]
DoverFolder = Annotated[
    Path | None,
    typer.Option("--dover", help="Clone of DOVER with its weights, for scores of picture quality."),
]
DoverPython = Annotated[
    Path | None,
    typer.Option(help="Python that DOVER is installed for; default: .venv/bin/python of its clone."),
]
MetresPerUnit = Annotated[
    float, typer.Option(min=1e-6, max=1e6, help="Length of the unit that given poses are in.")
]
Depth = Annotated[
    DepthMode,
    typer.Option(
        help="What gives poses their scale instead: NAME.depth.npy in metres, or MoGe-2 where installed."
    ),
]
Captions = Annotated[
    Path | None, typer.Option(help="JSON of captions by video; default: NAME.caption.txt beside each.")
]
Vlm = Annotated[
    str | None,
    typer.Option(
        help="Vision-language model for captions, counts and a quality flag: address of an OpenAI-compatible server, "
        "or folder or name of a model that transformers runs here."
    ),
]
VlmModel = Annotated[str, typer.Option(help="Name of the model on the server.")]
FrameSize = Annotated[str, typer.Option(help="Width and height of the archives' clips.")]
Autoencoder = Annotated[
    Path | None, typer.Option(help="Folder with the autoencoder; default: the shipped one.")
]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Processes that judge clips.")]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Judge clips on a Ray cluster: its address, or local for --workers processes on this machine."
    ),
]


def annotate(
    sources: Sources,
    output: Output,
    preset: PresetOption = Preset.MEASURED,
    keep_missing: KeepMissing = False,
    frames: Frames = 961,
    least_frames: LeastFrames = 161,
    stride: Stride = 480,
    lens: Lens = None,
    speed: Speed = 1.0,
    cuts: CutsOption = Cuts.ADAPTIVE,
    poses: Poses = PoseMode.ESTIMATED,
    estimator: EstimatorOption = Estimator.PYCOLMAP,
    vipe: VipeProgram = "vipe",
    metres_per_unit: MetresPerUnit = 1.0,
    depth: Depth = DepthMode.NONE,
    captions: Captions = None,
    vlm: Vlm = None,
    vlm_model: VlmModel = "default",
    dover: DoverFolder = None,
    dover_python: DoverPython = None,
    frame_size: FrameSize = "320x192",
    autoencoder: Autoencoder = None,
    workers: Workers = 1,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Cut videos into clips, recover their cameras, filter them, and write a training set; goes on where it stopped."""
    with extra_needed("annotating", "annotate"):
        from training.data.annotation import annotate as annotation
        from training.data.annotation.captions import SidecarCaptions, TableCaptions
        from training.data.annotation.report_page import write_report
        from training.data.latents import load_autoencoder
    from engine.machine import assets

    cameras = _cameras(poses, lens, depth, speed, metres_per_unit)
    if estimator is not Estimator.PYCOLMAP:
        cameras = replace(cameras, estimator=_estimator(estimator, vipe, depth))
    settings = _settings(preset, keep_missing, frames, least_frames, stride, cameras)
    settings = replace(settings, cuts=_checked_cuts(cuts), quality=_quality(dover, dover_python))
    if vlm is not None:
        settings = replace(settings, describer=_describer(vlm, vlm_model))
    words = SidecarCaptions() if captions is None else TableCaptions.read(captions)
    plan = annotation.AnnotationPlan(sources, output, settings, pixels(frame_size), words)
    weights = load_autoencoder(autoencoder or assets.checkpoints_dir())
    run = _runner(ray, workers)
    with stages() as stage:
        done = annotation.annotate(plan, weights, stage, run)
    page = write_report(plan, done)
    _report(plan, done, page, as_json)


def _describer(vlm: str, model: str) -> Describer:
    """A server where the name is an address, else a model of this process, which is opened at once."""
    if "://" not in vlm:
        from training.data.annotation.local_vision_language import LocalVisionLanguage, open_model

        open_model(vlm)
        return LocalVisionLanguage(vlm)
    from training.data.annotation.vision_language import VisionLanguageServer, check_address

    return VisionLanguageServer(check_address(vlm), model, os.environ.get(KEY_VARIABLE, ""))


def _estimator(estimator: Estimator, vipe: str, depth: DepthMode) -> PoseEstimator:
    from evaluation.poses.pi3x import Pi3X
    from evaluation.poses.vipe import Vipe

    if estimator is Estimator.PI3X:
        return Pi3X()
    return Vipe(vipe, keyframe_depth=None if depth is DepthMode.NONE else Pi3X())


def _checked_cuts(cuts: Cuts) -> CutDetector:
    from training.data.annotation.cut_detectors import cut_finder

    detector: CutDetector = "transnetv2" if cuts is Cuts.TRANSNETV2 else "adaptive"
    cut_finder(detector)
    return detector


def _quality(folder: Path | None, python: Path | None) -> QualityScorer | None:
    if folder is None:
        return None
    from training.data.annotation.dover import Dover

    if not (folder / "dover.yml").is_file():
        raise ValueError(f"{folder} is no clone of DOVER, since it has no dover.yml; name its folder")
    return Dover(folder, python or folder / ".venv" / "bin" / "python")


def _runner(ray: str | None, workers: int) -> Runner:
    from training.data.annotation.runners import in_processes, in_this_process

    if ray is not None:
        with extra_needed("a Ray cluster", "ray"):
            from training.data.annotation.ray_runner import in_ray
        return in_ray(ray, workers)
    return in_this_process if workers == 1 else in_processes(workers)


def _settings(
    preset: Preset,
    keep_missing: bool,
    frames: int,
    least_frames: int,
    stride: int,
    cameras: CameraSettings,
) -> ClipSettings:
    from training.data.annotation.clip_job import ClipSettings
    from training.data.annotation.filters import PRESETS, Judge
    from training.data.annotation.shots import ClipLengths

    if least_frames > frames:
        raise ValueError(f"--least-frames {least_frames} is more than --frames {frames}; give a smaller one")
    return ClipSettings(
        lengths=ClipLengths(least_frames=least_frames, most_frames=frames, stride=stride),
        judge=Judge(PRESETS[preset.value], missing_is_fine=keep_missing),
        cameras=cameras,
    )


def _cameras(
    poses: PoseMode, lens: str | None, depth: DepthMode, speed: float, metres_per_unit: float
) -> CameraSettings:
    from training.data.annotation.cameras import CameraSettings
    from training.data.annotation.given import GivenDepth
    from training.data.annotation.moge import MoGeDepth

    source = {DepthMode.NONE: None, DepthMode.GIVEN: GivenDepth(), DepthMode.MOGE: MoGeDepth()}[depth]
    return CameraSettings(
        given=poses is PoseMode.GIVEN,
        lens=None if lens is None else _lens(lens),
        depth=source,
        metres_per_s=speed,
        metres_per_unit=metres_per_unit,
    )


def _lens(text: str) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--lens takes fx,fy,cx,cy in pixels, got {text!r}") from None
    if min(fx, fy) <= 0:
        raise ValueError(f"--lens takes focal lengths above 0, got {text!r}")
    return fx, fy, cx, cy


def _report(plan: AnnotationPlan, done: Annotation, page: Path, as_json: bool) -> None:
    from training.data.annotation.filters import count_reasons
    from training.data.annotation.results import camera_path

    for item in done.left_out[:NAMED_LEFT_OUT]:
        say(f"left out: {item.reason}")
    if (hidden := len(done.left_out) - NAMED_LEFT_OUT) > 0:
        say(f"left out: {hidden} more")
    kept = [clip for clip in done.clips if clip.kept]
    reasons = count_reasons(clip.reasons for clip in done.clips)
    summary: dict[str, Any] = {
        "kept": len(kept),
        "rejected": len(done.clips) - len(kept),
        "left_out": len(done.left_out),
        "judged_before": done.done_before,
        "report": str(page),
    }
    if as_json:
        clips = [
            {
                "source": clip.source,
                "start_s": clip.start_s,
                "end_s": clip.end_s,
                "kept": clip.kept,
                "reasons": clip.reasons,
                "camera": str(camera_path(plan.folder, clip.key)) if clip.kept else None,
            }
            for clip in done.clips
        ]
        named = [{"name": item.name, "reason": item.reason} for item in done.left_out]
        print_json({"clips": clips} | summary | {"left_out": named, "rejections": reasons})
        return
    print_table(summary | {"rejections": ", ".join(f"{name} {count}" for name, count in reasons.items())})
