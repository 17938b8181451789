"""A checkpoint before it is loaded: how it is to be loaded, where its files are, and what they say."""
