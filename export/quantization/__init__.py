"""Low precision: which layers bear it, what reaches them, how they are written, and what it costs."""
