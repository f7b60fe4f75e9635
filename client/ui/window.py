"""The window itself: opening, sizes, full screen, the mouse, and nothing of what is shown in it."""

from __future__ import annotations

import glob
import os

import pygame

from client.ui import theme
from engine.errors import BackendUnavailable

MIN_WIDTH_PX, MIN_HEIGHT_PX = 320, 192
TITLE = "Flaneur"
UNSEEN_DRIVERS = ("offscreen", "dummy")
GPU_DEVICES = ("/dev/dri/renderD*", "/dev/nvidia[0-9]*", "/dev/dxg")
"""Where Linux keeps what draws: Mesa's and NVIDIA's drivers, and Windows' below it."""


class Window:
    """A resizable window; its surface is the whole client area."""

    def __init__(self, width_px: int, height_px: int, fullscreen: bool = False, unseen: bool = False) -> None:
        """Open the window.

        Args:
            width_px: Wished width of the client area; less on a smaller desktop.
            height_px: Wished height.
            fullscreen: Cover the whole desktop.
            unseen: Accept a driver that shows nothing; SDL falls back to one where there is no display.

        Raises:
            BackendUnavailable: There is no display to open it on.
        """
        no_display = "there is no display to open a window on; use --headless, or set DISPLAY to one"
        try:
            pygame.display.init()
        except pygame.error as error:
            raise BackendUnavailable(no_display) from error
        if pygame.display.get_driver() in UNSEEN_DRIVERS and not unseen:
            pygame.display.quit()
            raise BackendUnavailable(no_display)
        if pygame.display.get_driver() == "x11" and not any(map(glob.glob, GPU_DEVICES)):
            # SDL hands pictures to OpenGL, which without a GPU takes longer over one than the drawing of it did.
            os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
        pygame.font.init()
        pygame.display.set_caption(TITLE)
        pygame.display.set_icon(make_icon(64))
        self._windowed_size = self._fitting(width_px, height_px)
        self.fullscreen = fullscreen
        self._set_mode()

    @property
    def surface(self) -> pygame.Surface:
        surface = pygame.display.get_surface()
        assert surface is not None, "the window is open until it is closed"
        return surface

    @property
    def size(self) -> tuple[int, int]:
        """Client area, pixels; never empty, even where the system reports so for a minimised window."""
        width, height = self.surface.get_size()
        return max(1, width), max(1, height)

    @property
    def windowed_size(self) -> tuple[int, int]:
        """Size to come back to from full screen, and in the next session."""
        return self._windowed_size

    def toggle_fullscreen(self) -> None:
        """Cover the desktop, or give it back; where the system refuses, the window stays as it was."""
        self.fullscreen = not self.fullscreen
        try:
            self._set_mode()
        except BackendUnavailable:
            self.fullscreen = not self.fullscreen
            self._set_mode()

    def note_resize(self) -> None:
        """Remember the size the player gave the window."""
        if not self.fullscreen:
            width, height = self.size
            # Some desktops squeeze a window to a sliver; the next session should not begin as one.
            self._windowed_size = max(MIN_WIDTH_PX, width), max(MIN_HEIGHT_PX, height)

    def grab_mouse(self, grabbed: bool) -> None:
        """Hide the pointer and report motion without bounds, or give it back."""
        pygame.mouse.set_visible(not grabbed)
        pygame.event.set_grab(grabbed)
        # SDL reports unbounded relative motion only while the pointer is both hidden and grabbed.
        pygame.mouse.get_rel()

    def pointer_position(self) -> tuple[float, float]:
        """Where the pointer is on the screen, pixels."""
        (left, top), (x, y) = pygame.display.get_window_position(), pygame.mouse.get_pos()
        return float(left + x), float(top + y)

    def set_title(self, world: str = "") -> None:
        pygame.display.set_caption(f"{world} - {TITLE}" if world else TITLE)

    def show(self) -> None:
        pygame.display.flip()

    def close(self) -> None:
        pygame.quit()

    def _set_mode(self) -> None:
        flags = pygame.FULLSCREEN if self.fullscreen else pygame.RESIZABLE
        size = (0, 0) if self.fullscreen else self._windowed_size
        try:
            pygame.display.set_mode(size, flags)
        except pygame.error as error:
            raise BackendUnavailable(f"the window cannot be opened ({error}); use --headless") from error

    def _fitting(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return a size that fits on the desktop with its borders, in the same shape."""
        sizes = pygame.display.get_desktop_sizes()
        room_width, room_height = sizes[0] if sizes else (width_px, height_px)
        scale = min(1.0, 0.95 * room_width / width_px, 0.9 * room_height / height_px)
        return max(MIN_WIDTH_PX, int(width_px * scale)), max(MIN_HEIGHT_PX, int(height_px * scale))


def make_icon(size_px: int) -> pygame.Surface:
    """Return the program's sign: a low sun over a road to the horizon."""
    large = pygame.Surface((256, 256), pygame.SRCALPHA)
    large.blit(theme.rounded(256, 256, theme.INK, 255, 56), (0, 0))
    pygame.draw.circle(large, theme.AMBER, (128, 128), 60)
    large.fill((*theme.INK, 255), (40, 132, 176, 80))
    pygame.draw.polygon(large, theme.PAPER, [(120, 140), (136, 140), (188, 216), (68, 216)])
    return pygame.transform.smoothscale(large, (size_px, size_px))
