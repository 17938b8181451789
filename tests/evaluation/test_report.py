"""The report: a self-contained page whose tables and plots show the measurements."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from made_up_results import DATA, ORIGIN, QRELS, invented

from rerank_integrations import InvalidInputError
from rerank_integrations.cli.app import main
from rerank_integrations.evaluation import (
    Measured,
    Pipeline,
    Rerank,
    Retrieve,
    Row,
    at_candidates,
    report_kept,
    summarize,
    write_report,
)

HOSTILE = "<script>alert(\"1\")</script> & 'two' \x07"
BM25, DENSE = Retrieve("bm25"), Retrieve("dense", "starter")
VOID = {"meta"}


class Page(HTMLParser):
    """A strict parser of a page, which checks that tags are closed in order; it reads tables, drawings, attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(self.source)
        self.close()
        assert not self.open
        found = re.findall(r"<svg.*?</svg>", self.source, re.DOTALL)
        self.drawings = {svg.get("aria-label", ""): svg for svg in map(ElementTree.fromstring, found)}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows = []
        elif tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "caption":
            self._caption += data
        elif self.open and self.open[-1] in ("td", "th"):
            self._rows[-1][-1] += data

    def drawing(self, start: str) -> ElementTree.Element:
        (found,) = [svg for label, svg in self.drawings.items() if label.startswith(start)]
        return found

    def table(self, start: str) -> list[list[str]]:
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found


def pipelines() -> list[Pipeline]:
    reranked = Pipeline("bm25+colbert", BM25, (Rerank("colbert"),))
    return [
        Pipeline("bm25", BM25),
        Pipeline("dense", DENSE),
        Pipeline(HOSTILE, Retrieve("colbert", "starter", nbits=None)),
        *at_candidates([reranked], [10, 25, 120]),
    ]


@pytest.fixture(scope="module")
def results() -> list[Measured]:
    figures = [(0.3, 0.4), (0.2, 9.0), (0.6, 60.0), (0.4, 20.0), (0.7, 45.0), (0.8, 700.0)]
    return [
        invented(pipeline, good=good, slow=slow, seed=number)
        for number, (pipeline, (good, slow)) in enumerate(zip(pipelines(), figures, strict=True))
    ]


@pytest.fixture(scope="module")
def rows(results: list[Measured]) -> list[Row]:
    return summarize(results, QRELS)


@pytest.fixture(scope="module")
def page(results: list[Measured], rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(tmp_path_factory.mktemp("report"), results, rows))


def titles(drawing: ElementTree.Element) -> list[str]:
    return [title.text or "" for title in drawing.iter("title")]


def read_points(drawing: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Read the names and the positions of markers."""
    points = {}
    for group in drawing.iterfind(".//g[@class='marker']"):
        shape, title = group.find(".//path"), group.find("title")
        assert shape is not None
        assert title is not None
        x, y = re.findall(r"-?[\d.]+", shape.get("transform", ""))
        points[(title.text or "").split(": nDCG")[0]] = (float(x), float(y))
    return points


def read_ticks(drawing: ElementTree.Element, axis: str) -> list[tuple[float, float]]:
    """Read the positions of an axis's grid lines, and the figures beside them."""
    lines = [extent(path) for path in drawing.iterfind(".//g[@class='grid']/path")]
    # A line across the axis x is upright.
    positions = [left if axis == "x" else top for left, top, right, bottom in lines if (left == right) is (axis == "x")]
    anchor = "middle" if axis == "x" else "end"
    texts = [text for text in drawing.iterfind(".//g[@class='tick']/text") if text.get("text-anchor") == anchor]
    figures = [float((text.text or "").replace(",", "")) for text in texts]
    return list(zip(positions, figures, strict=True))


def read_bars(drawing: ElementTree.Element) -> list[tuple[float, float]]:
    """Read the starts and the lengths of bars."""
    boxes = [extent(path) for path in drawing.iterfind(".//g[@class='bar']/path")]
    return [(left, right - left) for left, _, right, _ in boxes]


def extent(path: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom end of straight lines."""
    numbers = np.array(re.findall(r"-?[\d.]+", path.get("d", "")), dtype=float).reshape(-1, 2)
    (left, top), (right, bottom) = numbers.min(axis=0).tolist(), numbers.max(axis=0).tolist()
    return left, top, right, bottom


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href", "srcset", "style")]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "//" not in page.source.replace("</", "")
    assert "@import" not in page.source
    assert {found.strip("'\"")[0] for found in re.findall(r"url\((.*?)\)", page.source)} == {"#"}


def test_every_drawing_is_told_to_a_screen_reader_and_its_references_are_there(page: Page) -> None:
    assert len(page.drawings) == 7
    for label, svg in page.drawings.items():
        assert svg.get("role") == "img"
        assert label
    for target in re.findall(r"url\(#(.*?)\)", page.source):
        assert f'id="{target}"' in page.source


def test_every_pipeline_is_in_every_table_and_plot_of_pipelines(page: Page, results: list[Measured]) -> None:
    names = [str(result.pipeline["name"]).replace("\x07", "\ufffd") for result in results]
    for caption in ("Quality", "Latency", "Throughput", "The pipelines"):
        assert [row[0] for row in page.table(caption) if row[0] in names] == names, caption
    for start in ("nDCG@10 against p50", "nDCG@10 against p95", "peak memory", "size of the index"):
        told = titles(page.drawing(start))
        assert all(any(title.startswith(f"{name}: ") for title in told) for name in names), start
    assert len(titles(page.drawing("median of each stage"))) == 3 * len(names)


def test_names_are_escaped(page: Page) -> None:
    assert "<script>" not in page.source
    assert "<more>" not in page.source
    assert "&lt;script&gt;alert(" in page.source
    assert "\x07" not in page.source


def test_the_quality_table_holds_the_figures(page: Page, rows: list[Row]) -> None:
    _, *body = page.table("Quality")
    for cells, row in zip(body, rows, strict=True):
        assert [float(cell.strip("▲ ")) for cell in cells[1:5]] == pytest.approx(list(row.quality.values()), abs=5e-4)
        if row is rows[0]:
            assert cells[-1] == "first row"
            continue
        assert row.p_value is not None
        assert float(cells[5]) == pytest.approx(row.quality["nDCG@10"] - rows[0].quality["nDCG@10"], abs=6e-4)
        assert cells[6] == ("< 0.001" if row.p_value < 0.001 else f"{row.p_value:.3f}")
        assert cells[7].startswith("~" if row.p_value >= 0.05 else "*")
    assert {cells[-1][0] for cells in body[1:]} == {"~", "*"}
    best = max(rows, key=lambda row: row.quality["nDCG@10"])
    assert [cells[3].startswith("▲") for cells in body] == [row is best for row in rows]


def test_the_cost_tables_hold_the_figures(page: Page, rows: list[Row]) -> None:
    for cells, row in zip(page.table("Latency")[2:], rows, strict=True):
        expected = [ms for stage in ("encode", "retrieve", "rerank", "total") for ms in row.ms[stage]]
        assert [float(cell.replace(",", "")) for cell in cells[1:]] == pytest.approx(expected, abs=0.5, rel=0.05)
    for cells, row in zip(page.table("Throughput")[2:], rows, strict=True):
        expected = [row.per_s[1], row.per_s[8], row.build_s, row.index_mb, row.peak_mb]
        assert [float(cell.replace(",", "")) for cell in cells[1:]] == pytest.approx(expected, abs=0.5, rel=0.05)


def test_machine_and_command_are_told(page: Page) -> None:
    assert dict(page.table("Machine"))["processor"] == "A Processor"
    assert dict(page.table("The collection"))["name"] == DATA["name"]
    ((_, command),) = page.table("Measured by")
    assert command == ORIGIN["command"]


@pytest.mark.parametrize(("percentile", "place"), [(50, 0), (95, 1)])
def test_points_stand_where_the_axes_say(page: Page, rows: list[Row], percentile: int, place: int) -> None:
    drawing = page.drawing(f"nDCG@10 against p{percentile}")
    points = read_points(drawing)
    x_ticks, y_ticks = read_ticks(drawing, "x"), read_ticks(drawing, "y")
    for row in rows:
        x, y = points[row.name.replace("\x07", "\ufffd")]
        latency = 10 ** np.interp(x, [at for at, _ in x_ticks], np.log10([value for _, value in x_ticks]))
        assert latency == pytest.approx(row.ms["total"][place], rel=0.01)
        # From the bottom up, where y falls.
        quality = np.interp(-y, [-at for at, _ in y_ticks], [value for _, value in y_ticks])
        assert quality == pytest.approx(row.quality["nDCG@10"], abs=2e-3)
    by_latency = sorted(rows, key=lambda row: row.ms["total"][place])
    across = [points[row.name.replace("\x07", "\ufffd")][0] for row in by_latency]
    assert across == sorted(across)


@pytest.mark.parametrize(("percentile", "place"), [(50, 0), (95, 1)])
def test_the_front_is_what_nothing_beats(page: Page, rows: list[Row], percentile: int, place: int) -> None:
    figures = [(row.name.replace("\x07", "\ufffd"), row.ms["total"][place], row.quality["nDCG@10"]) for row in rows]
    expected = {name for name, ms, good in figures if not any(m < ms and g > good for _, m, g in figures)}
    told = titles(page.drawing(f"nDCG@10 against p{percentile}"))
    assert {title.split(": nDCG")[0] for title in told if title.endswith("on the Pareto front")} == expected
    assert 1 < len(expected) < len(rows)


def test_bars_are_as_long_as_their_figures(page: Page, rows: list[Row]) -> None:
    for start, values in (
        ("peak memory", [row.peak_mb for row in rows]),
        ("size of the index", [row.index_mb for row in rows]),
    ):
        lengths = [length for _, length in read_bars(page.drawing(start))]
        assert np.array(lengths) / lengths[-1] == pytest.approx(np.array(values) / values[-1], abs=1e-3)


def test_stages_lie_end_to_end(page: Page, rows: list[Row]) -> None:
    drawing = page.drawing("median of each stage")
    spans = read_bars(drawing)
    for number, row in enumerate(rows):
        stages = spans[3 * number : 3 * number + 3]
        for (start, length), (following, _) in pairwise(stages):
            assert start + length == pytest.approx(following, abs=0.02)
        share = spans[-1][1] / rows[-1].ms["rerank"][0]
        assert stages[2][1] == pytest.approx(row.ms["rerank"][0] * share, abs=0.02)


def test_lines_run_over_the_number_of_candidates(page: Page, rows: list[Row]) -> None:
    drawing = page.drawing("nDCG@10 against the number of candidates")
    told = titles(drawing)
    # 0 is BM25 alone, though it found fewer than the 120 need.
    assert [title.split(";")[0] for title in told] == [f"{count} candidates" for count in (0, 10, 25, 120)]
    ticks = read_ticks(drawing, "x")
    places = [x for x, _ in read_points(drawing).values()]
    assert np.interp(places, *zip(*ticks, strict=True)) == pytest.approx([0, 10, 25, 120], abs=0.5)
    # p50 and p95.
    assert len(titles(page.drawing("ms a query against"))) == 8


def test_without_several_numbers_of_candidates_there_is_a_word_instead(tmp_path: Path, results: list[Measured]) -> None:
    found = Page(write_report(tmp_path, results[:4], summarize(results[:4], QRELS)))
    assert not [label for label in found.drawings if "candidates" in label]
    assert "--candidates 10,25,50,100" in found.source


def test_memory_of_a_gpu_only_where_there_is_one(tmp_path: Path, page: Page, results: list[Measured]) -> None:
    assert "GPU memory" not in page.source
    some = [replace(results[0], gpu_mb=812.0), *results[1:]]
    found = Page(write_report(tmp_path, some, summarize(some, QRELS)))
    _, heads, first, second, *_ = found.table("Throughput")
    assert (heads[-1], first[-1], second[-1]) == ("GPU memory, MB", "812.0", "–")
    assert len(titles(found.drawing("peak GPU memory"))) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_few_and_equal_figures(tmp_path: Path, results: list[Measured], count: int) -> None:
    same = [replace(results[0], peak_mb=float("nan"))] * count
    found = Page(write_report(tmp_path, same, summarize(same, QRELS)))
    assert len(read_ticks(found.drawing("nDCG@10 against p50"), "x")) > 1
    assert json.loads((tmp_path / "summary.json").read_text())["rows"][0]["peak_mb"] is None
    assert "nan" not in found.source.lower().replace("finance", "")


@pytest.mark.slow
def test_many_pipelines_have_names_that_do_not_meet(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    many = [
        invented(
            Pipeline(f"pipeline number {n}", BM25), good=random.random(), slow=float(10 ** random.random()), seed=n
        )
        for n in range(45)
    ]
    found = Page(write_report(tmp_path, many, summarize(many, QRELS)))
    for percentile in (50, 95):
        drawing = found.drawing(f"nDCG@10 against p{percentile}")
        names = drawing.findall(".//g[@class='name']/text")
        assert len(names) == len(many)
        boxes = [box(text) for text in names]
        for number, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[:number]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        _, _, width, height = map(float, drawing.get("viewBox", "").split())
        assert all(left > 0 and right <= width and top > 0 and bottom < height for left, top, right, bottom in boxes)


def box(text: ElementTree.Element) -> tuple[float, float, float, float]:
    # 8 for a character: more than any usual font takes at 13.
    x, y, width = float(text.get("x", "")), float(text.get("y", "")), 8.0 * len(text.text or "")
    left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor", "start")]
    return left, y - 10, left + width, y + 3


def keep(folder: Path, results: Sequence[Measured], qrels: object = QRELS) -> None:
    folder.mkdir(exist_ok=True)
    for number, result in enumerate(results):
        record = {"settings": {}, "measured": result.to_json()}
        (folder / f"{number}.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "collection.json").write_text(json.dumps({"data": DATA, "qrels": qrels}), encoding="utf-8")


def test_kept_results_alone_make_the_report(tmp_path: Path, results: list[Measured], rows: list[Row]) -> None:
    last_first = [
        replace(result, origin={**ORIGIN, "measured_at": f"2030-01-0{number + 1}T00:00:00+00:00"})
        for number, result in enumerate(results)
    ][::-1]
    keep(tmp_path / "kept", last_first)
    page, left_out = report_kept(tmp_path / "kept")
    assert left_out == []
    assert page == tmp_path / "kept" / "report.html"
    summary = json.loads((tmp_path / "kept" / "summary.json").read_text(encoding="utf-8"))
    # In the order of measuring.
    assert [row["name"] for row in summary["rows"]] == [row.name for row in rows]
    assert [row["quality"] for row in summary["rows"]] == [row.quality for row in rows]
    assert summary["rows"][0]["origin"]["processor"] == "A Processor"
    # Its own files are no results.
    assert report_kept(tmp_path / "kept")[0] == page


def test_results_of_before_the_machine_was_recorded(tmp_path: Path, results: list[Measured]) -> None:
    keep(tmp_path, results)
    old = json.loads((tmp_path / "0.json").read_text())
    del old["measured"]["origin"], old["measured"]["gpu_mb"]
    (tmp_path / "0.json").write_text(json.dumps(old))
    found = Page(report_kept(tmp_path)[0])
    assert found.table("Machine of bm25") == [["machine", "not recorded: measured by an earlier version"]]
    assert len(found.table("Machine of dense")) > 1


def test_the_command_leaves_out_what_is_of_another_collection(
    tmp_path: Path, results: list[Measured], capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, [replace(results[0], data={**DATA, "crc32": "ffffffff"}), *results[1:]])
    with pytest.raises(SystemExit) as done:
        main(["report", str(tmp_path)])
    assert done.value.code in (0, None)
    told = capsys.readouterr().err
    assert "another collection: bm25\n" in told
    assert str(tmp_path / "report.html") in told
    assert len(json.loads((tmp_path / "summary.json").read_text())["rows"]) == len(results) - 1


def test_folders_that_make_no_report(tmp_path: Path, results: list[Measured]) -> None:
    with pytest.raises(InvalidInputError, match="no results"):
        report_kept(tmp_path)
    keep(tmp_path, results[:1])
    (tmp_path / "collection.json").write_text('{"data": {}, "qrels": []}')
    with pytest.raises(InvalidInputError, match=r"collection\.json does not hold"):
        report_kept(tmp_path)
    (tmp_path / "collection.json").write_text('{"data": {"name": "other"}, "qrels": {"q": {"p": 1}}}')
    with pytest.raises(InvalidInputError, match="no results of the collection 'other'"):
        report_kept(tmp_path)
    (tmp_path / "collection.json").unlink()
    with pytest.raises(InvalidInputError, match=r"collection\.json is missing"):
        report_kept(tmp_path)
    with pytest.raises(InvalidInputError, match="no results"):
        write_report(tmp_path, [], [])
    broken = results[0].to_json()
    broken["ms"]["rerank"] = [1.0]
    (tmp_path / "0.json").write_text(json.dumps({"settings": {}, "measured": broken}))
    with pytest.raises(InvalidInputError, match=r"0\.json"):
        report_kept(tmp_path)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, rerank_integrations.cli, rerank_integrations.evaluation\n"
        "print(sorted({'torch', 'scipy', 'ir_measures', 'bm25s', 'jinja2', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bits_are_told_of_what_is_compressed_alone(tmp_path: Path) -> None:
    pipelines = [Pipeline("colbert-1bit", Retrieve("colbert", "starter", nbits=1)), Pipeline("bm25", BM25)]
    for compressed, told in ((True, "colbert starter, 1 bit,"), (False, "colbert starter, not compressed,")):
        first, second = (invented(pipeline, good=0.5, slow=1, compressed={}) for pipeline in pipelines)
        results = [replace(first, compressed={"starter": compressed}), second]
        rows = summarize(results, QRELS)
        page = Page(write_report(tmp_path, results, rows))
        name = "colbert-1bit" if compressed else "colbert-1bit (not compressed)"
        assert [row[0] for row in page.table("Quality")][-2:] == [name, "bm25"]
        assert page.table("The pipelines")[1][1].startswith(told)
        assert ("Not compressed: an index holds float16" in page.source) is not compressed
        assert json.loads((tmp_path / "summary.json").read_text("utf-8"))["rows"][0]["compressed"] == {
            "starter": compressed
        }


@pytest.mark.slow
def test_the_same_results_make_the_same_page(tmp_path: Path, page: Page, results: list[Measured]) -> None:
    # Whatever style the process has chosen for its own plots, in whichever thread; it keeps that style.
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30, "svg.fonttype": "path"}):
        with ThreadPoolExecutor(3) as pool:
            folders = [tmp_path / str(number) for number in range(3)]
            for folder in folders:
                folder.mkdir()
            pages = list(pool.map(lambda folder: write_report(folder, results, summarize(results, QRELS)), folders))
        assert matplotlib.rcParams["font.size"] == 30
    assert {path.read_text(encoding="utf-8") for path in pages} == {page.source}


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["检索增强", "cost $x_1$ & $y$", "two\nlines", "half \ud800"]
    results = [invented(Pipeline(name, BM25), good=0.5, slow=10.0**number) for number, name in enumerate(names)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Page(write_report(tmp_path, results, summarize(results, QRELS)))
    for start in ("nDCG@10 against p50", "peak memory", "median of each stage"):
        texts = [text.text for text in found.drawing(start).iterfind(".//g[@class='name']/text")]
        assert sorted(map(str, texts)) == sorted(name.replace("\ud800", "\ufffd") for name in names)


def test_a_missing_extra_is_named(results: list[Measured], tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from rerank_integrations import MissingExtraError\n"
        "from rerank_integrations.evaluation import report_kept\n"
        "try:\n    report_kept(sys.argv[1])\nexcept MissingExtraError as error:\n    print(error)"
    )
    keep(tmp_path, results[:1])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "rerank-integrations[evaluate]" in done.stdout
