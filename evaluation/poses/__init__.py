"""Cameras recovered from video frames alone."""
