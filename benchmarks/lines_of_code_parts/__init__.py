"""The programs that `lines_of_code.py` runs and counts, and the documents that they read."""
