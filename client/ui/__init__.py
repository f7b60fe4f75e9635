"""What the window is made of: theme, panels, messages, and the picture at its size on the screen."""
