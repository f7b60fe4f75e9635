"""Opening the window, or saying at once that there is no display for it."""

from __future__ import annotations

import os
import sys

from cli.report import say_error
from client.setup.options import PlayOptions


def open_window(options: PlayOptions) -> int:
    """Open the window and stay until the player leaves; returns the exit status."""
    from engine.errors import BackendUnavailable
    from engine.machine.doctor import check_display

    # Asked here, since SDL's libraries complain on stderr before they give up. A driver chosen by hand is tried.
    if "SDL_VIDEODRIVER" not in os.environ and check_display(os.environ, sys.platform).status != "ok":
        raise BackendUnavailable(
            "there is no display to open a window on; use --headless, or set DISPLAY to one"
        )
    from client.app import run

    for problem in run(options):
        say_error(problem)
    return 0
