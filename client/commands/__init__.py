"""The sub-commands of `flaneur`, one module each; heavy imports happen inside the functions."""
