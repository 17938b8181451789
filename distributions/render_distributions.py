"""Render the thin distributions: packages under the hubs' names that re-export the adapters.

``python distributions/render_distributions.py FOLDER`` writes one project per distribution into ``FOLDER/NAME``, ready
for ``python -m build``. It also writes ``FOLDER/typed_use.py``, which uses every name, for type checkers.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Distribution:
    """A distribution of the table; `distributions.toml` says what the fields are."""

    name: str
    module: str
    adapter: str
    extra: str
    title: str
    summary: str
    names: tuple[str, ...]
    usage: str

    @property
    def folder(self) -> str:
        """Return the folder of the module in the distribution."""
        return self.module.replace(".", "/")

    @property
    def top_folder(self) -> str:
        """Return the outermost folder, which for LlamaIndex is a namespace that other distributions share."""
        return self.module.partition(".")[0]

    @property
    def classes(self) -> list[str]:
        """Return the names that are classes."""
        return [name for name in self.names if name[0].isupper()]


def read_distributions() -> list[Distribution]:
    """Read the table."""
    table = tomllib.loads((HERE / "distributions.toml").read_text("utf-8"))
    return [
        Distribution(**{**row, "names": tuple(row["names"]), "usage": row["usage"].strip()})
        for row in table["distribution"]
    ]


def read_project() -> dict[str, Any]:
    """Read the ``project`` table of the package's own pyproject.toml."""
    return dict(_pyproject()["project"])


def requirements(distribution: Distribution) -> list[str]:
    """Return what a distribution requires: this version of the package, and the framework as its extra names it.

    The hubs' tools look for the framework among the direct requirements, not behind an extra.
    """
    project = read_project()
    package = f"{project['name']}[{distribution.extra}]=={project['version']}"
    return [package, *project["optional-dependencies"][distribution.extra]]


def render(distribution: Distribution) -> dict[str, str]:
    """Return the files of a distribution's project by path, as text."""
    values = {
        **vars(distribution),
        "top_folder": distribution.top_folder,
        "classes": distribution.classes,
        "on_llamahub": distribution.top_folder == "llama_index",
        "project": read_project(),
        "author": read_project()["authors"][0]["name"],
        "build_requires": _pyproject()["build-system"]["requires"],
        "dependencies": requirements(distribution),
    }
    return {
        "pyproject.toml": _template("pyproject.toml").render(values),
        "README.md": _template("README.md").render(values),
        "LICENSE": (ROOT / "LICENSE").read_text("utf-8"),
        f"{distribution.folder}/__init__.py": _template("__init__.py").render(values),
        # In the module's own folder: the folders above belong to no distribution.
        f"{distribution.folder}/py.typed": "",
    }


def main() -> int:
    """Write every project into the folder that is named, in place of what it holds."""
    (folder,) = (Path(argument) for argument in sys.argv[1:])
    shutil.rmtree(folder, ignore_errors=True)
    distributions = read_distributions()
    for distribution in distributions:
        for path, text in render(distribution).items():
            target = folder / distribution.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    typed_use = _template("typed_use.py").render(distributions=distributions)
    (folder / "typed_use.py").write_text(typed_use, "utf-8")
    return 0


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _template(name: str) -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE / "template"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    # Strings and lists of strings are written in JSON as in TOML.
    environment.filters["toml"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template(f"{name}.jinja")


if __name__ == "__main__":
    sys.exit(main())
