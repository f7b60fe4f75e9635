"""What the window is at: choosing a world, opening it, the walk, and what lies over it."""
