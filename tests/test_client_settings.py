"""Settings survive, damaged ones are set aside, and folders follow the platform."""

import sys
from pathlib import Path

import pytest

from client.setup.folders import pictures_dir, settings_file
from client.setup.settings import Settings, load_settings, save_settings


def test_settings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    file = tmp_path / "new" / "settings.json"
    settings = Settings(
        mouse_deg_px=0.3, invert_y=True, hud=True, picture="pixels", keys={"photo": (18,), "record": ()}
    )
    save_settings(file, settings)
    assert load_settings(file) == (settings, "")
    assert [entry.name for entry in file.parent.iterdir()] == ["settings.json"]


def test_missing_settings_are_the_defaults_without_a_word(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "settings.json") == (Settings(), "")


def test_an_older_file_without_newer_fields_still_opens(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"invert_y": true}')
    assert load_settings(file) == (Settings(invert_y=True), "")


@pytest.mark.parametrize(("value", "setting"), [("true", "auto"), ("false", "off"), ('"on"', "on")])
def test_a_refiner_that_was_switched_off_stays_off(tmp_path: Path, value: str, setting: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(f'{{"refiner": {value}}}')
    settings, sentence = load_settings(file)
    assert (settings.refiner, sentence) == (setting, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b'{"mouse_deg_px": "NaN"}',
        b'{"mouse_deg_px": NaN}',
        b'{"window_width": 999999999}',
        b'{"unknown": 1}',
        b'{"refiner": "perhaps"}',
        b'{"refiner": 1}',
        b'{"keys": {"sing": [4]}}',
        b'{"keys": {"photo": [41]}}',
        b'{"keys": {"photo": [100000]}}',
        b'{"keys": {"photo": "w"}}',
        b'{"format_version": 2}',
        b"[" * 100_000,
    ],
)
def test_damaged_settings_are_set_aside_with_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(content)
    settings, sentence = load_settings(file)
    assert settings == Settings()
    assert "settings.json.broken" in sentence
    assert not file.exists()
    assert (tmp_path / "settings.json.broken").read_bytes() == content


def test_settings_that_cannot_be_written_say_so_in_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ValueError, match="cannot make the folder"):
        save_settings(blocked / "settings.json", Settings())


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of a Linux desktop")
def test_folders_are_those_of_the_desktop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_file() == home / ".config/flaneur/settings.json"
    assert pictures_dir() == home / "Pictures/Flaneur"
    (home / ".config").mkdir()
    (home / ".config" / "user-dirs.dirs").write_text('XDG_PICTURES_DIR="$HOME/Bilder"\n')
    assert pictures_dir() == home / "Bilder/Flaneur"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert settings_file() == Path("/x/flaneur/settings.json")


def test_a_home_that_is_not_known_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_config_path", unknown)
    monkeypatch.setattr("platformdirs.user_pictures_path", unknown)
    for folder in (settings_file, pictures_dir):
        with pytest.raises(ValueError, match="set HOME"):
            folder()
