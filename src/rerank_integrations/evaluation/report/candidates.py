"""Pipelines that differ only in how many candidates they rerank, as lines over that number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_integrations.evaluation.measuring import Measured
from rerank_integrations.evaluation.summary import Row


@dataclass(frozen=True)
class Series:
    """Figures by number of candidates of the first reranker.

    Parameters
    ----------
    rows
        By rising number of candidates; 0 is the retriever alone, where that was measured.
    """

    name: str
    rows: dict[int, Row]


def series_by_candidates(results: Sequence[Measured], rows: Sequence[Row]) -> list[Series]:
    """Return a series for every two or more pipelines that differ in the number of candidates alone."""
    alone: dict[str, Row] = {}
    groups: dict[str, dict[int, Row]] = {}
    for result, row in zip(results, rows, strict=True):
        stages = result.pipeline["rerank"]
        if stages:
            # Of two equal pipelines under two names, the first.
            groups.setdefault(_but_candidates(result.pipeline), {}).setdefault(stages[0]["candidates"], row)
        else:
            alone.setdefault(_retriever(result.pipeline), row)
    found = []
    for key, group in groups.items():
        if len(group) > 1:
            retriever = json.loads(key)[0]
            before = {0: alone[retriever]} if retriever in alone else {}
            found.append(Series(_name(group), before | dict(sorted(group.items()))))
    return found


def _retriever(pipeline: Mapping[str, Any]) -> str:
    # However deep: more candidates need a deeper list.
    return json.dumps({**pipeline["retrieve"], "depth": None}, sort_keys=True)


def _but_candidates(pipeline: Mapping[str, Any]) -> str:
    first, *later = pipeline["rerank"]
    return json.dumps([_retriever(pipeline), {**first, "candidates": None}, *later], sort_keys=True)


def _name(group: Mapping[int, Row]) -> str:
    bases = {row.name.removesuffix(f"@{count}") for count, row in group.items()}
    return bases.pop() if len(bases) == 1 else next(iter(group.values())).name
