"""Check the contents of the built wheels and sdists: the package's and those of the thin distributions."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "rerank_integrations/"
STARTER = PACKAGE + "starter/"


def main() -> int:
    """Print what is wrong with the packages in the two folders that are named; return 1 if anything is."""
    package, thin = (Path(argument) for argument in sys.argv[1:])
    problems = _problems_of_package(package) + _problems_of_thin_distributions(thin)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


def _problems_of_package(folder: Path) -> list[str]:
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    in_wheel, in_sdist = _names(wheel), _names(sdist)
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
    sys.stdout.write(f"{wheel.name}: {wheel.stat().st_size:,} bytes; starter data: {', '.join(data)}\n")
    return problems


def _problems_of_thin_distributions(folder: Path) -> list[str]:
    """Compare each distribution with its project, file by file: nothing lacks and nothing else is there."""
    problems = []
    for project in sorted(path.parent for path in folder.glob("*/pyproject.toml")):
        files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
        modules = {name for name in files if "/" in name}
        stem = f"{project.name.replace('-', '_')}-"
        (wheel,) = folder.glob(f"built/{stem}*.whl")
        (sdist,) = folder.glob(f"built/{stem}*.tar.gz")
        information = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
        about = {information + name for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
        problems += [f"{wheel.name}: {name}" for name in sorted(_names(wheel) ^ (modules | about))]
        # hatchling adds the repository's .gitignore to an sdist that is built inside a clone.
        in_sdist = _names(sdist) - {".gitignore"}
        problems += [f"{sdist.name}: {name}" for name in sorted(in_sdist ^ (files | {"PKG-INFO"}))]
        sys.stdout.write(f"{wheel.name}: {', '.join(sorted(modules))}\n")
    return problems


def _names(package: Path) -> set[str]:
    if package.suffix == ".whl":
        return set(zipfile.ZipFile(package).namelist())
    with tarfile.open(package) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def _is_shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"


if __name__ == "__main__":
    sys.exit(main())
