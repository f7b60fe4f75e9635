"""Streams generated worlds from a bundle: numpy at its walls, no torch."""

import os

# ONNX Runtime writes a device id into the home folder and queues an event for its makers as soon as it is imported, unless
# this is set before. Every process of ours that runs it imports this package first; children inherit the setting.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
