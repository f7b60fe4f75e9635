"""Camera poses in other programs' files: nerfstudio, COLMAP, TUM and its kin."""
