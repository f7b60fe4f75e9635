"""The player's side: devices to poses, frames to light, commands to the rest of the house."""

import os

# pygame greets on standard output when it is imported; that belongs to the commands' own lines.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
# The name desktops group windows by; it would be the script's otherwise.
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "flaneur")
