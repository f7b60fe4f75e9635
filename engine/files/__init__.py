"""Files on disk: bundle, world, recording, saved walk, video; untrusted sizes are bounded before allocation."""
