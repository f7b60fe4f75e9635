"""Evaluation puts numbers on what the engine streams: how like the truth, how steady, how obedient to the camera.

This room rolls worlds out through the engine's own session and holds the video against places drawn exactly. It trains nothing,
and it knows no window.
"""
