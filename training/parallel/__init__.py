"""One training on many processes: parameters, batches and the frames of a clip shared out among them."""
