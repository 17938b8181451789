"""The compressed index: PLAID search over centroids and quantised residuals (Santhanam et al., 2022, arXiv:2205.09707).

Imports numba and faiss, so it is itself imported only where an index has outgrown exact search.
"""
