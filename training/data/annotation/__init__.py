"""Videos without poses to clips for training: shots, cameras, scores, captions."""
