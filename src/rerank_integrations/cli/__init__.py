"""Command line ``rerank-integrations``. Importing it loads neither torch nor a framework."""

from rerank_integrations.cli.app import main

__all__ = ["main"]
