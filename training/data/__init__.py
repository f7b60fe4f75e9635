"""Where training clips come from: walks through the holodeck's places, rendered and encoded once."""
