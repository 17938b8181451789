"""How work runs: lanes and cores, BLAS threads, forks, cancellation, async."""
