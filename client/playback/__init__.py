"""A walk under way: walk, pacing, history, recorder, saves, latency meter and trace."""
