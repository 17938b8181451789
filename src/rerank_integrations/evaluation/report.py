"""The report of an evaluation: one HTML file that needs no network, and its figures as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerank_integrations.errors import InvalidInputError, MissingExtraError
from rerank_integrations.evaluation.evaluating import SUMMARY, read_judgements, read_results
from rerank_integrations.evaluation.measuring import Measured
from rerank_integrations.evaluation.summary import Row, summarize

PAGE = "report.html"


def write_report(out: str | Path, results: Sequence[Measured], rows: Sequence[Row]) -> Path:
    """Write ``report.html`` and ``summary.json`` into a folder, and return the path of the first.

    Parameters
    ----------
    results
        Results on one collection; the others are compared with the first.
    rows
        The rows that `summarize` returns for them, in the same order.

    Raises
    ------
    InvalidInputError
        If there are no results.
    MissingExtraError
        Without matplotlib.
    """
    if not results:
        raise InvalidInputError("no results to report; expected at least one")
    try:
        from rerank_integrations.evaluation.page import render
    except ModuleNotFoundError as error:
        raise MissingExtraError("evaluate", "the report") from error
    page, document = render(results[0].data, results, rows), summary_document(results, rows)
    Path(out, SUMMARY).write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
    Path(out, PAGE).write_text(page, encoding="utf-8")
    return Path(out, PAGE)


def report_kept(out: str | Path) -> tuple[Path, list[str]]:
    """Write the report of all results stored in a folder, in the order of measuring; nothing is run.

    Returns
    -------
    tuple
        The page's path, and the names of pipelines that were omitted because they were measured on another collection
        than the last one.

    Raises
    ------
    InvalidInputError
        If the folder holds no results or no judgements of their collection.
    """
    stored = read_results(out)
    data, qrels = read_judgements(out)
    results = [result for result in stored if result.data == data]
    results.sort(key=lambda result: str(result.origin.get("measured_at", "")))
    omitted = [str(result.pipeline["name"]) for result in stored if result.data != data]
    if not results:
        raise InvalidInputError(f"{out} holds no results of the collection {data.get('name')!r} in collection.json")
    return write_report(out, results, summarize(results, qrels)), omitted


def summary_document(results: Sequence[Measured], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of a report as JSON can hold them: the collection's facts, and one record per row."""
    records = [
        {**asdict(row), "pipeline": result.pipeline, "origin": result.origin}
        for result, row in zip(results, rows, strict=True)
    ]
    return {"data": results[0].data, "rows": [_without_nan(record) for record in records]}


def _without_nan(record: Mapping[str, object]) -> dict[str, object]:
    # Peak memory is not known on every system.
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
