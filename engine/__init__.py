"""Streams generated worlds from a bundle: numpy at its walls, no torch."""
