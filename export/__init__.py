"""A model made into a bundle: files that an engine can run without the model's code."""
