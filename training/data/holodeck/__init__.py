"""Clips rendered from holodeck places."""
