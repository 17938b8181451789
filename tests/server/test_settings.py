"""Settings: from arguments and the environment, refused by name; what can be served at all."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from service import WordScorer

from rerank_integrations import ColBERTIndex, InvalidInputError
from rerank_integrations.server import ServerSettings, create_app


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_INTEGRATIONS_SERVER_MAX_K", "7")
    monkeypatch.setenv("RERANK_INTEGRATIONS_SERVER_TOKEN", "from the environment")
    settings = ServerSettings()
    assert settings.max_k == 7
    assert settings.token is not None
    assert settings.token.get_secret_value() == "from the environment"
    assert ServerSettings(max_k=8).max_k == 8
    assert "environment" not in repr(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_k": 0}, "the setting max_k is 0"),
        ({"timeout": float("nan")}, "the setting timeout is nan"),
        ({"max_bodies": 3}, "the setting max_bodies is 3"),
        ({"writable": "perhaps"}, "the setting writable is 'perhaps'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ServerSettings(**values)


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInputError, match="the setting token") as raised:
        ServerSettings(token="short")  # type: ignore[arg-type]
    assert "short" not in str(raised.value).replace("too short", "")


def test_names_and_kinds_are_checked(index: ColBERTIndex) -> None:
    scorer = WordScorer()
    for indexes, rerankers, message in (
        ({}, {}, "neither indexes nor rerankers"),
        ({"a b": index}, {}, "'a b'"),
        ({"../a": index}, {}, "'../a'"),
        ({"same": index}, {"same": scorer}, "'same' is the name of an index and of a reranker"),
        ({"path": str(index.path)}, {}, "of type str; expected an open ColBERTIndex"),
        ({}, {"none": object()}, "expected a model or anything with score"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            create_app(indexes, rerankers)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["fastapi", "pydantic_settings", "prometheus_client", "orjson"])
def test_a_missing_library_names_the_extra(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from rerank_integrations import MissingExtraError\n"
        "class Scorer:\n    def score(self, query, texts): return [0.0] * len(texts)\n"
        "try:\n    from rerank_integrations.server import create_app; create_app({}, {'a': Scorer()})\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'rerank-integrations[server]'" in done.stdout
