"""The recipe of the pocket world."""
