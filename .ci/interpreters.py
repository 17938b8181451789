"""Find the other Pythons that are supported, on PATH or among those of pyenv.

``others`` prints the versions that are installed, ``missing`` a sentence per version that is not, and ``path 3.12`` the
path of one. The version that runs this is not among the others.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.10", "3.11", "3.12", "3.13")


def main() -> int:
    """Print what is asked for; return 1 if the interpreter is not installed."""
    command, *versions = sys.argv[1:]
    own = "{}.{}".format(*sys.version_info[:2])
    paths = {version: _path(version) for version in versions or SUPPORTED if versions or version != own}
    lines = {
        "others": [version for version, path in paths.items() if path],
        "missing": [f"Python {version}: no such interpreter here" for version, path in paths.items() if not path],
        "path": [path for path in paths.values() if path],
    }[command]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if command == "path" and not lines else 0


def _path(version: str) -> str | None:
    name = f"python{version}"
    on_path = shutil.which(name)
    # A shim of pyenv is on PATH for every version that it has, and fails for those that are not active.
    if on_path and subprocess.run([on_path, "--version"], capture_output=True, check=False).returncode == 0:
        return on_path
    if not shutil.which("pyenv"):
        return None
    root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
    installed = sorted(Path(root, "versions").glob(f"{version}.*/bin/python"))
    return str(installed[-1]) if installed else None


if __name__ == "__main__":
    sys.exit(main())
