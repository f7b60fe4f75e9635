"""The world model: a function of tensors, and the arithmetic around it.

It knows nothing about files other than checkpoints, and nothing about threads, clocks or windows.
"""
