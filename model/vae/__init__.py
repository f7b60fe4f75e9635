"""Video autoencoders: the pocket's own, and LTX-2's."""
