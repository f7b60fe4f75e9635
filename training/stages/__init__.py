"""The stages of training, one file each, named for what they do."""
