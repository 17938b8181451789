"""Run every example as its reader would: by the first lines of its own docstring, in a clean environment.

``python .ci/examples.py --environments FOLDER --wheels FOLDER... [NAME...]`` takes every file under ``examples/`` whose
docstring has a line ``pip install ...``. It makes an environment for each different such line, with this repository's
wheels in place of the names in it, runs the lines ``python ...`` of the docstring there in a copy of ``examples/``, and
prints a table of exit codes and seconds. NAME restricts it to files whose path contains that name.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SECONDS_PER_COMMAND = 1800
LINES_OF_A_FAILURE = 30


@dataclass(frozen=True)
class Example:
    """An example with the commands of its docstring."""

    path: Path
    install: tuple[str, ...]
    run: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the path below ``examples/``."""
        return self.path.relative_to(EXAMPLES).as_posix()


def read_examples(names: list[str]) -> list[Example]:
    """Return the examples, or those whose path contains one of `names`; a folder may have other modules beside them."""
    examples = []
    for path in sorted(EXAMPLES.rglob("*.py")):
        lines = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()
        install = tuple(line.strip() for line in lines if line.strip().startswith("pip install "))
        # What is in brackets may be left out.
        run = tuple(re.sub(r"\[.*?\]", "", line).strip() for line in lines if line.strip().startswith("python "))
        example = Example(path, install, run)
        if path.parent == EXAMPLES and not (install and run):
            sys.exit(f"{example.name}: its docstring has no line 'pip install ...' or no line 'python ...'")
        if install and any(name in example.name for name in names or [""]):
            examples.append(example)
    return examples


def read_wheels(folders: list[Path]) -> dict[str, Path]:
    """Return the wheels in some folders by the name of their distribution."""
    wheels = [path.resolve() for folder in folders for path in sorted(folder.glob("*.whl"))]
    return {path.name.split("-")[0].replace("_", "-"): path for path in wheels}


def with_wheels(command: str, wheels: dict[str, Path]) -> list[str]:
    """Return the words of an install command, with wheels in place of the names of their distributions."""
    words = shlex.split(command)
    for position, word in enumerate(words):
        name, bracket, extras = word.partition("[")
        if name in wheels:
            words[position] = f"{wheels[name]}{bracket}{extras}"
    return words


def make_environment(folder: Path, install: tuple[str, ...], wheels: dict[str, Path]) -> None:
    """Make a new virtual environment, and run the install commands in it."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    # As in the other environments of CI: the versions of constraints.txt, and few modules are imported.
    more = {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), "PIP_NO_COMPILE": "1", "PIP_QUIET": "2"}
    for command in install:
        call(with_wheels(command, wheels), folder, ROOT, more)


def call(words: list[str], environment: Path, folder: Path, more: dict[str, str]) -> None:
    """Run a command in `folder` as if `environment` were activated; raise `CalledProcessError` if it fails."""
    bin_folder = environment.resolve() / "bin"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(environment), **more}
    subprocess.run(
        [str(bin_folder / words[0]), *words[1:]],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        timeout=SECONDS_PER_COMMAND,
    )


def run_example(example: Example, environment: Path) -> None:
    """Run the commands of an example in a copy of all examples, from its own folder and without a model hub."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "examples")
        shutil.copytree(EXAMPLES, copy)
        for command in example.run:
            call(shlex.split(command), environment, (copy / example.name).parent, {"HF_HUB_OFFLINE": "1"})


def outcome(work: str, function: object, *arguments: object) -> tuple[bool, float]:
    """Call a function, and return whether it succeeded and the seconds it took; print the end of a failure's output."""
    start = time.perf_counter()
    try:
        function(*arguments)  # type: ignore[operator]
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        output = error.output.decode() if isinstance(error.output, bytes) else error.output or ""
        sys.stdout.write(f"{work}: {error}\n")
        sys.stdout.write("".join(f"    {line}\n" for line in output.splitlines()[-LINES_OF_A_FAILURE:]))
        return False, time.perf_counter() - start
    return True, time.perf_counter() - start


def main() -> int:
    """Run the examples and print the table; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, nargs="+", required=True)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    wheels = read_wheels(arguments.wheels)
    by_install: dict[tuple[str, ...], list[Example]] = {}
    for example in read_examples(arguments.names):
        by_install.setdefault(example.install, []).append(example)
    failures = 0
    rows = [("example", "result", "install", "run")]
    for install, examples in by_install.items():
        sys.stdout.write("".join(f"{command}\n" for command in install))
        installed, install_seconds = outcome("install", make_environment, arguments.environments, install, wheels)
        for example in examples:
            done, seconds = False, 0.0
            if installed:
                done, seconds = outcome(example.name, run_example, example, arguments.environments)
            failures += not done
            rows.append((example.name, "ok" if done else "failed", f"{install_seconds:.0f} s", f"{seconds:.0f} s"))
            sys.stdout.write(f"    {example.name}: {rows[-1][1]}, {rows[-1][3]}\n")
            sys.stdout.flush()
    shutil.rmtree(arguments.environments, ignore_errors=True)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return 1 if failures or len(rows) == 1 else 0


if __name__ == "__main__":
    sys.exit(main())
