"""Archives of clips in SANA-WM's format."""
