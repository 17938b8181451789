"""Errors that cross a process boundary."""

from __future__ import annotations

import pickle

from rerank_integrations import MissingExtraError


def test_a_missing_extra_comes_through_a_pickle() -> None:
    error = MissingExtraError("starter", "the starter model")
    found = pickle.loads(pickle.dumps(error))
    assert isinstance(found, MissingExtraError)
    assert (str(found), found.extra) == (str(error), "starter")
