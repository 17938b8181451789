"""Environments of the engines to compare with: each needs versions that conflict with those of the others.

    python benchmarks/engines/environments.py [colbert-ai] [fast-plaid] [--cache FOLDER]

Each is a virtual environment under FOLDER, made once and then found again. torch is only ever taken as a CPU build (a
version that ends in ``+cpu``), from the indexes that pip is configured with: PyPI's own build for Linux brings
gigabytes of CUDA. Where pip is offered none, the engine is left out and the reason told. fast-plaid's compiled part is
linked to one exact release of torch: with another one it ends in a segmentation fault, so its pin is kept.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CACHE = Path.home() / ".cache" / "rerank-integrations" / "benchmarks"


class EngineUnavailableError(Exception):
    """An engine's environment cannot be created here; the message says why."""


class Engine(NamedTuple):
    torch: str
    packages: tuple[str, ...]
    check: str


ENGINES = {
    # colbert-ai was written for transformers 4; torch compiles its C++, which takes ninja, setuptools and a compiler.
    "colbert-ai": Engine(
        torch="2.13.0",
        packages=("colbert-ai==0.2.22", "transformers>=4.50,<5", "faiss-cpu", "setuptools", "ninja"),
        check="import faiss, colbert.indexing.collection_indexer, colbert.search.index_storage",
    ),
    # The last part of the version names the torch that it was linked to.
    "fast-plaid": Engine(
        torch="2.11.0",
        packages=("fast-plaid==1.7.0.2110",),
        check="import fast_plaid.search",
    ),
}


def run(command: list[str], failure: str) -> None:
    """Run `command`; if it fails, raise an error with `failure` and the last line of its output."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise EngineUnavailableError(f"{failure}: {lines[-1] if lines else f'exit code {done.returncode}'}")


def python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if platform.system() == "Windows" else folder / "bin" / "python"


def install(name: str, folder: Path) -> Path:
    """Create `name`'s environment in `folder`, and return its Python."""
    engine = ENGINES[name]
    # Outside Linux, PyPI's own build is for the CPU, and has no such suffix.
    torch = f"torch=={engine.torch}{'+cpu' if platform.system() == 'Linux' else ''}"
    python = python_of(folder)
    run([sys.executable, "-m", "venv", "--clear", str(folder)], f"{name}: no virtual environment could be made")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, torch], f"{name} needs {torch}, which pip can't get here")
    # Repeated, so that no other package changes its version.
    run([*pip, torch, *engine.packages], f"{name}: {' '.join(engine.packages)} can't be installed beside {torch}")
    run([str(python), "-c", engine.check], f"{name} is installed, but can't be imported")
    return python


def environment(name: str, cache: Path = CACHE) -> Path:
    """Return the Python of `name`'s environment under `cache`; create it first if it is missing or unfinished.

    Raises
    ------
    EngineUnavailableError
        If it can't be made here.
    """
    folder = cache / name
    # Written last, with the requirements as its content: any other content means unfinished or outdated.
    stamp, wanted = folder / "made-with.txt", f"{sys.version}\n{ENGINES[name]}\n"
    python = python_of(folder)
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise EngineUnavailableError(f"{folder} holds something else than an environment, and is left alone")
    try:
        install(name, folder)
    except EngineUnavailableError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    stamp.write_text(wanted)
    return python


def outcome(name: str, cache: Path) -> str:
    try:
        return str(environment(name, cache))
    except EngineUnavailableError as error:
        return f"left out. {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", metavar="engine", default=list(ENGINES), help=" or ".join(ENGINES))
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    if unknown := set(options.engines) - set(ENGINES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in options.engines:
        print(f"{name}: {outcome(name, options.cache)}")


if __name__ == "__main__":
    main()
