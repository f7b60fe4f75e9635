"""Camera poses over time: integrator, action strings, tracks and their fitting."""
