"""Long attacks on an index: see ``python -m endurance --help``. The test suite runs short versions of them."""
