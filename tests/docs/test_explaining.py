"""Tests of the claims in docs/how-to/explaining.md."""

from __future__ import annotations

from pathlib import Path

from guides import run_guide


def test_the_guide(tmp_path: Path, cross_encoder_dir: Path) -> None:
    names = run_guide("how-to/explaining.md", tmp_path, cross_encoder_dir)
    told, model = names["explanation"], names["model"]
    assert told == model.explain(names["query"], names["text"])
    assert told.score == model.score(names["query"], [names["text"]])[0]
    assert {"archive": ["archive"], "read": ["read"]}.items() <= {
        word.query_word: [one.word for one in word.matched] for word in told.words()
    }.items()
    assert names["record"] == told.to_dict()
    assert (tmp_path / "explanation.html").read_text("utf-8") == told.to_html()
