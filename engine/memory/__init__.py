"""The spatial memory of a world: posed RGB-D keyframes, and what cameras see of them."""
