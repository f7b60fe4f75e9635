"""The player's side: devices to poses, frames to light, commands to the rest of the house."""
