"""Folders of videos with poses beside them."""
