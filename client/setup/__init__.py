"""What a walk is opened with: options, settings, folders, worlds and engines."""
