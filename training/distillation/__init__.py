"""Few-step students of a bidirectional teacher."""
