"""The film strip: past moments along the bottom while the walk is wound back."""

from __future__ import annotations

import pygame

from client.playback.past import Moment
from client.playback.reel import Reel
from client.ui import theme
from client.ui.menu import frame_surface
from client.ui.picture import enlarge
from client.ui.theme import Theme

THUMBNAIL_WIDTH = 13
"""Grid units."""


class FilmStrip:
    """Draws a reel; small pictures made once are kept for as long as the reel is."""

    def __init__(self) -> None:
        self._thumbnails: dict[tuple[int, int], pygame.Surface] = {}
        self.place = pygame.Rect(0, 0, 0, 0)
        """Where it lies, as drawn last."""

    def clear(self) -> None:
        """Forget the small pictures."""
        self._thumbnails.clear()

    def draw(self, target: pygame.Surface, look: Theme, reel: Reel, title: str, hint: str) -> None:
        """Draw the moments around the one that is shown, which stands in the middle; `title` says when it was."""
        frame = reel.moment.frame.pixels
        width = look.px(THUMBNAIL_WIDTH)
        height = max(1, round(width * frame.shape[0] / frame.shape[1]))
        gap, pad = look.px(1), look.px(2)
        room = target.get_width() - 2 * look.px(2)
        panel_height = height + look.px(8)
        top = target.get_height() - panel_height - look.px(2)
        self.place = pygame.Rect(look.px(2), top, room, panel_height)
        target.blit(look.panel(*self.place.size), self.place)
        middle = target.get_width() // 2
        clip = pygame.Rect(look.px(2) + pad, top, room - 2 * pad, panel_height)
        target.set_clip(clip)
        reach = room // (2 * (width + gap)) + 1
        for i in range(max(0, reel.index - reach), min(len(reel.film), reel.index + reach + 1)):
            left = middle - width // 2 + (i - reel.index) * (width + gap)
            place = pygame.Rect(left, top + look.px(1.5), width, height)
            if i == reel.index:
                rim = place.inflate(look.px(1), look.px(1))
                target.fill(theme.AMBER, rim)
            target.blit(self._thumbnail(reel.film[i], place.size), place)
        target.set_clip(None)
        y = top + height + look.px(3.5)
        target.blit(look.text(title, 16, bold=True, colour=theme.AMBER), (clip.left, y))
        hint = look.clipped(hint, max(1, clip.width - look.px(30)), 15)
        label = look.text(hint, 15)
        target.blit(label, (clip.right - label.get_width(), y))

    def _thumbnail(self, moment: Moment, size: tuple[int, int]) -> pygame.Surface:
        key = (moment.frame.index, size[0])
        if key not in self._thumbnails:
            self._thumbnails[key] = frame_surface(enlarge(moment.frame.pixels, *size, "smooth"))
        return self._thumbnails[key]
