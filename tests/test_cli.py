"""The command line, end to end and in one process: walks without a window, files, JSON and errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer
from typer.main import get_command

import holodeck
from cli.app import COMMANDS, run
from client.setup.folders import OWN_WORLDS, pictures_dir
from engine.camera.actions import integrate_actions, parse_actions
from engine.camera.tracks import rebase
from engine.files.bundle import Bundle
from engine.files.recording import read_recording
from engine.files.recording_writer import RecordingStopped, RecordingWriter
from engine.files.world import World, write_world
from engine.machine import assets
from engine.session.model_session import ModelSession

ROOT = Path(__file__).resolve().parent.parent
WALK_FIELDS = {
    *("world", "engine", "backend", "seed", "num_chunks", "num_frames", "fps", "first_frame_s"),
    *("realtime_factor", "chunk_ms", "latents_sha256", "frames_path", "video_path"),
}
Flaneur = Callable[..., tuple[int, str, str]]


@pytest.fixture
def flaneur(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_world: World
) -> Flaneur:
    """Run the command line in a folder that has two worlds; returns the exit status, stdout and stderr."""
    worlds = tmp_path / "worlds"
    worlds.mkdir()
    for name, place in (("blocks", None), ("place", holodeck.place_names()[0])):
        info = toy_world.info.model_copy(update={"name": name, "place": place})
        write_world(worlds / f"{name}.world", replace(toy_world, info=info))
    monkeypatch.setattr(assets, "worlds_dir", lambda: worlds)
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def flaneur(*arguments: object) -> tuple[int, str, str]:
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return flaneur


@pytest.fixture
def toy(toy_bundle: Bundle) -> list[str]:
    """The arguments of a headless walk through the toy model."""
    return ["play", "blocks", "--engine", str(toy_bundle.path), "--headless", "--json"]


def result_of(answer: tuple[int, str, str]) -> dict[str, Any]:
    status, out, err = answer
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_a_headless_walk_draws_what_its_poses_see(flaneur: Flaneur, tmp_path: Path, toy_world: World):
    arguments = ("play", "place", "--backend", "holodeck", "--headless", "--json")
    files = ("--frames", "walk.npz", "--video", "walk.mp4")
    result = result_of(flaneur(*arguments, "--actions", "w-6,d-4", "--seed", 3, *files))
    assert result.keys() >= WALK_FIELDS
    assert (result["backend"], result["seed"], result["num_chunks"], result["num_frames"]) == (
        "holodeck",
        3,
        3,
        13,
    )
    assert len(result["latents_sha256"]) == 3
    with np.load("walk.npz") as walk:
        frames, c2w = walk["frames"], walk["c2w"]
    keys = parse_actions("w-6,d-4")
    expected = rebase(integrate_actions(keys, 16.0), toy_world.c2w)
    np.testing.assert_allclose(c2w[:11], expected, atol=1e-9)
    np.testing.assert_array_equal(c2w[11:], np.tile(c2w[10], (2, 1, 1)))
    np.testing.assert_array_equal(frames[0], toy_world.first_frame)
    place = holodeck.get_place(holodeck.place_names()[0])
    height, width = frames.shape[1:3]
    np.testing.assert_array_equal(frames[7], place.render(c2w[7], toy_world.intrinsics, width, height))
    with av.open("walk.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.mp4", "walk.npz", "worlds"]


@pytest.mark.parametrize(
    ("key_map", "moves"),
    [("current", {"j": "left", "l": "right"}), ("v1", {"a": "left", "d": "right"})],
)
def test_the_help_of_actions_says_what_keys_do(flaneur: Flaneur, key_map: str, moves: dict[str, str]):
    said = " ".join(flaneur("play", "--help")[1].replace("\u2502", " ").split())
    assert "/".join(moves) + " step aside" in said
    for key, side in moves.items():
        c2w = integrate_actions(parse_actions(f"{key}-16"), 16.0, key_map)
        assert (c2w[-1, 0, 3] > 0) == (side == "right")
        np.testing.assert_array_equal(c2w[:, :3, :3], np.broadcast_to(np.eye(3), (17, 3, 3)))


def test_poses_walked_again_give_the_same_frames(flaneur: Flaneur, toy: list[str]):
    first = result_of(flaneur(*toy, "--actions", "wd-12", "--frames", "a.npz"))
    second = result_of(flaneur(*toy, "--poses", "a.npz", "--frames", "b.npz"))
    assert first["latents_sha256"] == second["latents_sha256"]
    other = result_of(flaneur(*toy, "--poses", "a.npz", "--seed", 1))
    assert other["latents_sha256"][0] != first["latents_sha256"][0]


def test_chunks_alone_stand_still_and_cut_or_lengthen_a_track(flaneur: Flaneur, toy: list[str]):
    assert result_of(flaneur(*toy, "--chunks", 3))["num_chunks"] == 3
    assert result_of(flaneur(*toy, "--chunks", 2, "--actions", "w-40"))["num_frames"] == 9
    longer = result_of(flaneur(*toy, "--chunks", 4, "--actions", "w-4", "--frames", "walk.npz"))
    assert longer["num_frames"] == 17
    with np.load("walk.npz") as walk:
        np.testing.assert_array_equal(walk["c2w"][5:], np.tile(walk["c2w"][4], (12, 1, 1)))


def test_a_recording_verifies_and_replays_the_same_frames(
    flaneur: Flaneur, toy: list[str], toy_bundle: Bundle
):
    made = result_of(flaneur(*toy, "--actions", "w-8,da-8", "--record", "walk.flaneur", "--frames", "a.npz"))
    assert made["record_path"] == "walk.flaneur"
    engine = ("--engine", toy_bundle.path)
    verified = result_of(flaneur("replay", "walk.flaneur", "--verify", "--json", *engine))
    assert verified["identical"] is True
    assert verified.keys() >= WALK_FIELDS
    assert verified["latents_sha256"] == made["latents_sha256"]
    status, out, _ = flaneur("replay", "walk.flaneur", "--verify", *engine)
    assert (status, out) == (0, "identical: all 4 chunks came out bit for bit\n")
    result_of(flaneur("replay", "walk.flaneur", "--headless", "--frames", "b.npz", "--json", *engine))
    with np.load("a.npz") as first, np.load("b.npz") as second:
        np.testing.assert_array_equal(first["frames"], second["frames"])
        np.testing.assert_array_equal(first["c2w"], second["c2w"])


def test_recorded_latents_are_decoded_without_the_generator(
    flaneur: Flaneur, toy: list[str], toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    made = result_of(flaneur(*toy, "--actions", "w-8,da-8", "--record", "walk.flaneur", "--frames", "a.npz"))
    monkeypatch.setattr(ModelSession, "denoise", lambda *_: pytest.fail("something was generated"))
    arguments = ("replay", "walk.flaneur", "--from-latents", "--engine", toy_bundle.path, "--json")
    decoded = result_of(flaneur(*arguments, "--frames", "b.npz"))
    assert decoded.keys() >= WALK_FIELDS
    assert decoded["latents_sha256"] == made["latents_sha256"]
    with np.load("a.npz") as first, np.load("b.npz") as second:
        np.testing.assert_array_equal(first["frames"], second["frames"])


def test_a_replay_names_the_first_chunk_that_differs(flaneur: Flaneur, toy: list[str], toy_bundle: Bundle):
    result_of(flaneur(*toy, "--chunks", 4, "--record", "walk.flaneur"))
    recording = read_recording("walk.flaneur", with_latents=True)
    with RecordingWriter("other.flaneur", recording.header) as writer:
        for chunk in recording.chunks:
            sha256 = chunk.latents_sha256 if chunk.index != 2 else "0" * 64
            writer.append(chunk.track, sha256)
    engine = ("--engine", toy_bundle.path)
    status, out, _ = flaneur("replay", "other.flaneur", "--verify", "--json", *engine)
    result = json.loads(out)
    assert (status, result["identical"], result["first_different"]) == (1, False, 2)
    status, out, _ = flaneur("replay", "other.flaneur", "--verify", *engine)
    assert status == 1
    assert out.startswith("chunk 2 of 4 is the first that differs")


def test_a_cut_recording_is_recovered_and_a_damaged_one_refused(
    flaneur: Flaneur, toy: list[str], toy_bundle: Bundle
):
    result_of(flaneur(*toy, "--chunks", 4, "--record", "walk.flaneur"))
    content = Path("walk.flaneur").read_bytes()
    Path("cut.flaneur").write_bytes(content[:-200])
    engine = ("--engine", toy_bundle.path)
    status, _, err = flaneur("replay", "cut.flaneur", "--verify", *engine)
    assert status == 0
    assert "3 whole chunks were recovered" in err
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 4
    Path("damaged.flaneur").write_bytes(damaged)
    assert_user_error(flaneur("replay", "damaged.flaneur", "--verify", *engine), "is damaged at chunk")


@pytest.mark.parametrize("method", ["append", "close"])
def test_a_recording_that_stops_does_not_stop_the_walk(
    flaneur: Flaneur, toy: list[str], monkeypatch: pytest.MonkeyPatch, method: str
):
    def full(self: RecordingWriter, *_: object, **__: object) -> None:
        if not self.stopped:
            self._end_file(keep=True)
            raise RecordingStopped("recording to walk.flaneur stopped: No space left on device; free some")

    monkeypatch.setattr(RecordingWriter, method, full)
    status, out, err = flaneur(*toy, "--chunks", 3, "--record", "walk.flaneur", "--frames", "walk.npz")
    assert status == 2
    assert Path("walk.npz").is_file()
    assert err.count("No space left") == 1
    assert json.loads(out)["num_chunks"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["play", "nowhere", "--headless", "--chunks", "1"],
            "no world called 'nowhere'; the worlds here: blocks, place",
        ),
        (["play", "place", "--headless"], "--actions or --poses"),
        (["play", "place", "--chunks", "4"], "--chunks is for a walk without a window; add --headless"),
        (["play", "place", "--headless", "--actions", "w-4", "--poses", "a.npy"], "leave one of them out"),
        (["play", "place", "--headless", "--actions", "q-4"], "unknown key 'q'"),
        (["play", "place", "--headless", "--actions", "w-4", "--key-map", "v9"], "no key map 'v9'"),
        (["play", "place", "--headless", "--poses", "nothing.npy"], "there is no track"),
        (["play", "place", "--headless", "--chunks", "0"], "'--chunks'"),
        (["play", "place", "--backend", "magic"], "magic"),
        (["play", "place", "--engine", "nope", "--headless", "--chunks", "1"], "no bundle called 'nope'"),
        (
            ["play", "place", "--engine", "x", "--backend", "holodeck", "--headless", "--chunks", "1"],
            "no --engine",
        ),
        (
            ["play", "blocks", "--backend", "holodeck", "--headless", "--chunks", "1"],
            "not made from a holodeck place",
        ),
        (["replay", "nothing.flaneur", "--verify"], "cannot read the recording nothing.flaneur"),
        (["replay", "nothing.flaneur", "--verify", "--seed", "1"], "leave --seed out"),
        (["replay", "nothing.flaneur", "--seed", "1"], "leave --seed out"),
        (["replay", "worlds/place.world", "--json"], "is not text"),
        (["track", "convert", "w-4", "walk.mov"], "use a file ending in"),
        (["track", "convert", "w-4"], "see `flaneur track convert --help`"),
        (["world", "show", "worlds/none.world"], "no world file"),
        (["export", "show", "nope"], "no bundle called 'nope'"),
        (["export", "engine"], "no bundle called 'pocket-fp32'"),
        (["export", "onnx", "--frame-size", "640"], "takes a width and a height such as 640x352"),
        (["export", "onnx", "--frame-size", "0x352"], "takes a width and a height such as 640x352"),
        (["export", "engine", "pocket", "-o", "out", "--target", "gpu"], "compute capability such as sm120"),
        (["export", "engine", "pocket", "-o", "out", "--precision", "fp16"], "take nvfp4, fp8, int8 or bf16"),
        (["export", "engine", "pocket", "-o", "out", "--precision", "fp8", "--hadamard"], "leave it out"),
        (["stroll"], "No such command 'stroll'"),
        (["play", "--loudly"], "No such option: --loudly"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_status_2(
    flaneur: Flaneur, arguments: list[str], words: str
):
    assert_user_error(flaneur(*arguments), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--engine", "nope"], "no bundle called 'nope'"), (["--backend", "tensorrt"], "--backend onnxruntime")],
)
def test_no_window_opens_on_what_cannot_be_played(
    flaneur: Flaneur, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert_user_error(flaneur("play", "place", *options), words)


def assert_user_error(answer: tuple[int, str, str], words: str) -> None:
    status, out, err = answer
    assert status == 2
    assert out == ""
    assert words in err
    assert err.startswith("flaneur: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "option", [["--video", "walk.avi"], ["--frames", "walk.npy"], ["--record", "walk.mp4"]]
)
def test_files_that_cannot_be_written_are_refused_before_the_walk(flaneur: Flaneur, option: list[str]):
    before = sorted(Path().iterdir())
    arguments = ("play", "place", "--backend", "holodeck", "--headless", "--chunks", 1)
    assert_user_error(flaneur(*arguments, *option), "walk.")
    assert sorted(Path().iterdir()) == before


def test_ctrl_c_exits_130_and_leaves_nothing_half_written(
    flaneur: Flaneur, toy: list[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.session.walk_files.WalkFiles.write", interrupt)
    before = sorted(Path().iterdir())
    files = ("--video", "walk.mp4", "--frames", "walk.npz", "--record", "walk.flaneur")
    status, _, err = flaneur(*toy, "--chunks", 3, *files)
    assert status == 130
    assert err == "flaneur: interrupted; nothing half-written was left behind\n"
    assert sorted(Path().iterdir()) == before


def test_worlds_are_listed_and_shown(flaneur: Flaneur, tmp_path: Path):
    listed = result_of(flaneur("world", "list", "--json"))
    paths = {name: str(tmp_path / "worlds" / f"{name}.world") for name in ("blocks", "place")}
    assert listed == {"worlds": [{"name": name, "title": "A toy", "path": paths[name]} for name in paths]}
    shown = result_of(flaneur("world", "show", "place", "--json"))
    assert shown["place"] == holodeck.place_names()[0]
    assert flaneur("world", "list")[1] == "blocks  A toy\nplace   A toy\n"


def test_a_bundle_is_shown_and_measured(flaneur: Flaneur, toy_bundle: Bundle):
    assert result_of(flaneur("export", "show", toy_bundle.path, "--json"))["name"] == "toy"
    arguments = ("bench", "blocks", "--engine", toy_bundle.path, "--chunks", 4)
    measured = result_of(flaneur(*arguments, "--json"))
    assert measured["stages"].keys() >= {"denoise_ms", "decode_ms"}
    status, out, _ = flaneur(*arguments)
    assert status == 0
    assert "realtime factor" in out


def test_the_doctor_answers_as_text_and_json(flaneur: Flaneur):
    status, out, _ = flaneur("doctor", "--json")
    result = json.loads(out.splitlines()[-1])
    assert status == (0 if result["can_play"] else 2)
    assert {check["name"] for check in result["checks"]} >= {"python", "display", "worlds"}
    assert "python" in flaneur("doctor")[1]


def test_a_track_is_converted_and_counted(flaneur: Flaneur):
    result = result_of(flaneur("track", "convert", "w-4,a-2", "walk.npz", "--json"))
    assert (result["num_frames"], result["fps"]) == (7, 16.0)
    result_of(flaneur("track", "convert", "walk.npz", "walk.txt", "--json"))
    assert Path("walk.txt").read_text() == "w-4,a-2\n"


def every_command() -> dict[tuple[str, ...], Any]:
    """Return every command and every group of commands by its words."""
    app = typer.Typer()
    for module in COMMANDS.values():
        importlib.import_module(module).register(app)
    return dict(commands_below(get_command(app), ()))


def commands_below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands_below(child, (*words, name))


def test_every_option_has_a_help():
    for words, command in every_command().items():
        for option in command.params:
            assert getattr(option, "help", None), f"{' '.join(words)}: {option.name} has no help"


def test_every_help_can_be_read_at_80_columns(flaneur: Flaneur, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = every_command()
    assert ("train", "pocket") in commands
    for words in commands:
        status, out, err = flaneur(*words, "--help")
        assert status == 0, err
        assert max(map(len, out.splitlines())) <= 80
        assert "\u2026" not in out, f"{' '.join(words)}: a word is cut off"


def test_help_is_shown_without_arguments_and_names_every_command(flaneur: Flaneur):
    status, out, _ = flaneur()
    assert status == 0
    for command in ("play", "replay", "track", "world", "export", "train", "bench", "doctor"):
        assert command in out


def test_a_world_begun_by_walking_is_listed_shown_walked_and_replayed_by_its_name(
    flaneur: Flaneur, tmp_path: Path, toy: list[str], toy_bundle: Bundle, toy_world: World
):
    name = "blocks-from-12345678"
    own = pictures_dir() / OWN_WORLDS
    assert tmp_path in own.parents
    own.mkdir(parents=True)
    write_world(
        own / f"{name}.world", replace(toy_world, info=toy_world.info.model_copy(update={"name": name}))
    )
    listed = result_of(flaneur("world", "list", "--json"))["worlds"]
    assert listed[1] == {"name": name, "title": "A toy", "path": str(own / f"{name}.world"), "own": True}
    assert result_of(flaneur("world", "show", name, "--json"))["name"] == name
    walk = ["play", name, *toy[2:], "--actions", "w-8"]
    assert result_of(flaneur(*walk, "--record", "walk.flaneur"))["world"] == name
    replay = ("replay", "walk.flaneur", "--verify", "--engine", toy_bundle.path, "--json")
    assert result_of(flaneur(*replay))["identical"]


def test_a_recording_from_a_world_that_is_not_here_asks_for_it(flaneur: Flaneur):
    arguments = (
        "play",
        "place",
        "--backend",
        "holodeck",
        "--headless",
        "--chunks",
        2,
        "--record",
        "walk.flaneur",
    )
    assert flaneur(*arguments)[0] == 0
    Path("worlds/place.world").rename("elsewhere.world")
    assert_user_error(flaneur("replay", "walk.flaneur", "--verify"), "name its file with --world")
    status, out, _ = flaneur("replay", "walk.flaneur", "--verify", "--world", "elsewhere.world")
    assert status == 0
    assert "identical" in out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a display")
@pytest.mark.parametrize("command", [["play", "place"], ["play"], ["replay", "walk.flaneur"]])
def test_without_a_display_the_window_says_so(
    flaneur: Flaneur, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    assert_user_error(flaneur(*command), "there is no display to open a window on; use --headless")


def test_a_closed_pipe_is_no_traceback():
    program = [sys.executable, "-c", "from cli.app import main; main()", "--help"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_random_pocket_is_exported_verified_and_played(flaneur: Flaneur, tmp_path: Path):
    pytest.importorskip("onnxscript")
    source = ("--model", "pocket", "--random-weights")
    made = result_of(flaneur("export", "onnx", *source, "-o", "bundle", "--timesteps", "1000,727", "--json"))
    assert made["name"] == "pocket"
    checked = result_of(flaneur("export", "verify", "bundle", *source, "--chunks", 2, "--json"))
    assert checked["passed"] is True
    assert [row["chunk_index"] for row in checked["chunks"]] == [0, 1, 2]
