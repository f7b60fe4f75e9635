"""What lies over the world can be read over any world, fits any window, and goes when its time has come."""

from collections.abc import Iterator

import numpy as np
import pygame
import pytest

from client.camera.pose_words import place_words, pose_angles_deg, view_words
from client.input.actions import ACTIONS
from client.input.bindings import DEFAULT_BINDINGS, Bindings, help_groups, key_name
from client.input.controls import Intent
from client.playback.meters import Drift, Response
from client.playback.pacing import PacingCounts
from client.playback.walk_map import WalkMap
from client.screens.help import HelpPanel, lay_out
from client.screens.loading_screen import draw_loading
from client.screens.menus import OFFERED, KeysMenu, adjust, pause_menu, settings_menu
from client.screens.world_menu import WorldMenu
from client.setup.catalog import WorldChoice
from client.setup.opening import LoadingStages
from client.setup.settings import Settings
from client.ui import hud, theme
from client.ui.menu import Choice, Menu
from client.ui.metrics import Metrics, Section, metric_lines
from client.ui.panels import draw_held, draw_map
from client.ui.theme import Theme, scale_for
from client.ui.toasts import TOAST_S, Toasts
from engine.machine.assets import assets_dir
from engine.types import ChunkTimes

SIZES = [
    (0, 0),
    (1, 1),
    (90, 40),
    (320, 192),
    (640, 384),
    (1280, 720),
    (1920, 1080),
    (800, 1200),
    (3840, 2160),
]


@pytest.fixture(scope="module", autouse=True)
def font() -> Iterator[None]:
    pygame.font.init()
    yield
    pygame.font.quit()


def look_for(size: tuple[int, int]) -> Theme:
    return Theme(scale_for(*size), assets_dir() / "fonts")


def some_metrics() -> Metrics:
    return Metrics(
        world="A world with quite a long title that does not fit into the panel",
        engine="pocket",
        backend="onnxruntime",
        seed=1234567890,
        fps=16.0,
        fps_shown=15.9,
        realtime_factor=2.1,
        chunk_ms_p50=110.0,
        chunk_ms_p95=190.0,
        deadline_ms=250.0,
        chunk_times=[ChunkTimes(0.0, 0.0, denoised_s, 0.7, 0.7, 0.8) for denoised_s in (0.06, 0.6)] * 40,
        num_steps=3,
        most_steps=4,
        steps_lowered=True,
        refiner="off, to keep time",
        refiner_adds=Response(9, 210.2, 281.7, 9999.0),
        model=Response(9, 210.2, 281.7, 9999.0),
        warped=Response(9, 10672.0, 10765.0, 10787.0),
        drift=Drift(0.5, "detail", 0.6),
        resting=True,
        turned_deg=3.5,
        moved_m=0.25,
        buffered_frames=2.5,
        in_flight=1,
        rate=1.0,
        counts=PacingCounts(100, 0, 3, 3, 0.4, 2, 0.1),
        chunk_index=77,
        c2w=np.eye(4),
        flying=False,
        speed_m_s=1.6,
        memory_bytes=300 << 20,
        client_ms=2.0,
        more=((Section.PLACE, "branch", "2, 1 left"),),
    )


def luminance(colour: tuple[float, float, float]) -> float:
    """Return the relative luminance of an sRGB colour, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("world", [(255, 255, 255), (0, 0, 0), (255, 240, 120)])
def test_text_on_a_panel_can_be_read_over_a_world_of_any_brightness(world: tuple[int, int, int]) -> None:
    target = pygame.Surface((200, 100))
    target.fill(world)
    target.blit(look_for((1280, 720)).panel(200, 100), (0, 0))
    red, green, blue, _ = target.get_at((100, 50))
    ground = luminance((red, green, blue))
    # WCAG asks for a contrast of 4.5 for text, 3 for large text.
    assert (luminance(theme.PAPER) + 0.05) / (ground + 0.05) > 4.5
    assert (luminance(theme.PAPER_DIM) + 0.05) / (ground + 0.05) > 3.0


@pytest.mark.parametrize("size", SIZES)
def test_everything_draws_in_windows_of_every_size(size: tuple[int, int]) -> None:
    look, target = look_for(size), pygame.Surface(size)
    hud.draw_metrics(target, look, some_metrics(), size[1])
    hud.draw_recording(target, look, 75.0)
    HelpPanel().draw(target, look, DEFAULT_BINDINGS)
    walk_map = WalkMap()
    for index in range(40):
        c2w = np.eye(4)
        c2w[:3, 3] = index / 4, 0.0, index % 7
        walk_map.add(index, c2w)
    draw_map(target, look, walk_map, size[1] - 4)
    draw_held(
        target, look, Intent(forward=1.0, yaw=-0.4, run=True), [pygame.KSCAN_W], DEFAULT_BINDINGS, size[1]
    )
    toasts = Toasts()
    toasts.add("A sentence that is long enough to need more than one line in a small window.", 0.0)
    toasts.draw(target, look, 1.0, target.get_rect())
    for menu in (pause_menu(str), settings_menu(Settings()), KeysMenu(DEFAULT_BINDINGS, chosen=9)):
        menu.draw(target, look)
        assert any(index == menu.chosen for index, _ in menu._places)
    stages = LoadingStages()
    stages.begin("Reading the world", 0.0)
    stages.begin("Starting the engine", 0.4)
    draw_loading(target, look, "A world", stages, 1.0, expected_s=2.5)
    choices = [WorldChoice(str(i), f"World {i}", "", np.zeros((96, 160, 3), np.uint8)) for i in range(7)]
    menu = WorldMenu(choices, [Choice("engine", "Engine", "ONNX Runtime"), Choice("quit", "Quit")], chosen=6)
    menu.draw(target, look)
    assert any(index == 6 for index, _ in menu._places), "the chosen world is on the screen"


def test_the_help_names_every_key_that_does_something() -> None:
    words = " ".join(keys for _, lines in help_groups(DEFAULT_BINDINGS) for keys, _ in lines)
    arrows = {pygame.KSCAN_UP, pygame.KSCAN_DOWN, pygame.KSCAN_LEFT, pygame.KSCAN_RIGHT}
    for scancode in DEFAULT_BINDINGS.scancodes(action.name for action in ACTIONS) - arrows:
        assert key_name(scancode).split()[-1] in words.split()
    assert "Arrows" in words


def test_the_help_shows_a_key_where_the_player_put_it() -> None:
    keys = {**DEFAULT_BINDINGS.keys, "photo": (pygame.KSCAN_O,), "record": ()}
    lines = [line for _, lines in help_groups(Bindings(keys)) for line in lines]
    assert ("O", "take a photo") in lines
    assert ("none", "record") in lines


@pytest.mark.parametrize(("num_columns", "num_rows"), [(1, 2), (1, 7), (2, 12), (3, 20), (3, 100)])
def test_every_line_of_the_help_has_its_place_on_some_page(num_columns: int, num_rows: int) -> None:
    groups = help_groups(DEFAULT_BINDINGS)
    pages = lay_out(groups, num_columns, num_rows)
    shown = [line for page in pages for column in page for _, lines in column for line in lines]
    assert shown == [line for _, lines in groups for line in lines]
    for page in pages:
        assert len(page) <= num_columns
        for column in page:
            assert sum(len(lines) + 2 for _, lines in column) - 1 <= num_rows


def test_a_help_of_many_pages_closes_after_the_last() -> None:
    menu, size = HelpPanel(), (320, 192)
    menu.turn()
    pages = 0
    while menu.is_open:
        menu.draw(pygame.Surface(size), look_for(size), DEFAULT_BINDINGS)
        pages += 1
        menu.turn()
    assert pages > 1


def test_angles_are_named_as_a_walker_would() -> None:
    right = np.eye(4)
    right[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert pose_angles_deg(right)[0] == pytest.approx(90.0)
    assert pose_angles_deg(np.eye(4)) == (0.0, 0.0, 0.0)


def test_a_pose_is_told_by_its_place_and_three_angles() -> None:
    c2w = np.eye(4)
    c2w[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    c2w[:3, 3] = (1.24, -1.6, -3.0)
    assert place_words(c2w) == "1.2 m right, 1.6 m up, 3.0 m back"
    assert view_words(c2w) == "yaw 90.0, pitch 0.0, roll 0.0 deg"


@pytest.mark.parametrize("size", [(1024, 640), (640, 384)])
def test_a_long_name_of_a_world_is_told_in_full(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    look, drawn = look_for(size), []
    text = look.text

    def note(words: str, *arguments: object, **more: object) -> pygame.Surface:
        drawn.append(words)
        return text(words, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(look, "text", note)
    hud.draw_metrics(pygame.Surface(size), look, some_metrics(), size[1])
    assert some_metrics().world in " ".join(" ".join(drawn).split())


def test_lines_measured_elsewhere_stand_in_their_section() -> None:
    lines = metric_lines(some_metrics())
    sections = [section for section, _, _ in lines]
    assert sections == sorted(sections, key=list(Section).index)
    assert (Section.PLACE, "branch", "2, 1 left") in lines
    assert (Section.PICTURE, "change of look", "0.50 since the start, detail 0.60 times as much") in lines


def test_a_message_goes_by_itself_and_a_warning_stays_longer() -> None:
    toasts = Toasts()
    toasts.add("saved", 0.0)
    toasts.add("the disk is full", 0.0, warning=True)
    assert toasts.texts(1.0) == ["saved", "the disk is full"]
    assert toasts.texts(TOAST_S + 0.1) == ["the disk is full"]
    assert toasts.texts(2 * TOAST_S + 0.1) == []


def test_a_value_turned_up_and_down_keeps_one_message() -> None:
    toasts = Toasts()
    toasts.replace("Walking at ", "1.6", 0.0)
    toasts.replace("Walking at ", "2.0", 0.1)
    assert toasts.texts(0.2) == ["Walking at 2.0"]


def test_an_equal_message_is_shown_once_and_old_ones_give_way() -> None:
    toasts = Toasts()
    for text in ("one", "two", "two", "three", "four"):
        toasts.add(text, 0.0)
    assert toasts.texts(0.1) == ["two", "three", "four"]


def test_loading_stages_follow_one_another() -> None:
    stages = LoadingStages()
    stages.begin("first", 1.0)
    stages.begin("second", 3.0)
    stages.end(7.0)
    assert [(s.label, s.began_s, s.ended_s) for s in stages.stages] == [
        ("first", 1.0, 3.0),
        ("second", 3.0, 7.0),
    ]
    assert stages.elapsed_s(7.0) == 6.0


def test_moving_through_the_worlds_stops_at_the_edges_and_goes_down_to_the_buttons() -> None:
    choices = [WorldChoice(str(i), str(i), "", None) for i in range(8)]
    menu = WorldMenu(choices, [Choice("engine", "Engine"), Choice("quit", "Quit")])
    menu.draw(pygame.Surface((1280, 720)), look_for((1280, 720)))
    moves = ((-1, 0, 0), (1, 0, 1), (0, -1, 1), (0, 1, 4), (1, 0, 5), (0, 1, 7), (1, 0, 7))
    for dx, dy, expected in moves:
        menu.move(dx, dy)
        assert menu.chosen == expected
        assert menu.key is None
    for dx, dy, key in ((0, 1, "engine"), (-1, 0, "engine"), (1, 0, "quit"), (1, 0, "quit"), (0, -1, None)):
        menu.move(dx, dy)
        assert menu.key == key
    assert menu.chosen == 7


def test_a_menu_is_chosen_from_around_its_ends() -> None:
    menu = Menu("Title", [Choice("a", "A"), Choice("b", "B")])
    menu.move(-1)
    assert menu.key == "b"
    menu.move(1)
    assert menu.key == "a"


def test_each_setting_of_the_menu_moves_within_its_bounds() -> None:
    settings = Settings()
    for _ in range(100):
        settings = adjust(settings, "mouse_deg_px", 1)
    assert settings.mouse_deg_px == 2.0
    assert adjust(settings, "invert_y", 1).invert_y
    for _ in range(100):
        settings = adjust(settings, "pace", -1)
    assert settings.pace == 0.25
    assert adjust(settings, "picture", 1).picture == "smooth"
    assert adjust(settings, "picture", -1).picture == "pixels"
    assert adjust(settings, "hud", 1).hud
    assert adjust(settings, "quit", 1) == settings


def test_long_texts_are_broken_and_shortened_to_their_room() -> None:
    look = look_for((1280, 720))
    lines = look.wrap("one two three " + "x" * 500, 200)
    assert all(look.font(16).size(line)[0] <= 200 for line in lines)
    assert look.clipped("short", 200) == "short"
    assert look.clipped("x" * 500, 200).endswith("...")


def test_every_action_of_the_pause_is_one_of_the_table() -> None:
    assert set(OFFERED) <= {action.name for action in ACTIONS}


def test_every_setting_with_a_value_says_in_one_line_what_it_is() -> None:
    look = look_for((640, 384))
    for choice in settings_menu(Settings()).choices:
        assert choice.note
        assert len(look.wrap(choice.note, look.px(58), 16)) == 1


def test_the_pause_names_the_keys_of_what_it_offers() -> None:
    named = {choice.key: choice.value for choice in pause_menu(lambda name: f"key of {name}").choices}
    for name in OFFERED:
        assert named[f"do:{name}"] == f"key of {name}"
