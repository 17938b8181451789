"""Each example prints what it promises."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS: dict[str, set[str]] = {
    "cascade_rerank.py": {"langchain", "llama-index"},
    "explain.py": set(),
    "fastapi_service.py": {"langchain"},
    "langchain_agent.py": {"langchain"},
    "langchain_pdf_citations.py": {"langchain"},
    "langchain_rag.py": {"langchain"},
    "langchain_reingest.py": {"langchain"},
    "langchain_two_stage.py": {"langchain"},
    "llama_index_agent.py": {"llama-index"},
    "llama_index_pdf_citations.py": {"llama-index"},
    "llama_index_query_engine.py": {"llama-index"},
    "llama_index_reingest.py": {"llama-index"},
    "llama_index_three_generations.py": {"llama-index"},
    "llama_index_two_stage.py": {"llama-index"},
    "shared_index.py": {"langchain", "llama-index"},
}


# Examples that print two hits, then an answer to the question that they take as an argument.
ASKED = ("langchain_rag.py", "llama_index_query_engine.py")
# A server, and settings of the whole process.
IN_A_NEW_PROCESS = ("fastapi_service.py", "llama_index_agent.py")
WITHOUT_LANGUAGE_MODEL = ("cascade_rerank.py", "explain.py", "llama_index_three_generations.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    present = set(metafunc.config.getoption("--frameworks").split(","))
    if "example" in metafunc.fixturenames:
        metafunc.parametrize("example", [name for name, needs in NEEDS.items() if needs <= present])
    if "asked" in metafunc.fixturenames:
        metafunc.parametrize("asked", [name for name in ASKED if NEEDS[name] <= present])


def run(example: str, *arguments: str, folder: Path | None = None) -> list[str]:
    """Return the lines that an example prints when it runs in `folder`.

    Most run in this process, which has loaded their libraries; ``make examples`` runs every one in a new one.
    """
    command = [str(EXAMPLES / example), *arguments]
    if example in IN_A_NEW_PROCESS:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, encoding="utf-8", cwd=folder
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", command)
        patch.chdir(folder or Path.cwd())
        runpy.run_path(command[0], run_name="__main__")
    return printed.getvalue().splitlines()


def scores(lines: list[str]) -> list[float]:
    return [
        float(match[1]) for line in lines if (match := re.match(r"\s*(?:LangChain|LlamaIndex)?\s*(\d+\.\d+) ", line))
    ]


def test_every_example_is_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(NEEDS) == set(CHECKS)


def test_is_short_and_says_where_a_real_model_goes(example: str) -> None:
    lines = (EXAMPLES / example).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 105
    marked = sum("real" in line and ("LLM" in line or "llm" in line) for line in lines)
    assert marked == (example not in WITHOUT_LANGUAGE_MODEL)


@pytest.mark.slow
def test_prints_what_it_promises(example: str, tmp_path: Path) -> None:
    CHECKS[example](tmp_path)


@pytest.mark.slow
def test_takes_a_question(asked: str) -> None:
    lines = run(asked, "how much room is left on my disk?")
    assert "[shutil]" in lines[0]
    assert "shutil.disk_usage" in "\n".join(lines[2:])


def _check_fastapi_service(folder: Path) -> None:
    lines = run("fastapi_service.py", "--load")
    assert re.match(r"50 callers at once: 50 right answers in \d+\.\d s$", lines[0])
    assert re.match(r"The event loop was late by at most \d+ ms$", lines[1])


def _check_langchain_agent(folder: Path) -> None:
    lines = run("langchain_agent.py", "how much room is left on my disk?")
    assert lines[0] == "The agent calls search_library('how much room is left on my disk?')"
    # The artifact of the tool has the scores and ids that the language model does not see.
    assert len(scores(lines)) == 2
    assert "[shutil]" in lines[1]
    assert lines[-1].startswith("The library says: ")
    assert "shutil.disk_usage" in lines[-1]


def _check_langchain_rag(folder: Path) -> None:
    lines = run("langchain_rag.py")
    _check_two_hits(lines)
    answer = "\n".join(lines[2:])
    assert answer.startswith("According to [zipfile] ZipFile.read returns the bytes of one member")


def _check_llama_index_query_engine(folder: Path) -> None:
    lines = run("llama_index_query_engine.py")
    _check_two_hits(lines)
    answer = "\n".join(lines[2:])
    assert "ZipFile.read returns one member" in answer
    assert "how do I read one file of an archive?" in answer
    # Kept for the caller, not for the language model.
    assert "retrieval_score" not in answer


def _check_two_hits(lines: list[str]) -> None:
    found = scores(lines)
    assert len(found) == 2
    assert found == sorted(found, reverse=True)
    assert "[zipfile]" in lines[0]


def _check_cascade(folder: Path) -> None:
    lines = run("cascade_rerank.py")
    assert lines[0] == "LangChain"
    assert lines[3] == "LlamaIndex"
    # Both frameworks print the same scores, to the last digit.
    assert lines[1:3] == lines[4:6]
    assert re.match(r"  \[zipfile\] was 7 of 7: ColBERTRerank \d+\.\d{3}, CrossEncoderRerank \d\.\d{3}$", lines[1])
    assert lines[-1] == "  [difflib] is still first; ColBERTRerank: the time budget of 0.001 s ran out"


def _check_shared(folder: Path) -> None:
    lines = run("shared_index.py")
    after = lines.index("After the writer added a passage")
    for part in (lines[1:after], lines[after + 1 :]):
        langchain, llama_index = (
            [line.split()[1:] for line in part if name in line] for name in ("LangChain", "LlamaIndex")
        )
        assert len(langchain) == 2
        assert langchain == llama_index
    assert "tarfile" not in "".join(lines[:after])
    assert "tarfile" in lines[after + 1]


def _check_explained(folder: Path) -> None:
    page = folder / "page.html"
    lines = run("explain.py", "how much space is left on my disk?", str(page))
    assert re.match(r"\[shutil\] \d+\.\d{4}$", lines[0])
    assert any(re.match(r"  disk: (disk|disk_usage).* \(0\.\d\d\)", line) for line in lines)
    assert any("MaxSim" in line for line in lines)
    assert lines[-1] == f"The heat map is in {page}"
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert "disk" in html


def _check_llama_index_two_stage(folder: Path) -> None:
    lines = run("llama_index_two_stage.py")
    hits = [re.match(r"(\d\.\d{3})  \[(\w+)\] .* \(FAISS (\d\.\d\d), place (\d) of 5\)$", line) for line in lines[:-1]]
    reranked, retrieved, names, places = zip(*((hit[1], hit[3], hit[2], hit[4]) for hit in hits if hit), strict=True)
    # FAISS has them the other way round.
    assert names == ("zipfile", "tarfile")
    assert places == ("2", "1")
    assert float(reranked[0]) > float(reranked[1])
    assert float(retrieved[0]) < float(retrieved[1])
    answer = "ZipFile.read returns the bytes of one member without extracting the archive."
    assert lines[-1] == f"According to the library: {answer}"


def _check_llama_index_pdf_citations(folder: Path) -> None:
    library = folder / "library"
    shutil.copytree(EXAMPLES / "library", library)
    for question, quoted, file, page, removed in (
        ("how long may I keep a film?", "films and music for one week", "borrowing_rules.pdf", 2, None),
        # The next run opens the index of the first.
        ("is tea free?", "tea is free until ten o'clock", "opening_hours.pdf", 1, "tool_workshop.pdf"),
    ):
        if removed:
            (library / removed).unlink()
        stored, answer, *sources = run("llama_index_pdf_citations.py", question, str(library), folder=folder)
        assert re.match(r"5 pages, \d+ passages$" if removed else r"8 pages, \d+ passages$", stored)
        assert quoted in answer
        assert answer.endswith(" [1]")
        assert [re.sub(r"\d+\.\d\d", "0", line) for line in sources] == [f"[1] {file}, page {page} (score 0)"]
        assert quoted in _text_of_page(library / file, page)


def _text_of_page(path: Path, page: int) -> str:
    from pypdf import PdfReader

    return " ".join(PdfReader(path).pages[page - 1].extract_text().split())


def _check_llama_index_agent(folder: Path) -> None:
    for question, name, answer in (
        ("how do I read one file of an archive?", "zip", "zipfile ZipFile.read returns one member"),
        ("how much room is left on my disk?", "disk", "shutil shutil.disk_usage tells how much space"),
    ):
        lines = run("llama_index_agent.py", question)
        assert lines[0] == f"The agent called library({question!r})"
        assert re.match(rf" +\d+\.\d\d  \[{name}\] ", lines[1])
        found = scores(lines[1:3])
        assert len(found) == 2
        assert found == sorted(found, reverse=True)
        assert lines[3].startswith(f"According to module: {answer}")


def _check_llama_index_reingest(folder: Path) -> None:
    from rerank_integrations import ColBERTIndex

    price, tram = "  How much is a ticket? [price.txt] A ticket costs", "  Does the tram go to the museum?"
    answers = [f"{price} 10 euros.", f"{tram} [strike.txt] The tram to the museum is on strike."]
    assert run("llama_index_reingest.py") == [
        "added ['hours.txt', 'price.txt', 'strike.txt'], replaced [], deleted []",
        *answers,
        "added [], replaced [], deleted []",
        *answers,
        "added ['bus.txt'], replaced ['price.txt'], deleted ['strike.txt']",
        f"{price} 12 euros.",
        f"{tram} [bus.txt] Bus 7 goes to the museum every ten minutes.",
    ]
    # A run that was interrupted between the index and the document store.
    ingest = runpy.run_path(str(EXAMPLES / "llama_index_reingest.py"))["ingest"]
    (folder / "notices").mkdir()
    (folder / "notices" / "long.txt").write_text("The museum has many rooms. " * 100)
    ingest(folder / "notices", folder / "state")
    with ColBERTIndex.open(folder / "state" / "index") as index:
        stored = set(index.ids())
    (folder / "state" / "ingested.json").unlink()
    ingest(folder / "notices", folder / "state")
    with ColBERTIndex.open(folder / "state" / "index") as index:
        assert set(index.ids()) == stored
    assert len(stored) > 1


def _check_llama_index_three_generations(folder: Path) -> None:
    title, header, *rows, mean_ranks, milliseconds = run("llama_index_three_generations.py")
    passages = int(title.split()[-2])
    assert header.split() == ["bi-encoder", "+", "cross-encoder", "ColBERT"]
    ranks = [[int(place) for place in row.split()[-3:]] for row in rows]
    assert len(ranks) == 10
    assert all(1 <= place <= passages for places in ranks for place in places)
    expected = [sum(1 / place for place in places) / 10 for places in zip(*ranks, strict=True)]
    assert [float(mean) for mean in mean_ranks.split()[-3:]] == pytest.approx(expected, abs=0.0006)
    # Most answers come first with each of the three.
    assert min(expected) > 0.6
    assert all(float(value) > 0 for value in milliseconds.split()[-3:])


def _check_langchain_two_stage(folder: Path) -> None:
    *hits, answer = run("langchain_two_stage.py")
    found = scores(hits)
    assert len(found) == 3
    assert found == sorted(found, reverse=True)
    # The cross-encoder puts first what FAISS has further down.
    best = re.search(r"recalled as number (\d)  \[loans\]$", hits[0])
    assert best is not None
    assert int(best[1]) > 1
    assert answer.startswith("According to [loans] Books are lent for four weeks, films and music for one week")


def _check_langchain_pdf_citations(folder: Path) -> None:
    for question, quoted, file, page in (
        ("when is the repair evening?", "first Thursday of the month", "tool_workshop.pdf", 3),
        ("how much is the late fee?", "20 cents per item and day", "borrowing_rules.pdf", 2),
        ("is the library open in August?", "In August it is open in the morning only", "opening_hours.pdf", 2),
    ):
        answer, title, *sources = run("langchain_pdf_citations.py", question)
        citation = f"[{file}, page {page}]"
        assert quoted in answer
        assert answer.endswith(citation)
        assert title == "Sources:"
        assert len(sources) == 3
        assert sources[0].endswith(citation)
        assert scores(sources) == sorted(scores(sources), reverse=True)
        assert quoted in _text_of_page(EXAMPLES / "library" / file, page)


def _check_langchain_reingest(folder: Path) -> None:
    pytest.importorskip("langchain_classic", reason="the example has its record manager")
    lines = run("langchain_reingest.py")
    assert lines[::4] == [
        "Three files: added 3, updated 0, skipped 0, deleted 0",
        "The same files again: added 0, updated 0, skipped 3, deleted 0",
        "One file more: added 1, updated 0, skipped 3, deleted 0",
        "One file changed: added 1, updated 0, skipped 3, deleted 1",
        "One file removed: added 0, updated 0, skipped 3, deleted 1",
    ]
    fees, loans, repairs = (lines[place::4] for place in (1, 2, 3))
    assert all("[fees.txt] The late fee is 20 cents" in line for line in fees[:4])
    assert "fees.txt" not in fees[4]
    assert all("films and music for one week" in line for line in loans[:3])
    assert all("films for ten days" in line for line in loans[3:])
    assert ["[repairs.txt]" in line for line in repairs] == [False, False, True, True, True]


CHECKS: dict[str, Callable[[Path], None]] = {
    "cascade_rerank.py": _check_cascade,
    "explain.py": _check_explained,
    "fastapi_service.py": _check_fastapi_service,
    "langchain_agent.py": _check_langchain_agent,
    "langchain_pdf_citations.py": _check_langchain_pdf_citations,
    "langchain_rag.py": _check_langchain_rag,
    "langchain_reingest.py": _check_langchain_reingest,
    "langchain_two_stage.py": _check_langchain_two_stage,
    "llama_index_agent.py": _check_llama_index_agent,
    "llama_index_pdf_citations.py": _check_llama_index_pdf_citations,
    "llama_index_query_engine.py": _check_llama_index_query_engine,
    "llama_index_reingest.py": _check_llama_index_reingest,
    "llama_index_three_generations.py": _check_llama_index_three_generations,
    "llama_index_two_stage.py": _check_llama_index_two_stage,
    "shared_index.py": _check_shared,
}
