"""Programs for the Python of other environments, whose packages do not go with ours, and what asks them.

What lies here beside `other_python` runs there: it imports nothing of ours.
"""
