"""Devices to intent: key bindings, held controls, gamepads and the queue that the engine reads."""
