"""Numba kernels of the compiled renderer, one module per pass; none calls another, so each cache stays valid on its own."""
