"""Demonstration on real text: the docstrings of the running Python's standard library."""
