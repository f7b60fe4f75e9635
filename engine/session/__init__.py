"""One rollout: the session protocol, its two sessions, opening, running with and without a window, replaying."""
