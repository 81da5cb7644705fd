"""Recipes: all choices of a training but the machine, and those that were published with a name."""
