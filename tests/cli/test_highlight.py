"""Highlighting of matched words."""

from __future__ import annotations

import pytest

from rerank_integrations import Hit, TokenMatch
from rerank_integrations.cli.highlight import highlight, matched_spans
from rerank_integrations.cli.output import write_hits

TEXT = "zipfile.ZipFile: read a file"


def _match(start: int, end: int, score: float = 0.9) -> TokenMatch:
    return TokenMatch("query", TEXT[start:end], score, start, end)


def test_spans_are_widened_to_words_and_joined() -> None:
    matches = [_match(22, 23), _match(0, 3), _match(3, 7), _match(8, 11), _match(17, 21), _match(24, 28)]
    assert [TEXT[start:end] for start, end in matched_spans(TEXT, matches)] == ["zipfile", "ZipFile", "read", "file"]


def test_weak_matches_markers_and_function_words_are_omitted() -> None:
    function_word = TokenMatch("without", "read", 0.9, 17, 21)
    assert matched_spans(TEXT, [_match(17, 21, 0.59), _match(0, 0), _match(22, 23), function_word]) == []


def test_without_style_the_words_stand_between_marks() -> None:
    shown = highlight(TEXT, [_match(17, 21)], styled=False)
    assert shown.plain == "zipfile.ZipFile: «read» a file"
    assert shown.spans == []


def test_with_style_the_text_stays_as_it_is() -> None:
    shown = highlight(TEXT, [_match(17, 21)], styled=True)
    assert shown.plain == TEXT
    assert [(span.start, span.end) for span in shown.spans] == [(17, 21)]


@pytest.mark.parametrize("styled", [True, False])
def test_a_text_cannot_control_the_terminal(styled: bool) -> None:
    text = "\x1b[31mred\x1b]0;title\x07 \u202ereversed\x9b"
    shown = highlight(text, [TokenMatch("red", "red", 0.9, 5, 8)], styled=styled)
    assert shown.plain.replace("«", "").replace("»", "") == "␛[31mred␛]0;title␇ \ufffdreversed\ufffd"


def test_a_hit_in_a_table_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write_hits([Hit("a\x1b[2Jb", 0.5, 1, "c\x1b[2Jd", {})])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "a␛[2Jb" in shown
    assert "c␛[2Jd" in shown


LONG = f"{'A few words before it. ' * 30}Here a zip archive is unpacked.{' And some words behind it.' * 30}"


def test_a_long_text_is_cut_to_its_matched_part() -> None:
    position = LONG.index("archive")
    shown = highlight(LONG, [TokenMatch("zip", "archive", 0.9, position, position + 7)], styled=False, width=100).plain
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert "a zip «archive» is unpacked" in shown
    assert len(shown) <= 100 + 20 + len("……«»")
    assert all(word in LONG.split() for word in shown.strip("…").replace("«", "").replace("»", "").split())


def test_a_long_text_without_matches_is_cut_to_its_start() -> None:
    assert highlight(LONG, [], styled=False, width=10).plain == "A few …"
    assert highlight("short", [], styled=False, width=10).plain == "short"


def test_chinese_is_cut_where_there_are_no_spaces() -> None:
    text = "猫在睡觉" * 50
    assert highlight(text, [], styled=False, width=30).plain == f"{text[:30]}…"


def test_only_the_matched_characters_of_chinese_are_marked() -> None:
    text = "猫在睡觉，狗不睡。"
    assert highlight(text, [TokenMatch("睡", "睡", 0.9, 2, 3)], styled=False).plain == "猫在«睡»觉，狗不睡。"
