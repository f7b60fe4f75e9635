"""Ways to run a bundle's graphs, behind one protocol; each heavy library stays in its own module."""
