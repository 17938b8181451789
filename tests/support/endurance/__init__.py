"""Attacks on an index at length; see ``python -m endurance --help``. Short versions of them are in the test suite."""
