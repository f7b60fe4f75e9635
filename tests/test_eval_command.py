"""`flaneur eval` on bundles that play in a moment: tables, sheets, unseen places, sentences."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli.app import run
from engine.files.world import read_world, write_world
from engine.machine import assets
from evaluation.baselines import BLENDED, CEILING, MODEL, ORACLE, PREVIOUS, REMEMBERED, REPEATED, REPROJECTED
from evaluation.evaluate import EvaluationPlan, evaluate, measure_rollout
from evaluation.image_metrics import open_measures
from evaluation.rollouts import Rollout, num_chunks, place_of, roll_out, stream
from evaluation.scores import EvaluationReport, Horizon, RolloutScores, as_markdown
from evaluation.worlds import depth_error, first_latent, reconstruct, unseen_place, unseen_worlds
from holodeck import get_place
from holodeck.raycast import FAR_M
from holodeck.variants import mirrored, recoloured
from model.vae import guided
from model.vae.guided import (
    GuidedAutoencoder,
    GuidedAutoencoderConfig,
    load_autoencoder_weights,
    sizes_of,
)
from tests.models import small_autoencoder

AUTOENCODER = small_autoencoder(16, 2)
shipped = pytest.mark.skipif(
    not assets.checkpoints_dir().is_dir(), reason="this checkout has no assets/checkpoints"
)


def last_json(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


@shipped
def test_eval_measures_a_world_beside_baselines_and_ceiling(tmp_path, capsys):
    arguments = [
        "--world",
        "town",
        "--seconds",
        "0.5",
        "--metrics",
        "psnr,gmsd",
        "-o",
        str(tmp_path),
        "--json",
    ]
    assert run(["eval", "pocket", *arguments]) == 0
    report = last_json(capsys.readouterr().out)
    (rollout,) = report["rollouts"]
    assert (rollout["world"], rollout["track"], rollout["seconds"]) == ("town", "walks", 0.5)
    assert [horizon["seconds"] for horizon in rollout["horizons"]] == [0.25, 0.5]
    scores = rollout["horizons"][0]["scores"]
    assert set(scores) == {MODEL, REMEMBERED, REPROJECTED, PREVIOUS, REPEATED, CEILING}
    assert all(np.isfinite(list(video.values())).all() for video in scores.values())
    # One chunk after the start the previous frame is the first, and an autoencoder is near the truth.
    assert scores[PREVIOUS] == scores[REPEATED]
    assert scores[CEILING]["psnr"] > max(30.0, scores[REPEATED]["psnr"])
    assert json.loads((tmp_path / "scores.json").read_text())["rollouts"] == report["rollouts"]
    assert "| 0.5 s |" in (tmp_path / "scores.md").read_text()
    assert (tmp_path / "town.png").stat().st_size > 5000


@shipped
def test_eval_measures_unseen_places(tmp_path, capsys):
    pytest.importorskip("skimage")
    arguments = [
        "--unseen",
        "--tracks",
        "simple",
        "--seconds",
        "0.25",
        "--metrics",
        "psnr",
        "-o",
        str(tmp_path),
    ]
    assert run(["eval", "--world", "night", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "on unseen places: night-mirrored-hue140" in shown
    assert ORACLE in shown
    assert BLENDED in shown
    assert "Depth of the first pictures, median relative error: " in shown
    assert run(["eval", "--world", "night", *arguments, "--true-depth", "--overwrite"]) == 0
    shown = capsys.readouterr().out
    assert "on unseen, exactly measured places" in shown
    assert "Depth of the first pictures, median relative error: 0.0 % in the mean" in shown
    assert (tmp_path / "night-mirrored-hue140.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--world", "nowhere"], "there is no world called 'nowhere'"),
        (["--true-depth"], "--true-depth goes with --unseen"),
        (["--metrics", "psnr,vmaf"], "there is no metric vmaf; choose from psnr"),
        (["no-such-bundle"], "there is no bundle called"),
        (["--worlds", "/nonexistent"], "was made for the weights of pocket"),
        (["--autoencoder", "/nonexistent"], "autoencoder.safetensors cannot be used ("),
        (["--seconds", "0"], "seconds"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(arguments, sentence, capsys):
    assert run(["eval", *arguments]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("flaneur:")]) == 1
    assert "Traceback" not in said.err


SMALL = small_autoencoder(4, 4)


@pytest.fixture
def small(make_bundle, toy_world, tmp_path) -> Path:
    """Folders of a toy bundle and a random autoencoder for it, as a training leaves them: bundles, worlds, checkpoints."""
    torch.manual_seed(0)
    autoencoder, folder = GuidedAutoencoder(SMALL).eval(), tmp_path / "small"
    for name in ("worlds", "checkpoints"):
        (folder / name).mkdir(parents=True)
    made = make_bundle(spatial=SMALL.spatial_stride)
    shutil.copytree(made.path, folder / "bundles" / "small")
    save_file(autoencoder.state_dict(), folder / "checkpoints" / "autoencoder.safetensors")
    town = as_place(toy_world)
    frame = place_of(town).render(town.c2w, town.intrinsics, made.spec.frame_width, made.spec.frame_height)
    world = replace(town, first_frame=frame, first_latent=first_latent(autoencoder, frame))
    write_world(folder / "worlds" / "town.world", world)
    return folder


def evaluated(small: Path, output: Path, *options: str) -> list[str]:
    bundle = str(small / "bundles" / "small")
    return [
        "eval",
        bundle,
        "--seconds",
        "0.25",
        "--metrics",
        "psnr",
        "-o",
        str(output),
        "--overwrite",
        *options,
    ]


def test_an_autoencoder_of_any_size_gives_its_ceiling(small, tmp_path, capsys):
    assert run([*evaluated(small, tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert "ceiling" not in said.err
    assert CEILING in last_json(said.out)["rollouts"][0]["horizons"][0]["scores"]
    assert run(evaluated(small, tmp_path, "--unseen")) == 0
    assert "town-mirrored" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no weights", "autoencoder.safetensors cannot be used ("),
        (None, "autoencoder.safetensors cannot be used ("),
        (
            small_autoencoder(8, 4),
            "makes latents of 8 channels for 4 frames and 32 pixels",
        ),
    ],
)
def test_an_autoencoder_that_is_no_use_costs_the_ceiling_and_no_more(
    small, tmp_path, capsys, content, reason
):
    folder = small / "checkpoints"
    (folder / "autoencoder.safetensors").unlink()
    if isinstance(content, GuidedAutoencoderConfig):
        save_file(GuidedAutoencoder(content).state_dict(), folder / "autoencoder.safetensors")
    elif content is not None:
        (folder / "autoencoder.safetensors").write_bytes(content)
    asked = evaluated(small, tmp_path)
    assert run([*asked, "--json"]) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if "ceiling" in line]
    assert line.startswith("the autoencoder's ceiling is not measured, for the autoencoder ")
    assert reason in line
    assert CEILING not in last_json(said.out)["rollouts"][0]["horizons"][0]["scores"]
    for options in (["--autoencoder", str(folder)], ["--unseen"]):
        assert run([*asked, *options]) == 2
        assert reason in capsys.readouterr().err


def test_the_sizes_of_an_autoencoder_are_told_by_its_weights():
    for sizes in (
        AUTOENCODER,
        GuidedAutoencoderConfig(),
        replace(SMALL, frame_width=12, num_blocks=(0, 3, 2)),
    ):
        assert sizes_of(GuidedAutoencoder(sizes).state_dict()) == sizes


@pytest.mark.parametrize(("name", "shape"), [("latents_mean", ()), ("encoder.conv_in.weight", (8,))])
def test_tensors_of_odd_shapes_are_no_autoencoder(tmp_path, name, shape):
    path = tmp_path / "autoencoder.safetensors"
    save_file(GuidedAutoencoder(SMALL).state_dict() | {name: torch.zeros(shape)}, path)
    with pytest.raises(ValueError, match=r"the autoencoder .*autoencoder\.safetensors cannot be used \(."):
        load_autoencoder_weights(path)


def test_an_autoencoder_is_refused_for_a_reason_without_words(tmp_path, monkeypatch):
    def fail(path):
        raise KeyError

    monkeypatch.setattr(guided, "read_safetensors", fail)
    with pytest.raises(ValueError, match=r"cannot be used \(KeyError\(\)\)"):
        load_autoencoder_weights(tmp_path)


@shipped
def test_an_interrupted_evaluation_leaves_whole_files_of_what_was_done(tmp_path, monkeypatch, capsys):
    made = []

    def stop_at_the_second(*arguments):
        if made:
            raise KeyboardInterrupt
        made.append(measure_rollout(*arguments))
        return made[0]

    monkeypatch.setattr("evaluation.evaluate.measure_rollout", stop_at_the_second)
    arguments = [
        "--world",
        "town",
        "--walks",
        "2",
        "--seconds",
        "0.25",
        "--metrics",
        "psnr",
        "-o",
        str(tmp_path),
    ]
    assert run(["eval", *arguments]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "scores.json").read_text())["rollouts"]) == 1
    assert "1 rollouts of 2 planned" in (tmp_path / "scores.md").read_text()
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}


def test_progress_ends_where_it_was_announced_to(toy_bundle, toy_world, tmp_path):
    world = as_place(toy_world)
    plan = EvaluationPlan("still", standing, ((world, place_of(world)),), 2, 2.0, ("psnr", "camera"))
    seen: list[int] = []
    report = evaluate(toy_bundle, plan, tmp_path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == plan.num_steps(toy_bundle.spec.fps, toy_bundle.spec.frames_per_chunk)
    assert [r.seed for r in report.rollouts] == [90_000, 90_001]
    assert CEILING not in report.rollouts[0].settled


def test_what_is_measured_is_what_is_played(toy_bundle, toy_world):
    from engine.session.headless import run_headless
    from engine.session.opening import open_session
    from engine.types import CameraTrack

    world = as_place(toy_world)
    place = place_of(world)
    poses = np.tile(world.c2w, (13, 1, 1))
    poses[:, 0, 3] += np.linspace(0, 1, 13)
    session = open_session(world, toy_bundle)
    told: list[int] = []
    rollout = roll_out(session, place, poses, 3, progress=told.append)
    played: list[np.ndarray] = [world.first_frame[None]]
    track = CameraTrack(poses, np.repeat(world.intrinsics[None], 13, 0))
    run_headless(session, track, 3, 3, lambda chunk: played.append(chunk.frames))
    session.close()
    np.testing.assert_array_equal(rollout.generated, np.concatenate(played))
    np.testing.assert_array_equal(
        rollout.truth[5], place.render(poses[5], world.intrinsics, *world.frame_size)
    )
    assert told == [1, 2, 3]
    assert rollout.num_frames == 13


def test_a_duration_takes_just_the_chunks_it_needs():
    assert num_chunks(60.0, 16.0, 4) == 240
    assert num_chunks(0.3, 16.0, 4) == 2
    assert num_chunks(0.25, 16.0, 4) == 1
    assert num_chunks(0.01, 16.0, 4) == 1


def test_piecewise_reconstruction_is_that_of_the_whole_clip(toy_world, monkeypatch):
    torch.manual_seed(0)
    autoencoder = GuidedAutoencoder(AUTOENCODER).eval()
    rng = np.random.default_rng(0)
    frames = np.repeat(np.repeat(rng.integers(0, 255, (21, 4, 4, 3)), 8, 1), 8, 2).astype(np.uint8)
    with torch.no_grad():
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0
        latents = autoencoder.encode(video)
        whole = ((autoencoder.decode(latents)[0].permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255)
    monkeypatch.setattr("evaluation.worlds.LATENTS_PER_CALL", 3)
    world = replace(toy_world, first_frame=frames[0])
    ours = reconstruct(autoencoder, frames, np.tile(np.eye(4), (21, 1, 1)), world)
    assert ours.shape == frames.shape
    # Rounding may fall either way at a half.
    assert np.abs(ours.astype(int) - whole.numpy().astype(int)).max() <= 1
    np.testing.assert_allclose(first_latent(autoencoder, frames[0]), latents[0, :, 0], atol=1e-5)


def test_scores_without_an_autoencoder_make_a_table():
    def scores(model: float) -> dict:
        return {MODEL: {"psnr": model}, REPEATED: {"psnr": 12.0}}

    rollouts = tuple(
        RolloutScores(
            "town", "walks", n, 1.0, (Horizon(1.0, scores(20.0 + n)),), scores(21.0), None, None, None
        )
        for n in range(2)
    )
    report = EvaluationReport(
        "toy", "ab" * 32, "walks", 1.0, "learned", ("psnr",), ("LPIPS is not here",), rollouts, 2
    )
    lines = as_markdown(report).splitlines()
    assert lines[:2] == [
        "toy (abababab) on learned places: town; 2 rollouts of 1 s along walks tracks.",
        "Not measured: LPIPS is not here.",
    ]
    assert "| 1 s | 20.5 | 12.0 |" in lines
    assert "| mean from 1 s on | 21.0 | 12.0 |" in lines
    assert "| town | 21.0 | 12.0 |" in lines


def test_a_model_that_shows_the_truth_scores_like_the_truth():
    place = get_place("garden")
    intrinsics = np.array([26.0, 26.0, 20.0, 12.0], np.float32)
    poses = np.tile(place.spawn, (33, 1, 1))
    poses[:, 0, 3] += np.linspace(0, 0.5, 33)
    truth = np.stack([place.render(pose, intrinsics, 40, 24) for pose in poses])
    measures, _ = open_measures(["psnr", "gmsd"])
    rollout = Rollout("garden", 16.0, 4, poses, intrinsics, truth, truth)
    scores = measure_rollout(rollout, place, "still", 0, measures, ("revisit", "drift"))
    assert scores.settled[MODEL]["gmsd"] == 0.0
    assert scores.settled[MODEL]["psnr"] > 70 > scores.settled[REPEATED]["psnr"]
    assert scores.drift is None, "two seconds have no two ends"
    assert scores.camera is None


def test_mirroring_a_place_mirrors_its_picture_and_keeps_its_walls():
    place = get_place("town")
    twin = mirrored(place)
    intrinsics = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
    original = place.render(place.spawn, intrinsics, 160, 96)
    other = twin.render(twin.spawn, intrinsics, 160, 96)
    # Sky, hills and light are not exact mirrors: hills keep their outline, and every face is tilted a little to one side.
    assert np.abs(original[60:, ::-1].astype(int) - other[60:]).mean() < 8
    assert np.abs(original[60:].astype(int) - other[60:]).mean() > 10
    step = np.array([0.4, 0.0, 0.3])
    here = place.spawn[:3, 3]
    flip = np.array([-1.0, 1.0, 1.0])
    for _ in range(40):
        there = place.slide(here, step)
        np.testing.assert_allclose(twin.slide(here * flip, step * flip), there * flip, atol=1e-6)
        here = there


def test_unseen_places_have_other_colours_and_no_name_that_is_known():
    place = get_place("colonnade")
    twin = unseen_place(place)
    intrinsics = np.array([104.0, 104.0, 80.0, 48.0], np.float32)
    with pytest.raises(ValueError, match="no place is called"):
        get_place(twin.name)
    red, _, blue = twin.render(twin.spawn, intrinsics, 160, 96).reshape(-1, 3).mean(0)
    true_red, _, true_blue = place.render(place.spawn, intrinsics, 160, 96).reshape(-1, 3).mean(0)
    assert abs((red - blue) - (true_red - true_blue)) > 15
    whole_turn = recoloured(place, 360.0)
    same = whole_turn.render(place.spawn, intrinsics, 160, 96).astype(int)
    assert np.abs(same - place.render(place.spawn, intrinsics, 160, 96)).max() <= 2


def test_a_place_of_known_depth_begins_with_it(small):
    town = read_world(small / "worlds" / "town.world")
    autoencoder = guided.load_autoencoder_weights(small / "checkpoints" / "autoencoder.safetensors")
    ((world, place),) = unseen_worlds([town], [town], autoencoder, true_depth=True)
    ((told, _),) = unseen_worlds([town], [town], autoencoder)
    depth = place.depth(place.spawn, world.intrinsics, *world.frame_size)
    exact = np.where(depth < FAR_M, 1 / depth, 0.0)
    off = [np.median(np.abs(begun.keyframes[0].inverse_depth - exact)) for begun in (world, told)]
    assert off[0] < 0.2 * off[1]
    assert depth_error(world, place) < 1e-3 < depth_error(told, place)


def as_place(world):
    """The toy world, begun where a holodeck place begins."""
    place = get_place("town")
    return replace(world, info=world.info.model_copy(update={"place": "town"}), c2w=place.spawn)


def standing(place, num_frames, fps, seed):
    return np.tile(place.spawn, (num_frames, 1, 1))


def test_a_stream_follows_its_track_chunk_by_chunk(toy_bundle, toy_world):
    from engine.session.opening import open_session

    session = open_session(as_place(toy_world), toy_bundle)
    poses = np.tile(session.world.c2w, (9, 1, 1))
    chunks = list(stream(session, poses, 0))
    session.close()
    assert [len(chunk) for chunk in chunks] == [4, 4]


def test_a_plan_refuses_what_cannot_be_rolled_out(toy_world):
    pair = (as_place(toy_world), get_place("town"))
    with pytest.raises(ValueError, match="no world to measure"):
        EvaluationPlan("still", standing, ())
    with pytest.raises(ValueError, match="up to 3600"):
        EvaluationPlan("still", standing, (pair,), seconds=float("nan"))
    with pytest.raises(ValueError, match="has no holodeck place"):
        place_of(toy_world)


def test_eval_writes_nothing_where_its_folder_cannot_be_made(tmp_path: Path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run(["eval", "--world", "town", "--seconds", "0.25", "-o", str(blocked / "eval")]) == 2
    assert "Not a directory" in capsys.readouterr().err
