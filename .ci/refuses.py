"""Check that importing a module without its framework or extra fails with the command that installs it."""

from __future__ import annotations

import importlib
import sys

from rerank_integrations import MissingExtraError


def main() -> int:
    """Import the module that is named; return 1 if that succeeds, or if the message names no command."""
    module, extra = sys.argv[1:]
    try:
        importlib.import_module(module)
    except MissingExtraError as error:
        sys.stdout.write(f"{module}: {error}\n")
        return 0 if f"pip install 'rerank-integrations[{extra}]'" in str(error) else 1
    sys.stdout.write(f"{module} was imported without what it needs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
