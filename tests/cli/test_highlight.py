"""Matched words made visible."""

from __future__ import annotations

from rerank_integrations.cli.highlight import highlight, matched_spans
from rerank_integrations.core.models import TokenMatch

TEXT = "zipfile.ZipFile: read a file"


def _match(start: int, end: int, score: float = 0.9) -> TokenMatch:
    return TokenMatch("query", TEXT[start:end], score, start, end)


def test_spans_are_widened_to_words_and_joined() -> None:
    matches = [_match(22, 23), _match(0, 3), _match(3, 7), _match(8, 11), _match(17, 21), _match(24, 28)]
    assert [TEXT[start:end] for start, end in matched_spans(TEXT, matches)] == ["zipfile", "ZipFile", "read", "file"]


def test_weak_matches_markers_and_function_words_are_left_out() -> None:
    of_the_query = TokenMatch("without", "read", 0.9, 17, 21)
    assert matched_spans(TEXT, [_match(17, 21, 0.59), _match(0, 0), _match(22, 23), of_the_query]) == []


def test_without_style_the_words_stand_between_marks() -> None:
    shown = highlight(TEXT, [_match(17, 21)], styled=False)
    assert shown.plain == "zipfile.ZipFile: «read» a file"
    assert shown.spans == []


def test_with_style_the_text_stays_as_it_is() -> None:
    shown = highlight(TEXT, [_match(17, 21)], styled=True)
    assert shown.plain == TEXT
    assert [(span.start, span.end) for span in shown.spans] == [(17, 21)]
