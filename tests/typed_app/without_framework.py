"""An application without a framework: an index, rerankers, a scorer and an encoder of its own, checked by types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_type

from rerank_integrations import (
    Calibration,
    Candidate,
    CandidateScorer,
    Cascade,
    ColBERTIndex,
    ColBERTModel,
    ColBERTScorer,
    CrossEncoderModel,
    CrossEncoderScorer,
    Explanation,
    Hit,
    IndexStats,
    InvalidInputError,
    ListwiseCandidateScorer,
    ListwiseScorer,
    LoadedModel,
    Passage,
    PassageLike,
    PlainScorer,
    Ranked,
    RemoteReranker,
    Reranker,
    Scorer,
    Stage,
    ThresholdFit,
    TokenEncoder,
    TokenMatch,
    VerifyReport,
    WordMatch,
    explain,
    export_colbert,
    fit_calibration,
    fit_threshold,
    loaded_models,
    rerank,
    unload_all,
)

LIBRARY: list[PassageLike] = [
    Passage("zipfile", "ZipFile.read returns one member without extracting the archive.", {"topic": "files"}),
    {"id": "csv", "text": "csv.reader goes through the rows of comma-separated values."},
    "heapq.nlargest returns the n largest elements of a data set.",
]
QUESTION = "how do I read one file of an archive?"


class SharedWords:
    """A scorer of the user's own: how many words of the query a text contains."""

    def score(self, query: str, texts: list[str]) -> list[float]:
        words = set(query.lower().split())
        return [float(len(words & set(text.lower().split()))) for text in texts]


class Longest:
    """A listwise scorer of the user's own: which text is the longest of all."""

    max_candidates = 100

    def score_list(self, query: str, texts: list[str]) -> list[float]:
        longest = max(map(len, texts))
        return [float(len(text) == longest) for text in texts]


class Letters:
    """An encoder of the user's own: one unit vector per word, by its first letter."""

    @property
    def name(self) -> str:
        return "letters"

    @property
    def dim(self) -> int:
        return 32

    @property
    def fingerprint(self) -> str:
        return "letters-1"

    def options(self) -> dict[str, Any]:
        return {"name_or_path": "letters"}

    def encode_queries(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [self._encode(text) for text in texts]

    def encode_documents(self, texts: Sequence[str], show_progress: bool = False) -> list[npt.NDArray[np.float32]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> npt.NDArray[np.float32]:
        rows = np.zeros((len(text.split()), self.dim), dtype=np.float32)
        for row, word in enumerate(text.lower().split()):
            rows[row, ord(word[0]) % self.dim] = 1.0
        return rows


def search(folder: Path, model: ColBERTModel) -> list[Hit]:
    with ColBERTIndex.create(folder / "index", model, nbits=4) as index:
        assert_type(index, ColBERTIndex)
        assert_type(index.upsert(LIBRARY), list[str])
        assert_type(index.stats(), IndexStats)
        assert_type(index.verify(), VerifyReport)
        assert_type(index.get(["zipfile"]), list[Passage])
        assert_type(index.search_many([QUESTION], k=2), list[list[Hit]])
        hits = index.search(QUESTION, k=3, where={"topic": {"$in": ["files"]}})
        export_colbert(index, folder / "exported")
    assert_type(hits, list[Hit])
    assert_type(hits[0].score, float)
    return hits


def rerankers(model: ColBERTModel, cross_encoder: CrossEncoderModel) -> list[Hit]:
    by_words: Scorer = SharedWords()
    by_length: ListwiseScorer = Longest()
    scorers: list[CandidateScorer] = [
        ColBERTScorer(model, scale="mean"),
        CrossEncoderScorer(cross_encoder, window=64),
        PlainScorer(by_words),
        ListwiseCandidateScorer(by_length),
    ]
    stages = [Stage(f"stage {number}", Reranker(scorer, top_n=3)) for number, scorer in enumerate(scorers)]
    cascade = Cascade([*stages, ("again", Reranker(scorers[0]))], top_n=2, time_budget=30.0)
    candidates = [Candidate("csv", "csv.reader goes through rows."), Candidate(None, "an archive", score=0.5)]
    assert_type(cascade.rank(QUESTION, candidates), list[Ranked])
    assert_type(cross_encoder.score(QUESTION, ["one", "two"]), list[float])
    try:
        return rerank(QUESTION, LIBRARY, cascade)
    except InvalidInputError as error:
        raise SystemExit(str(error)) from error


def remote() -> Reranker:
    """Return a reranker whose model is on another machine; nothing connects before it is used."""
    scorer = RemoteReranker("http://127.0.0.1:8000/v1/rerank", model="docs", api="jina")
    assert_type(scorer.name, str)
    return Reranker(scorer, top_n=3)


def threshold(scorer: Scorer) -> float | None:
    fit = fit_threshold(scorer, [(QUESTION, "an archive", True), (QUESTION, "a table", False)], precision=0.9)
    assert_type(fit, ThresholdFit)
    return fit.threshold


def probabilities(scorer: Scorer, folder: Path) -> list[Hit]:
    calibration = fit_calibration(scorer, [(QUESTION, QUESTION, True), (QUESTION, "a table", False)], method="platt")
    assert_type(calibration, Calibration)
    assert_type(calibration.probability(0.5), float)
    calibration.save(folder / "calibration.json")
    return rerank(QUESTION, LIBRARY, scorer, calibration=Calibration.load(folder / "calibration.json"), threshold=0.1)


def words_of(hit: Hit, model: ColBERTModel) -> list[str]:
    explanation = explain(QUESTION, hit, model)
    assert_type(explanation, Explanation)
    assert_type(explanation.matches, tuple[TokenMatch, ...])
    words = explanation.words()
    assert_type(words[0], WordMatch)
    return [word.query_word for word in words]


def own_encoder(folder: Path) -> list[Hit]:
    encoder: TokenEncoder = Letters()
    with ColBERTIndex.create(folder / "letters", encoder) as index:
        index.upsert(LIBRARY)
        return index.search("read an archive")


def main(folder: Path) -> None:
    model, cross_encoder = ColBERTModel("starter"), CrossEncoderModel("starter")
    hits = search(folder, model)
    assert words_of(hits[0], model)
    assert len(rerankers(model, cross_encoder)) == 2
    assert own_encoder(folder)
    threshold(SharedWords())
    assert all(0 <= hit.score <= 1 for hit in probabilities(SharedWords(), folder))
    assert_type(rerank(QUESTION, LIBRARY, Longest()), list[Hit])
    assert_type(remote(), Reranker)
    assert_type(loaded_models(), list[LoadedModel])
    unload_all()
