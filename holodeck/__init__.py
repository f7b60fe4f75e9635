"""Places rendered exactly: a camera pose in, a frame out; geometry, light and collision in numpy.

This room knows no model, bundle, clock or window. The engine serves it as a session whose frames are the
ground truth, and training takes its data from it.
"""

from holodeck.place import Place
from holodeck.places import get_place, has_place, place_names

__all__ = ["Place", "get_place", "has_place", "place_names"]
