"""The framework-free part: models, index, reranking."""
