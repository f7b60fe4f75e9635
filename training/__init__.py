"""Makes the weights: data, losses, stages and the loop that drives them."""
