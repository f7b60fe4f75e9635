"""The look of every screen: one font, one palette, one grid."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import pygame

from client.setup.folders import DOTS, without_middle

INK = (19, 20, 26)
"""Behind everything."""
INK_RAISED = (38, 40, 50)
PAPER = (244, 238, 224)
"""Text that matters."""
PAPER_DIM = (170, 166, 158)
"""Text beside it."""
AMBER = (244, 164, 78)
"""The one accent: what is chosen, what is under way."""
SIGNAL_RED = (236, 84, 70)
"""Recording, and what went wrong."""

GRID_PX = 8
PANEL_ALPHA = 208
"""Dark enough for text over a white sky, light enough to see the world move behind it."""
MAX_CACHED_TEXTS = 512

Colour = tuple[int, int, int]


def scale_for(width_px: int, height_px: int) -> float:
    """Return the size of the interface for a window: 1 at 960 x 720, in quarter steps."""
    fitting = min(width_px / 960, height_px / 720)
    return max(0.5, min(4.0, round(fitting * 4) / 4))


class Theme:
    """Draws text and panels at one scale; what was drawn once is kept."""

    def __init__(self, scale: float, fonts_dir: Path) -> None:
        self.scale = scale
        names = {False: "B612-Regular.otf", True: "B612-Bold.otf"}
        self._files = {bold: (fonts_dir / name).read_bytes() for bold, name in names.items()}
        self._fonts: dict[tuple[int, bool], pygame.font.Font] = {}
        self._texts: OrderedDict[tuple[str, int, bool, Colour], pygame.Surface] = OrderedDict()
        self._panels: dict[tuple[int, int, Colour, int, int], pygame.Surface] = {}

    def px(self, units: float) -> int:
        """Turn grid units (8 px at scale 1) into pixels."""
        return round(units * GRID_PX * self.scale)

    def font(self, size: int, bold: bool = False) -> pygame.font.Font:
        """Return the font at a size in pixels at scale 1; never unreadably small."""
        height = max(9, round(size * self.scale))
        key = (height, bold)
        if key not in self._fonts:
            # A font opened by its name keeps the file open, once for each size.
            self._fonts[key] = pygame.font.Font(io.BytesIO(self._files[bold]), height)
        return self._fonts[key]

    def text(self, text: str, size: int = 16, bold: bool = False, colour: Colour = PAPER) -> pygame.Surface:
        """Return one line of text on nothing."""
        key = (text, size, bold, colour)
        if (surface := self._texts.get(key)) is None:
            surface = self.font(size, bold).render(text, True, colour)
            self._texts[key] = surface
            if len(self._texts) > MAX_CACHED_TEXTS:
                self._texts.popitem(last=False)
        else:
            self._texts.move_to_end(key)
        return surface

    def clipped(self, text: str, width_px: int, size: int = 16, bold: bool = False) -> str:
        """Shorten a line to a width, with dots where something is missing."""
        font = self.font(size, bold)
        if font.size(text)[0] <= width_px:
            return text
        while text and font.size(text + "...")[0] > width_px:
            text = text[:-1]
        return text.rstrip() + "..."

    def clipped_within(self, word: str, width_px: int, size: int = 16, bold: bool = False) -> str:
        """Shorten a word to a width by what stands in its middle."""
        font = self.font(size, bold)
        if font.size(word)[0] <= width_px:
            return word
        for num_kept in range(len(word) - 1, 0, -1):
            shorter = without_middle(word, num_kept)
            if font.size(shorter)[0] <= width_px:
                return shorter
        return DOTS

    def wrap(self, text: str, width_px: int, size: int = 16, bold: bool = False) -> list[str]:
        """Break a sentence into lines no wider than a width; a longer word is shortened."""
        lines: list[str] = []
        line = ""
        for word in text.split():
            longer = f"{line} {word}".lstrip()
            if self.font(size, bold).size(longer)[0] <= width_px:
                line = longer
                continue
            if line:
                lines.append(line)
            line = self.clipped_within(word, width_px, size, bold)
        return [*lines, line] if line else lines

    def panel(
        self,
        width_px: int,
        height_px: int,
        colour: Colour = INK,
        alpha: int = PANEL_ALPHA,
        radius: float = 1.0,
    ) -> pygame.Surface:
        """Return a rounded panel; the corner radius is in grid units."""
        radius_px = self.px(radius)
        key = (width_px, height_px, colour, alpha, radius_px)
        if key not in self._panels:
            if len(self._panels) > MAX_CACHED_TEXTS:
                self._panels.clear()
            self._panels[key] = rounded(width_px, height_px, colour, alpha, radius_px)
        return self._panels[key]

    def shade(self, target: pygame.Surface, alpha: int = 150) -> None:
        """Darken the whole picture, for what is shown on top of it."""
        veil = pygame.Surface(target.get_size(), pygame.SRCALPHA)
        veil.fill((*INK, alpha))
        target.blit(veil, (0, 0))


def rounded(width_px: int, height_px: int, colour: Colour, alpha: int, radius_px: int) -> pygame.Surface:
    """Return a filled rectangle with smooth round corners."""
    size = (max(1, width_px), max(1, height_px))
    radius_px = min(radius_px, size[0] // 2, size[1] // 2)
    surface = pygame.Surface(size, pygame.SRCALPHA)
    surface.fill((*colour, alpha))
    if radius_px > 0:
        corner = _corner(colour, alpha, radius_px)
        right, bottom = size[0] - radius_px, size[1] - radius_px
        for x, y, flip_x, flip_y in (
            (0, 0, False, False),
            (right, 0, True, False),
            (0, bottom, False, True),
            (right, bottom, True, True),
        ):
            area = pygame.Rect(x, y, radius_px, radius_px)
            surface.fill((0, 0, 0, 0), area)
            surface.blit(pygame.transform.flip(corner, flip_x, flip_y), area)
    return surface


def _corner(colour: Colour, alpha: int, radius_px: int) -> pygame.Surface:
    """Return a quarter disc, top left, smoothed from four times its size."""
    large = pygame.Surface((radius_px * 4, radius_px * 4), pygame.SRCALPHA)
    # Transparent in the same colour, so that smoothing mixes alpha and not colours.
    large.fill((*colour, 0))
    pygame.draw.circle(large, (*colour, alpha), (radius_px * 4, radius_px * 4), radius_px * 4)
    return pygame.transform.smoothscale(large, (radius_px, radius_px))


def round_picture(picture: pygame.Surface, radius_px: int) -> pygame.Surface:
    """Return a picture with its corners rounded off."""
    mask = rounded(*picture.get_size(), (255, 255, 255), 255, radius_px)
    result = picture.convert_alpha() if pygame.display.get_surface() else picture.copy()
    result.blit(mask, (0, 0), special_flags=pygame.BLEND_RGBA_MIN)
    return result
