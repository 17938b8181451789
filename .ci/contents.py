"""Check the contents of the built wheel and sdist."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "rerank_integrations/"
STARTER = PACKAGE + "starter/"


def main() -> int:
    """Print what is missing from the packages in the folder that is named; return 1 if anything is."""
    folder = Path(sys.argv[1])
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    source = Path("src")
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if _is_shipped(path)}
    assert PACKAGE + "py.typed" in wanted
    data = sorted(name for name in wanted if name.startswith(STARTER) and not name.endswith(".py"))
    problems = [f"{wheel.name} lacks {name}" for name in sorted(wanted - in_wheel)]
    problems += [f"{sdist.name} lacks src/{name}" for name in sorted(wanted) if f"src/{name}" not in in_sdist]
    problems += [
        f"{sdist.name} lacks {name}" for name in ("LICENSE", "README.md", "pyproject.toml") if name not in in_sdist
    ]
    problems += [] if any(name.endswith("/licenses/LICENSE") for name in in_wheel) else [f"{wheel.name} lacks LICENSE"]
    problems += [] if data else [f"no data file under {STARTER}"]
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(f"{wheel.name}: {wheel.stat().st_size:,} bytes; starter data: {', '.join(data)}\n")
    return 1 if problems else 0


def _is_shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"


if __name__ == "__main__":
    sys.exit(main())
